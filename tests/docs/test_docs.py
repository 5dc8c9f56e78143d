"""What the documentation claims, compared with the code: links, endpoints, settings, errors, words, states."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import DOCS, PAGES, anchors, blocks, headings, prose, rows
from servers import REPOSITORY

from service.job_requests import JobCreate
from service.settings import ServiceSettings
from store.states import TERMINAL, TRANSITIONS

PACKAGES = ("anneal", "service", "workers", "store", "learning", "migrations")
SOURCES = [path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob("*.py"))]
FORBIDDEN = re.compile(r"(?i)(?:^|_|(?<=[a-z]))(managers?|helpers?|utils?|engines?|common)(?:$|_|(?=[A-Z]))")
# Where the code of an error stands in a call: the function's name and the argument's place.
CODE_ARGUMENT = {"ApiError": 1, "problem": 2, "_refuse": 3}
RULE_CALLS = {
    "invalid_file", "RowError", "bad_byte", "_refuse", "add", "add_all", "UnreadableMedia", "Refusal", "Mistake",
}  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_resolve(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.resolve().is_relative_to(REPOSITORY.resolve()), link
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_no_machine_s_paths(page: Path) -> None:
    assert re.findall(r"(?:/home|/root|/work|/Users|/var/tmp)/\S*", page.read_text()) == []


def test_every_page_can_be_found_from_the_readme() -> None:
    seen: set[Path] = set()
    waiting = [REPOSITORY / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page.is_dir():
            page /= "README.md"
        if page.suffix != ".md" or page in seen:
            continue
        seen.add(page)
        links = re.findall(r"\]\(([^)\s#]+)[^)]*\)", prose(page))
        waiting += [page.parent / link for link in links if "://" not in link]
    assert {page.resolve() for page in PAGES} - seen == set()


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The application's OpenAPI document under default settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ANNEAL_")}
    command = [sys.executable, "-m", "service", "--openapi"]
    done = subprocess.run(command, cwd=REPOSITORY, env=clean, capture_output=True, text=True, check=True)
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def test_the_committed_openapi_document_is_the_application_s(document: dict[str, Any]) -> None:
    assert json.loads((REPOSITORY / "openapi.json").read_text()) == document, "run: make fix"


def test_every_endpoint_has_its_heading_and_every_heading_its_endpoint(document: dict[str, Any]) -> None:
    routes = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert set(headings(DOCS / "api.md", 3)) == routes


def test_every_field_of_a_job_is_described() -> None:
    described = {name for row in rows(DOCS / "api.md") for name in re.findall(r"`(\w+)`", row[0])}
    assert described == set(JobCreate.model_fields)


def test_json_examples_are_json() -> None:
    for page in (DOCS / "api.md", DOCS / "errors.md"):
        for block in blocks(page, "json"):
            json.loads(block)


def test_every_setting_has_its_default_and_sentence() -> None:
    page = DOCS / "configuration.md"
    listed = {tuple(row) for row in rows(page)}
    for name, field in ServiceSettings.model_fields.items():
        default = f"`{field.default}`" if field.default != "" else "empty"
        assert (f"`ANNEAL_{name.upper()}`", default, field.description) in listed
    known = {f"ANNEAL_{name.upper()}" for name in ServiceSettings.model_fields} | {"ANNEAL_URL", "ANNEAL_API_KEY"}
    for each in PAGES:
        # A prefix alone ends in an underscore; what docker-compose.yml reads is explained in .env.example.
        assert set(re.findall(r"\bANNEAL_[A-Z_]*[A-Z]\b", each.read_text())) <= known, each


def calls(path: Path) -> Iterator[tuple[str, list[ast.expr]]]:
    """Yield the name and the positional arguments of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield name, node.args


def constant(arguments: list[ast.expr], place: int) -> set[str]:
    """Return the string that is written at a place of a call's arguments, if one is."""
    found = arguments[place] if place < len(arguments) else None
    return {found.value} if isinstance(found, ast.Constant) and isinstance(found.value, str) else set()


