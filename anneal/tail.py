"""New lines of the processes' logs, marked with the process they come from."""

from collections.abc import Iterator, Sequence
from pathlib import Path


class LogTail:
    """Follows log files from their present ends."""

    def __init__(self, logs: Sequence[Path]) -> None:
        self._positions = {log: _size(log) for log in logs}
        self._begun = dict.fromkeys(logs, b"")

    def new_lines(self) -> Iterator[str]:
        """Iterate over the whole lines written since the last call, as `name | line`."""
        for log, position in self._positions.items():
            size = _size(log)
            if size == position:
                continue
            with log.open("rb") as file:
                file.seek(position if size > position else 0)  # a smaller file is a new one
                text = self._begun[log] + file.read()
                self._positions[log] = file.tell()
            *lines, self._begun[log] = text.split(b"\n")
            for line in lines:
                yield f"{log.stem} | {line.decode(errors='replace')}"


def _size(log: Path) -> int:
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return 0
