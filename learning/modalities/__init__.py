"""The modalities; a new one is a file here and a line in this table."""

from __future__ import annotations

from learning.interfaces import Modality
from learning.modalities.tabular import Tabular

MODALITIES: dict[str, Modality] = {modality.name: modality for modality in (Tabular(),)}
