"""Predict one or several numbers from a row of a table."""

from __future__ import annotations

from typing import ClassVar

from learning.tasks.regression import Regression


class TabularRegression(Regression):
    """One output per target column."""

    name: ClassVar[str] = "tabular-regression"
    modality: ClassVar[str] = "tabular"
