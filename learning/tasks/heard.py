"""What tasks on recordings share that change them at random in training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from learning.config import Config
from learning.interfaces import Batch, Network
from learning.spectrogram_augmentation import MASKS, SPEECH, SoundView, augment


class HeardConfig(Config):
    """How recordings are changed while they are learned from."""

    augmentation: Literal["none", "masks", "speech"] = Field(
        "speech",
        description="How recordings are changed in training: partly hidden and a little noisy, or also faster and "
        "slower, higher and lower.",
    )

    @property
    def view(self) -> SoundView | None:
        """What is chosen."""
        return {"none": None, "masks": MASKS, "speech": SPEECH}[self.augmentation]


def heard(batch: Batch, network: Network, view: SoundView | None) -> Batch:
    """Return a batch as a network hears it: in training each recording is changed."""
    return batch if view is None or not network.training else augment(batch, view)
