"""A minute of random kills over eight jobs on each column; `make chaos` runs ten."""

from __future__ import annotations

from pathlib import Path

import chaos
import pytest


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("column", ["embedded", "production"])
def test_a_minute_of_chaos(column: str, tmp_path: Path) -> None:
    with chaos.column_stack(column, tmp_path) as stack:
        outcome = chaos.run(column, stack, seconds=60, jobs=8)
    assert outcome.wrong == []
    assert outcome.kills.total() >= 15
    assert outcome.jobs >= 8
