"""The detectors of this release: the table that object detection reads. A new one is a file and a line here."""

from __future__ import annotations

from learning.detectors.centre_points import CentrePoints
from learning.detectors.detector import Detector

DETECTORS: dict[str, Detector] = {detector.name: detector for detector in (CentrePoints(),)}
