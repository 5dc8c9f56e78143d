"""Write down what is said in a recording, letter by letter, without being told when each is heard.

The loss is connectionist temporal classification (Graves et al. 2006). S positions of all rows, K of the likeliest
tokens of each, L characters of the longest transcript.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar, cast

import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from learning import ctc
from learning.capabilities import Judged, Picture
from learning.character_model import CharacterCounts, CharacterModel
from learning.config import Columns, Config, Defaults, Situation
from learning.errors import InvalidData, InvalidRow
from learning.interfaces import (
    Batch,
    InputWarning,
    Kind,
    Link,
    Network,
    PackedFeatures,
    PackedPredictions,
    Part,
    PredictionOptions,
    Target,
)
from learning.joined_recordings import neighbours, put_together
from learning.modalities.audio import RECORDINGS, Audio, AudioRow, AudioState
from learning.modalities.media_columns import field_of
from learning.pictures.confusion import confusion_picture
from learning.spectrogram_augmentation import SoundView, audible
from learning.spectrograms import Normalization
from learning.splits import require_column, require_values
from learning.tasks import mistakes
from learning.tasks.classification import only_target
from learning.tasks.heard import HeardConfig, heard
from learning.tasks.listening import Transcriptions, Windows, transcribe
from learning.tasks.transcription import Heard, Transcript, TranscriptOptions, likeliest_tokens
from learning.transcripts import ErrorTally, compared, confusions, normalized, unlearned

_MOST_CHARACTERS = 10_000
# What predictions hear at a time, if no recording that is learned from is as long.
_LEAST_WINDOW_S = 5.0
# Of a part so many rows are looked at, from the first on, for the recordings whose errors are shown.
_MOST_ALIGNED, _SHOWN_ALIGNMENTS = 2_000, 20
# Silence between recordings that are put one after another: the least has room for a space.
_GAP_SECONDS = (0.05, 0.3)
# Behind the end of a transcript; below it are the characters that training does not know, which are never heard.
_NOTHING = -1


class SpeechRecognitionConfig(HeardConfig):
    """How transcripts are read, and how recordings are changed while they are learned from."""

    lower_case: bool = Field(True, description="Learn and write small letters only.")
    language_order: int = Field(
        5,
        ge=0,
        le=8,
        description="Characters, the next one included, by whose counts predictions can weigh texts; 0: none are kept.",
    )
    sentences: tuple[str, ...] = Field(
        (), description="Texts beside the transcripts that are counted, such as what else may be said."
    )
    joined: int = Field(
        1,
        ge=1,
        le=32,
        description="Recordings that training puts one after another, with their transcripts, up to so many at "
        "random; 1: none. Words that are said by themselves are learned within sentences by it.",
    )


class SpeechRecognitionState(Config):
    """The column of transcripts, their characters, sorted, and what a frame of a recording is in seconds."""

    target: str
    characters: tuple[str, ...]
    lower_case: bool
    frame_seconds: float
    view: SoundView | None
    counts: CharacterCounts | None = None
    window_seconds: float = 30.0  # of what predictions hear at a time, and training at most of joined recordings
    joined: int = 1
    normalization: Normalization = "recording"

    @cached_property
    def model(self) -> CharacterModel | None:
        """Return what is known of the language."""
        return None if self.counts is None else CharacterModel(self.counts)

    def text(self, tokens: Sequence[int]) -> str:
        """Return what tokens stand for."""
        return "".join(self.characters[token - 1] if token > 0 else chr(_NOTHING - 1 - token) for token in tokens)


class CharacterHead(nn.Module):
    """One linear layer on each position, to the blank and the characters."""

    def __init__(self, width: int, characters: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1 + characters)

    def forward(self, features: PackedFeatures) -> PackedFeatures:
        """Return logarithms of probabilities, (S, 1 + characters), and how many positions each row has."""
        return PackedFeatures(self.linear(features.features_SD).float().log_softmax(1), features.length_B)


class SpeechRecognition:
    """What is said, as text, and when each word of it is heard."""

    name: ClassVar[str] = "speech-recognition"
    modality: ClassVar[str] = "audio"
    kind: ClassVar[Kind] = "finetune"
    target: ClassVar[Target] = "label"
    stratified: ClassVar[bool] = False
    score: ClassVar[str] = "character_accuracy"
    monitor: ClassVar[str] = "loss"
    Config: ClassVar[type[SpeechRecognitionConfig]] = SpeechRecognitionConfig
    State: ClassVar[type[SpeechRecognitionState]] = SpeechRecognitionState
    Options: ClassVar[type[PredictionOptions]] = TranscriptOptions

    def fit(
        self, table: pa.Table, columns: Columns, config: SpeechRecognitionConfig, inputs: AudioState
    ) -> SpeechRecognitionState:
        """Collect the characters of the transcripts; InvalidData for a column that holds none."""
        target = only_target(self.name, columns)
        texts = _transcripts(table, target, config.lower_case)
        characters = sorted({one for text in texts for one in text})
        if not characters:
            raise InvalidData(
                f'Column "{target}" has no character among the training rows; there is nothing to write.',
                hint="Add transcripts, or choose another target.",
                param="columns.target",
            )
        if len(characters) > _MOST_CHARACTERS:
            raise InvalidData(
                f'Column "{target}" has {len(characters)} different characters; at most {_MOST_CHARACTERS} can be '
                "told apart.",
                hint="Choose a column of transcripts.",
                param="columns.target",
            )
        sentences = (normalized(text, config.lower_case) for text in config.sentences)
        order = config.language_order
        return SpeechRecognitionState(
            target=target,
            characters=tuple(characters),
            lower_case=config.lower_case,
            frame_seconds=inputs.frame_seconds,
            view=config.view and audible(config.view, inputs.frame_seconds),
            counts=CharacterCounts.of(chain(texts, sentences), order) if order else None,
            window_seconds=_window_seconds(table, inputs),
            joined=config.joined,
            normalization=inputs.normalization,
        )

    def targets(self, table: pa.Table, state: SpeechRecognitionState, encoded: Batch) -> Batch:
        """Return target_BL: numbers of characters from 1 on, -1 at the end, and for a character that training does not
        know -2 less its code point.
        """
        known = {character: number for number, character in enumerate(state.characters, 1)}
        texts = _transcripts(table, state.target, state.lower_case)
        target_BL = torch.full((len(texts), max(1, *map(len, texts), 1)), _NOTHING, dtype=torch.int32)
        for row, text in enumerate(texts):
            numbers = [known.get(character, _NOTHING - 1 - ord(character)) for character in text]
            target_BL[row, : len(text)] = torch.tensor(numbers, dtype=torch.int32)
        return {"target_BL": target_BL}

    def part_remarks(self, part: Part, table: pa.Table, state: SpeechRecognitionState) -> list[str]:
        """Name the characters of a part's transcripts that training does not know, the most frequent first."""
        texts = _transcripts(table, state.target, state.lower_case)
        return unlearned(part, Counter(chain.from_iterable(texts)), state.characters)

    def check_room(self, targets: Batch, position_B: Tensor, state: SpeechRecognitionState) -> None:
        """Raise InvalidRow for a transcript that cannot be said in so short a recording."""
        for row, (tokens, room) in enumerate(zip(_rows(targets), position_B.tolist(), strict=True)):
            needed = ctc.positions_needed(tokens)
            if needed > room:
                raise InvalidRow(
                    row,
                    f', column "{state.target}": the transcript has {len(tokens)} characters and needs {needed} '
                    f"positions, but its recording has {room}, which is what the network tells apart in it.",
                    hint="Correct the transcript or remove the row; or set a shorter preprocessing.hop_ms, or for a "
                    "recording that is cut a larger preprocessing.max_seconds.",
                    param="columns.target",
                )

    def head(self, width: int, state: SpeechRecognitionState) -> nn.Module:
        """Return a linear layer to the blank and the characters of each position."""
        return CharacterHead(width, len(state.characters))

    def defaults(self, usual: Defaults, situation: Situation) -> Defaults:
        """Return small batches at a high rate, since a recording has many characters, and so more steps."""
        return replace(usual, batch_size=16, learning_rate=2e-3, least_steps=max(900, usual.least_steps))

    def loss(self, network: Network, batch: Batch, state: SpeechRecognitionState) -> Tensor:
        """Return the mean over rows of the nats that a character costs; in training of a view of joined recordings."""
        target_BL = batch["target_BL"].cpu().long()
        texts = [tokens_L[tokens_L > ctc.BLANK] for tokens_L in target_BL]
        seen = batch
        if network.training and state.joined > 1:
            seen, texts = _joined(batch, texts, state)
        log_SV, length_B = cast("PackedFeatures", network(heard(seen, network, state.view)))
        # On the CPU, whatever the device: on others the loss has no gradient that is the same every time.
        log_TBV = pad_sequence(log_SV.cpu().split(length_B.tolist()))
        characters_B = torch.tensor([len(text) for text in texts])
        # A view may be too short for its transcript; it says nothing then.
        return functional.ctc_loss(
            log_TBV, torch.cat(texts), length_B, characters_B, blank=ctc.BLANK, zero_infinity=True
        )

    def link(self, state: SpeechRecognitionState) -> Link | None:
        """Return None: outputs are by position."""
        return None

    def predict(self, network: Network, batch: Batch, state: SpeechRecognitionState) -> PackedPredictions:
        """Return each position's likeliest tokens with the logarithms of their probabilities, (S, K, 2)."""
        return likeliest_tokens(network, batch)

    def answers(
        self, predictions: PackedPredictions, state: SpeechRecognitionState, rows: Sequence[AudioRow]
    ) -> list[dict[str, Any]]:
        """Return the text of each recording, and its words with their times."""
        found = []
        for row, values_TK2 in zip(rows, predictions.rows(), strict=True):
            transcript = _transcript(row, state)
            transcript.add(Heard.of(values_TK2), is_last=True)
            found.append(transcript.answer(len(row.frame_TF) / len(values_TK2) * state.frame_seconds))
        return found

    def parse(
        self, value: Any, index: int, inputs: AudioState, state: SpeechRecognitionState
    ) -> tuple[AudioRow, list[InputWarning]]:
        """Return a recording as a row, of a long one its first window and the whole file."""
        return Audio().parse_long(value, index, inputs, Windows(inputs, state.window_seconds).seconds)

    def cost(self, row: AudioRow, inputs: AudioState) -> int:
        """Return the frames of a row's first window."""
        return len(row.frame_TF)

    def generate(
        self, network: Network, rows: Sequence[AudioRow], inputs: AudioState, state: SpeechRecognitionState
    ) -> list[dict[str, Any]]:
        """Return the answers to recordings of any length."""
        return transcribe(self.generation(network, inputs, state), rows)

    def generation(self, network: Network, inputs: AudioState, state: SpeechRecognitionState) -> Transcriptions:
        """Return the answers of a network, none yet."""
        windows = Windows(inputs, state.window_seconds)
        return Transcriptions(network, windows, lambda row: _transcript(row, state))

    def metrics(self, predictions: PackedPredictions, targets: Batch, state: SpeechRecognitionState) -> dict[str, Any]:
        """Return word and character error rates of the likeliest paths, as jiwer counts, and what is confused."""
        tally = ErrorTally()
        for pair in _compared(predictions, targets, state):
            tally.add(*pair)
        return tally.metrics()

    def details(self, predictions: PackedPredictions, targets: Batch, state: SpeechRecognitionState) -> dict[str, Any]:
        """Return, word by word, the recordings that have most errors, of as many as are looked at."""
        pairs = enumerate(_compared(predictions, targets, state)[:_MOST_ALIGNED], 1)
        found = [{"row": row, **compared(wanted, written)} for row, (wanted, written) in pairs if wanted != written]
        found.sort(key=lambda one: one["substitutions"] + one["deletions"] + one["insertions"], reverse=True)
        return {"alignments": found[:_SHOWN_ALIGNMENTS]}

    def pictures(self, judged: Judged, inputs: AudioState, state: SpeechRecognitionState) -> Iterator[Picture]:
        """Yield which characters are heard as which, and the recordings with most errors by their length."""
        pairs = _compared(judged.predictions, judged.targets, state)
        labels, counts_CC = confusions(pairs[:_MOST_ALIGNED])
        yield Picture("confusion-matrix", confusion_picture(labels, counts_CC, judged.part, "characters"))
        wrong = mistakes.of_transcripts(pairs, judged.part)
        yield from mistakes.of_sounds(wrong, judged.rows, inputs)

    def schema(self, state: SpeechRecognitionState) -> dict[str, Any]:
        """Return the JSON Schema of an answer."""
        seconds = {"type": "number", "minimum": 0}
        score = {"type": "number", "minimum": 0, "maximum": 1}
        word = {"word": {"type": "string"}, "start": seconds, "end": seconds, "score": score}
        return {
            "type": "object",
            "properties": {
                "text": {"type": "string"},
                "score": score,
                "words": {"type": "array", "items": {"type": "object", "properties": word}},
            },
        }


