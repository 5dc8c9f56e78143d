"""No file and no function grows past what can be read at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from servers import REPOSITORY

FILE_LINES = 400
FUNCTION_LINES = 60
FOLDERS = (
    "anneal",
    "service",
    "workers",
    "store",
    "learning",
    "migrations",
    "tests",
    "benchmarks",
    "examples",
    "scripts",
)


def sources() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py"))


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_there_is_something_to_measure() -> None:
    assert len(sources()) > 50


def test_no_file_is_too_long() -> None:
    lengths = {path.relative_to(REPOSITORY): len(path.read_text().splitlines()) for path in sources()}
    assert {str(path): length for path, length in lengths.items() if length > FILE_LINES} == {}


def test_no_function_is_too_long() -> None:
    # A migration lists the tables it makes: its length is theirs.
    measured = [path for path in sources() if "versions" not in path.parts]
    lengths = {f"{path.relative_to(REPOSITORY)}:{name}": n for path in measured for name, n in functions(path)}
    assert {where: length for where, length in lengths.items() if length > FUNCTION_LINES} == {}
