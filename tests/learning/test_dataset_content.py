"""A look at the rows of a dataset and the difference of two, without holding them in memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from learning.dataset_preview import preview_rows

# Says by how many MiB the most memory that the process has had grew, pages of mapped files among it.
MEASURED = """
import sys
from pathlib import Path
from learning.dataset_difference import rows_difference
from learning.row_hashes import bounded_connection

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))

with bounded_connection():
    before = peak()
found = rows_difference(*(Path(name) for name in sys.argv[1:]))
print(found.added, found.removed, peak() - before)
"""


def written(path: Path, batches: list[pa.RecordBatch]) -> Path:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return path


def test_a_difference_maps_no_whole_file(tmp_path):
    """Two files of 96 MiB, of rows that repeat so that there is little to count."""
    wide = pa.record_batch({f"c{n}": np.arange(65_536) % 4096 + n for n in range(12)})
    paths = [written(tmp_path / "before.arrow", [wide] * 16), written(tmp_path / "after.arrow", [wide] * 15)]
    assert paths[0].stat().st_size > 96 << 20
    command = [sys.executable, "-c", MEASURED, *map(str, paths), str(tmp_path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    added, removed, grown = map(int, said.split())
    assert (added, removed) == (0, 65_536)
    assert grown < 96


def test_rows_are_shown_from_batches_of_any_length(tmp_path):
    lengths = [3, 1, 7, 2] * 12
    numbers = np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
    path = written(tmp_path / "t.arrow", [pa.record_batch({"n": part, "m": -part}) for part in numbers])
    first = preview_rows(path, 12, None)
    assert first == {"columns": ["n", "m"], "rows": [{"n": n, "m": -n} for n in range(12)], "indices": list(range(12))}
    for seed in range(3):
        drawn = preview_rows(path, 100, seed)
        assert drawn["indices"] == sorted(set(drawn["indices"]))
        assert len(drawn["indices"]) == 100
        assert [row["n"] for row in drawn["rows"]] == drawn["indices"]
    assert preview_rows(path, 1000, None)["indices"] == preview_rows(path, 1000, 1)["indices"] == list(range(156))
