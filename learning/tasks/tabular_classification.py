"""Predict one of two or more classes from a row of a table."""

from __future__ import annotations

from typing import ClassVar

from learning.tasks.classification import Classification


class TabularClassification(Classification):
    """Binary or multi-class; two classes are one sigmoid output, more are a softmax."""

    name: ClassVar[str] = "tabular-classification"
    modality: ClassVar[str] = "tabular"
    otherwise: ClassVar[str] = 'Predict a number with task "tabular-regression", or choose another target.'
