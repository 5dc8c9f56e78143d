"""The modalities; a new one is a file here and a line in this table."""

from __future__ import annotations

from learning.interfaces import Modality
from learning.modalities.audio import Audio
from learning.modalities.image import Image
from learning.modalities.tabular import Tabular
from learning.modalities.text import Text

MODALITIES: dict[str, Modality] = {modality.name: modality for modality in (Tabular(), Text(), Image(), Audio())}
