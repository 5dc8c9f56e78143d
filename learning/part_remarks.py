"""What is said of the rows of each part: what is not read of them, and what was never learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa

from learning.capabilities import Generative, Remarking
from learning.config import Columns
from learning.errors import rows_from
from learning.interfaces import CALLED
from learning.model import Design
from learning.splits import RowNumbers


def part_remarks(
    design: Design, parts: Mapping[str, pa.Table], numbers: Mapping[str, RowNumbers], columns: Columns
) -> Iterator[str]:
    """Yield what a modality, or a task in its place, has to say of each part, and then what a task has beside.

    `numbers` are those of the rows in the files that they are from, for InvalidRow to name.
    """
    task = design.task
    present = {name: table for name, table in parts.items() if table.num_rows}
    for name, table in present.items():
        with rows_from(numbers.get(name)):
            if isinstance(task, Generative):
                yield from task.remarks(table, design.inputs, design.targets, CALLED[name])
            else:
                yield from design.modality.remarks(table, columns, design.inputs, CALLED[name])
    # Of training rows there is if they go on with what others began.
    for name, table in present.items():
        if isinstance(task, Remarking):
            yield from task.part_remarks(CALLED[name], table, design.targets)
