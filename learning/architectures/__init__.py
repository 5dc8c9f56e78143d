"""The architectures; a new one is a file here and a line in this table."""

from __future__ import annotations

from learning.architectures.bert import Bert
from learning.architectures.conv_transformer import ConvTransformer
from learning.architectures.deepspeech import DeepSpeech
from learning.architectures.flatten_mlp import FlattenMlp
from learning.architectures.gpt import Gpt
from learning.architectures.llama import Llama
from learning.architectures.mlp import Mlp
from learning.architectures.resnet import ResNet
from learning.architectures.seq2seq import Seq2Seq
from learning.architectures.speaker_net import SpeakerNet
from learning.architectures.vgg import Vgg
from learning.capabilities import fits
from learning.errors import UnknownName, did_you_mean
from learning.interfaces import Architecture, Task

ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Mlp(),
        Bert(),
        Gpt(),
        Llama(),
        Seq2Seq(),
        ResNet(),
        Vgg(),
        FlattenMlp(),
        ConvTransformer(),
        DeepSpeech(),
        SpeakerNet(),
    )
}


def names_for(task: Task) -> list[str]:
    """Return the architectures that can learn a task."""
    return [name for name, architecture in ARCHITECTURES.items() if fits(task, architecture)]


def default_for(task: Task) -> str:
    """Return the architecture of a job that names none: the first that fits its task."""
    return names_for(task)[0]


def architecture_named(name: str) -> Architecture:
    """Return an architecture; UnknownName lists those there are."""
    if name not in ARCHITECTURES:
        raise UnknownName(
            f'There is no architecture "{name}".{did_you_mean(name, ARCHITECTURES)}',
            hint=f"Architectures: {', '.join(ARCHITECTURES)}.",
            param="architecture",
        )
    return ARCHITECTURES[name]