def problem_codes() -> set[str]:
    """Every code that an error can have."""
    codes: set[str] = set()
    for path in SOURCES:
        if path.is_relative_to(REPOSITORY / "anneal"):
            continue  # the client repeats what the service says
        text = path.read_text()
        codes |= set(re.findall(r'^    code = "(\w+)"$', text, re.MULTILINE))
        codes |= set(re.findall(r'"code": "(\w+)"', text))
        codes |= {
            code for name, args in calls(path) if name in CODE_ARGUMENT for code in constant(args, CODE_ARGUMENT[name])
        }
    codes |= set(re.findall(r'\b4\d\d: "(\w+)"', (REPOSITORY / "service" / "errors.py").read_text()))
    return codes


def test_every_error_s_code_is_explained() -> None:
    documented = {code for row in rows(DOCS / "errors.md") for code in re.findall(r"`(\w+)`", row[0])}
    assert documented == problem_codes()


def test_every_rule_of_a_row_error_is_named() -> None:
    (section,) = re.findall(r"^## Row errors\n(.+)", (DOCS / "errors.md").read_text(), re.MULTILINE | re.DOTALL)
    rules: set[str] = set()
    media = [REPOSITORY / "learning" / name for name in ("images.py", "audio.py")]
    for path in (*(REPOSITORY / "learning" / "formats").glob("*.py"), *media):
        rules |= {rule for name, args in calls(path) if name in RULE_CALLS for rule in constant(args, 0)}
    rules |= {rule for name, args in calls(REPOSITORY / "learning" / "ingestion.py")
              if name == "invalid_file" for rule in constant(args, 0)}  # fmt: skip
    named = set(re.findall(r"`(\w+)`", section)) - {"rule"}
    assert named == rules


def test_every_word_of_the_glossary_is_used() -> None:
    words = re.findall(r"^- \*\*(.+?)\*\*:", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    assert words == sorted(words)
    code = "\n".join(path.read_text() for path in SOURCES).lower()
    for word in words:
        # "inputs state" is `inputs`, fitted as a State: the last word is the kind, the first the name.
        assert re.search(rf"(?<![a-z]){word.split()[0]}(?![a-z])", code), word


def names(path: Path) -> Iterator[str]:
    """Yield the names of a file, its folder and its classes."""
    yield path.stem
    yield path.parent.name
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            yield node.name


def test_nothing_is_named_by_a_word_that_says_nothing() -> None:
    files = [*SOURCES, *sorted((REPOSITORY / "tests").rglob("*.py")), *sorted((REPOSITORY / "benchmarks").glob("*.py"))]
    assert [(path.name, name) for path in files for name in names(path) if FORBIDDEN.search(name)] == []


def test_the_picture_of_a_job_s_life_is_the_table_s() -> None:
    (diagram,) = blocks(DOCS / "architecture.md", "mermaid")
    drawn = set(re.findall(r"^    (\w+|\[\*\]) --> (\w+|\[\*\])", diagram, re.MULTILINE))
    steps = {(str(source), str(target)) for source, targets in TRANSITIONS.items() for target in targets}
    assert drawn == steps | {("[*]", "queued")} | {(str(state), "[*]") for state in TERMINAL}


def test_every_decision_is_listed_and_keeps_its_form() -> None:
    index = (DOCS / "decisions" / "README.md").read_text()
    pages = sorted((DOCS / "decisions").glob("0*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        title = headings(page, 1)[0]
        assert f"- [{title}]({page.name})" in index
        assert title.startswith(f"{page.name[:4]}: ")
        assert headings(page, 2) == ["Context", "Decision", "Consequences"]


def test_the_changelog_knows_this_version() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert headings(REPOSITORY / "CHANGELOG.md", 2)[0].startswith(f"[{version}]")
