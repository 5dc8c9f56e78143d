"""Blank texts among rows without labels, such as lines between paragraphs: there is nothing in them to learn from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from learning.capabilities import Generative
from learning.config import Columns
from learning.errors import InvalidData, LearningError
from learning.interfaces import CALLED, Task
from learning.modalities.text import text_column
from learning.splits import RowNumbers, take


def without_blanks(
    parts: Mapping[str, pa.Table], numbers: Mapping[str, RowNumbers], columns: Columns, task: Task
) -> tuple[dict[str, pa.Table], dict[str, RowNumbers], list[str]]:
    """Return the parts without blank texts, the numbers of their rows, and warnings that count what is left out.

    Only where texts are learned from one by one and have no labels: a label of a blank text is a mistake that is named,
    and running text has its blank lines for a reason. A missing value is no blank text. InvalidData if none is left.
    """
    kept, known, warnings = dict(parts), dict(numbers), list[str]()
    if task.modality != "text" or task.kind != "pretrain" or isinstance(task, Generative):
        return kept, known, warnings
    try:
        column = text_column(parts["train"], columns)
    except LearningError:  # which the modality says, unless a base model knows the column
        return kept, known, warnings
    for name, table in parts.items():
        rows = np.flatnonzero(~_blank(table, column))
        left_out = table.num_rows - len(rows)
        if not left_out:
            continue
        if not len(rows) and name == "train":
            raise InvalidData(
                f'There is no text to learn from: column "{column}" is blank in every training row.',
                hint="Fill in the texts, or name another column with columns.text.",
                param="columns.text",
            )
        kept[name], known[name] = take(table, rows), numbers[name][rows] if name in numbers else rows
        warnings.append(
            f'{left_out} of {table.num_rows} {CALLED[name]} rows are blank in column "{column}" and are left out.'
        )
    return kept, known, warnings


def _blank(table: pa.Table, column: str) -> NDArray[np.bool_]:
    kind = table.schema.field(column).type if column in table.column_names else pa.null()
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return np.zeros(table.num_rows, dtype=bool)
    found = [
        pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(chunk)), 0), False)
        for chunk in table.column(column).iterchunks()  # since the whole column may be larger than memory
    ]
    blank_N: NDArray[np.bool_] = pa.chunked_array(found, pa.bool_()).to_numpy().astype(bool)
    return blank_N
