"""What the documentation shows, run: the shell and Python of the README, the worked case, and each how-to's file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from pages import DOCS, blocks, example
from servers import REPOSITORY, Stack
from support import SHARED

HOW_TOS = ("add-a-task.md", "add-an-architecture.md", "add-a-format.md", "add-an-endpoint.md")
ADDRESS = "http://127.0.0.1:8000"  # what the documentation writes


def run(command: list[str], directory: Path, *, timeout_s: float = 170, **environment: str) -> str:
    """Run a program to its end and return its output."""
    # Not measured for coverage: what runs here are copies of the packages, each of which would count as missed lines.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(command, cwd=directory, env={**kept, **environment}, timeout=timeout_s,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


@pytest.fixture
def checkout(embedded: Stack, tmp_path: Path) -> Path:
    """A folder that looks like the repository after `make up`: data files and the data directory where they are."""
    (tmp_path / "anneal").symlink_to(REPOSITORY / "anneal")
    (tmp_path / ".anneal").symlink_to(embedded.data_dir)
    return tmp_path


def test_the_first_five_minutes(embedded: Stack, checkout: Path) -> None:
    shell = "".join(block for block in blocks(REPOSITORY / "README.md", "bash") if "curl" in block)
    said = run(["bash", "-euo", "pipefail", "-c", shell.replace(ADDRESS, embedded.url)], checkout)
    assert re.search(r'"label":"malignant","score":0\.\d+', said)
    assert '"verdict":"Pretraining ' in said
    (code,) = blocks(REPOSITORY / "README.md", "python")
    said = run([sys.executable, "-W", "error", "-c", code], checkout, ANNEAL_URL=embedded.url, ANNEAL_API_KEY="",
               ANNEAL_DATA_DIR="")  # fmt: skip
    assert "Pretraining" in said
    assert re.search(r"^(benign|malignant) 0\.\d+$", said, re.MULTILINE)


def test_the_worked_case(embedded: Stack, checkout: Path) -> None:
    code = "".join(blocks(DOCS / "worked-case.md", "python"))
    said = run([sys.executable, "-W", "error", "-c", code], checkout, ANNEAL_URL=embedded.url,
               ANNEAL_API_KEY=embedded.key)  # fmt: skip
    (shown,) = blocks(DOCS / "worked-case.md", "text")
    # The page shows one machine's figures; another's may differ in the last digits, but not in what is told.
    assert _without_figures(said) == _without_figures(shown)
    accuracy = dict(re.findall(r"^(\w+).*?: accuracy (0\.\d+), recall 0\.\d+, 200 test rows$", said, re.MULTILINE))
    assert accuracy["continued"] > accuracy["random"] > "0.6"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data are not in shared/data")
def test_the_first_lesson(embedded: Stack, tmp_path: Path) -> None:
    for name, step in (("mnist_train10k.zip", 8), ("mnist_test.zip", 20)):
        with zipfile.ZipFile(SHARED / name) as source, zipfile.ZipFile(tmp_path / name, "w") as target:
            for member in source.namelist()[::step]:
                target.writestr(member, source.read(member))
    code = "".join(blocks(DOCS / "first-lesson.md", "python"))
    said = run([sys.executable, "-W", "error", "-c", code], tmp_path, ANNEAL_URL=embedded.url,
               ANNEAL_API_KEY=embedded.key, DIGITS="mnist_train10k.zip", TEST_DIGITS="mnist_test.zip")  # fmt: skip
    (shown,) = blocks(DOCS / "first-lesson.md", "text")
    # The page's figures are those of all images; these are of an eighth of them.
    assert _without_answers(said) == _without_answers(shown)
    accuracy = [float(figure) for figure in re.findall(r"accuracy (0\.\d+), 500 test images", said)]
    assert len(accuracy) == 3
    assert accuracy[0] > 0.85
    assert accuracy[2] > 0.6


def _without_answers(text: str) -> str:
    return re.sub(r"\d+\.\d+|predicted \w+|\d+ test images|it is \d", "#", text).strip()


def _without_figures(text: str) -> str:
    return re.sub(r"\d+\.\d+|predicted [01]", "#", text).strip()


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the packages, to add to."""
    for package in ("learning", "service"):
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def added(sources: Path, name: str) -> None:
    """Write a how-to's file where the how-to says."""
    path, code = example(name)
    assert not (sources / path).exists()
    (sources / path).write_text(code)


