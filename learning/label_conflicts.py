"""Images, recordings and texts that occur more than once, with different labels: one of the two is a mistake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from learning.row_hashes import Hashes, hashes, read_batches

# Both hashes of a row are held, sixteen bytes: larger tables are left alone.
MOST_ROWS = 4_000_000
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class LabelConflicts:
    """How many different contents have more than one label, and the first rows of such contents, from 1."""

    count: int = 0
    rows: list[int] = field(default_factory=list)


def label_conflicts(path: Path, inputs: Sequence[str], target: str) -> LabelConflicts:
    """Compare the labels of rows of an Arrow file whose columns `inputs` are alike; a missing value is like none."""
    with pa.OSFile(str(path), "rb") as source:
        schema = pa.ipc.open_file(source).schema
    groups = [[schema.get_field_index(name) for name in inputs], [schema.get_field_index(target)]]
    labelled: list[NDArray[np.bool_]] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in read_batches(path):
            whole = [batch.column(name).is_valid().to_numpy(zero_copy_only=False) for name in (*inputs, target)]
            labelled.append(np.logical_and.reduce(whole))
            yield batch

    contents, labels = [], []
    for batch in hashes(batches(), schema, groups):
        contents.append(batch.column(0).to_numpy(zero_copy_only=False))
        labels.append(batch.column(1).to_numpy(zero_copy_only=False))
    places = np.flatnonzero(np.concatenate(labelled))
    return _compare(np.concatenate(contents)[places], np.concatenate(labels)[places], places + 1)


def _compare(contents: Hashes, labels: Hashes, rows: NDArray[np.int64]) -> LabelConflicts:
    order = np.lexsort((labels, contents))
    contents, labels = contents[order], labels[order]
    differs = (contents[1:] == contents[:-1]) & (labels[1:] != labels[:-1])
    conflicting = np.unique(contents[1:][differs])
    first = np.sort(rows[order][np.isin(contents, conflicting)])[:_SHOWN]
    return LabelConflicts(len(conflicting), first.tolist())