def _joined(batch: Batch, texts: list[Tensor], state: SpeechRecognitionState) -> tuple[Batch, list[Tensor]]:
    """Return recordings put one after another at random, and the characters of what is then said.

    Between transcripts is a space, unless none of those that are learned from has one.
    """
    frame_SF, length_B = batch["frame_SF"], batch["length_B"]
    count_J = neighbours(length_B, state.joined, state.window_seconds / state.frame_seconds)
    least, most = (round(seconds / state.frame_seconds) for seconds in _GAP_SECONDS)
    frame_SF, length_J = put_together(frame_SF, length_B, count_J, (least, most), state.normalization)
    space = torch.tensor([1 + state.characters.index(" ")] if " " in state.characters else [], dtype=torch.int64)
    found = []
    for begin, count in zip((count_J.cumsum(0) - count_J).tolist(), count_J.tolist(), strict=True):
        said = [part for text in texts[begin : begin + count] for part in (space, text)]
        found.append(torch.cat(said[1:]))
    return {**batch, "frame_SF": frame_SF, "length_B": length_J}, found


def _compared(predictions: PackedPredictions, targets: Batch, state: SpeechRecognitionState) -> list[tuple[str, str]]:
    """Return what is said in each row and what was heard, by the likeliest path."""
    pairs = []
    for values_TK2, tokens in zip(predictions.rows(), _rows(targets), strict=True):
        found = state.text(ctc.best_path(values_TK2[:, 0, 0].long().numpy()))
        pairs.append((state.text(tokens), " ".join(found.split())))
    return pairs


def _transcript(row: AudioRow, state: SpeechRecognitionState) -> Transcript:
    return Transcript(state.text, cast("TranscriptOptions", row.asked or TranscriptOptions()), state.model)


def _window_seconds(table: pa.Table, inputs: AudioState) -> float:
    """Return how long predictions hear at a time: as long as the longest recording that is learned from."""
    longest: float = pc.max(field_of(RECORDINGS.cells(table, inputs.column), "seconds")).as_py()
    return max(_LEAST_WINDOW_S, min(longest, inputs.max_seconds))


def _rows(targets: Batch) -> list[list[int]]:
    """Return each row's characters as numbers."""
    return [[token for token in row if token != _NOTHING] for row in targets["target_BL"].tolist()]


def _transcripts(table: pa.Table, target: str, lower_case: bool) -> list[str]:
    require_column(table, target, "columns.target")
    column = table.column(target)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise InvalidData(
            f'Column "{target}" holds {column.type} values, which are no transcripts.',
            hint="Choose a column of texts.",
            param="columns.target",
        )
    require_values(table, target, "no transcript", "columns.target")
    return [normalized(text, lower_case) for text in column.to_pylist()]