def try_out(sources: Path, script: str) -> str:
    """Run a script that imports the copy."""
    tests = REPOSITORY / "tests"
    paths = [str(path) for path in (sources, REPOSITORY, tests, tests / "learning")]
    return run([sys.executable, "-W", "error", "-c", script], sources, PYTHONPATH=os.pathsep.join(paths))


@pytest.mark.parametrize("name", HOW_TOS)
def test_the_examples_keep_the_house_rules(name: str, sources: Path) -> None:
    added(sources, name)
    shutil.copy(REPOSITORY / "pyproject.toml", sources)
    shutil.copytree(
        REPOSITORY / "store", sources / "store"
    )  # by its being there, ruff tells ours from foreign packages
    run([sys.executable, "-m", "ruff", "check", example(name)[0]], sources)
    run([sys.executable, "-m", "ruff", "format", "--check", example(name)[0]], sources)


def test_add_a_task_and_an_architecture(sources: Path) -> None:
    added(sources, "add-a-task.md")
    added(sources, "add-an-architecture.md")
    tests = REPOSITORY / "tests" / "learning"
    # In short: it learns, is saved and loaded, answers and explains. All of it is for who adds one for good.
    wanted = (
        "((quantiles and mlp) or (cross and classification))"
        " and (by_heart or saved_and_loaded or broken_input or without_a_target or resumes)"
    )
    script = f"""
import pytest, sys
import runs
from learning.architectures import ARCHITECTURES
from learning.architectures.cross import Cross
from learning.tasks import TASKS
from learning.tasks.tabular_quantiles import TabularQuantiles
ARCHITECTURES["cross"] = Cross()
TASKS["tabular-quantiles"] = TabularQuantiles()
runs.TARGETS["tabular-quantiles"] = {{"target": "amount"}}
options = ["-q", "--noconftest", "-p", "no:cacheprovider", "--rootdir={tests}", "-k", "{wanted}"]
sys.exit(pytest.main([*options, "{tests}/test_conformance.py"]))
"""
    assert "13 passed" in try_out(sources, script)


def test_add_a_format(sources: Path) -> None:
    added(sources, "add-a-format.md")
    script = """
from pathlib import Path
import pyarrow as pa
from learning.errors import InvalidDataset
from learning.formats import FORMATS
from learning.formats.arrow import ArrowFormat
from learning.ingestion import IngestOptions, ingest
rest = dict(FORMATS)
FORMATS.clear()
FORMATS.update({"arrow": ArrowFormat(), **rest})
table = pa.table({"age": pa.array([31, None, 52], pa.int16()), "city": ["Bern", "4", "5"]})
with pa.OSFile("people.feather", "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
    writer.write_table(table)
found = ingest(Path("people.feather"), "people", Path("out.arrow"), IngestOptions())
assert (found.format, found.num_rows) == ("arrow", 3), found
assert [(column.name, column.type, column.missing) for column in found.columns] == [
    ("age", "integer", 1), ("city", "string", 0)]
skipping = IngestOptions(on_bad_rows="skip", column_types={"city": "integer"})
found = ingest(Path("people.feather"), "people", Path("out.arrow"), skipping)
assert found.num_rows == 2, found
assert "Row 1, column \\"city\\": \\"Bern\\" is not an integer. 1 of 3 rows." in found.validation.errors[0].message
Path("broken").write_bytes(Path("people.feather").read_bytes()[:200])
try:
    ingest(Path("broken"), "broken", Path("out.arrow"), IngestOptions())
except InvalidDataset as error:
    print(error.message)
"""
    assert "cannot be read as Arrow" in try_out(sources, script)


def test_add_an_endpoint(sources: Path) -> None:
    added(sources, "add-an-endpoint.md")
    script = """
from pathlib import Path
from fastapi.testclient import TestClient
from migrations import runner
from service import usage
from service.app import create_app
from service.settings import ServiceSettings
from store import keys
from store.database import Database
settings = ServiceSettings(data_dir=Path("data"))
settings.make_directories()
database = Database(settings.resolved_database_url)
runner.upgrade(database.engine)
with database.write() as session:
    _, key = keys.create(session, name="test")
database.close()
app = create_app(settings)
app.include_router(usage.router, prefix="/api/v1")
with TestClient(app, base_url="http://localhost", headers={"Authorization": f"Bearer {key}"}) as client:
    files = {"file": ("people.csv", b"age\\n31\\n")}
    assert client.post("/api/v1/datasets", files=files).status_code == 201
    print(client.get("/api/v1/usage").json())
    assert client.get("/api/v1/usage", headers={"Authorization": ""}).status_code == 401
"""
    assert "{'datasets': 1, 'dataset_bytes': 7, 'models': 0}" in try_out(sources, script)
