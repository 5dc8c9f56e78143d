"""The documentation as data: its pages, their code blocks, headings and links."""

from __future__ import annotations

import re
from pathlib import Path

from servers import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """Return a page's code blocks in a language, in order."""
    return [match["code"] for match in _FENCE.finditer(page.read_text()) if match["language"] == language]


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return _FENCE.sub("", page.read_text())


def headings(page: Path, level: int) -> list[str]:
    """Return a page's headings of one level."""
    return re.findall(rf"^{'#' * level} (.+)$", prose(page), re.MULTILINE)


def rows(page: Path) -> list[list[str]]:
    """Return the cells of every table row of a page, headers and rulers included."""
    lines = [line for line in page.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as they are made for Markdown on the web."""
    found = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def example(name: str) -> tuple[str, str]:
    """Return where the file of a how-to page goes and what is in it."""
    page = DOCS / name
    where = re.search(r"^`([\w/]+\.py)`:$", page.read_text(), re.MULTILINE)
    assert where, f"{page} does not say where its file goes"
    return where[1], blocks(page, "python")[0]
