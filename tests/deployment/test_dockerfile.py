"""The Dockerfile, read far enough to hold it to what is said of it; nothing here needs a container engine."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from servers import REPOSITORY


@dataclass(frozen=True)
class Instruction:
    """One instruction, its continued lines joined."""

    name: str
    text: str


def dockerfile() -> list[Instruction]:
    source = re.sub(r"^#.*\n", "", (REPOSITORY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line for line in source.replace("\\\n", " ").splitlines() if line.strip()]
    return [Instruction(*line.split(maxsplit=1)) for line in lines]


def texts(name: str) -> list[str]:
    return [one.text for one in dockerfile() if one.name == name]


def final_stage() -> list[Instruction]:
    instructions = dockerfile()
    start = max(number for number, one in enumerate(instructions) if one.name == "FROM")
    return instructions[start:]


def sources() -> list[str]:
    """Return what COPY takes from the repository, not from another stage."""
    copied = [text.split() for text in texts("COPY") if "--from=" not in text]
    return [source for words in copied for source in words[:-1] if not source.startswith("--")]


def project() -> dict[str, object]:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]  # type: ignore[no-any-return]


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))  # type: ignore[misc]


def test_it_runs_as_a_numbered_user_who_is_not_root() -> None:
    users = [one.text for one in final_stage() if one.name == "USER"]
    user, _, group = users[-1].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    after = [one.name for one in final_stage()]
    assert "RUN" not in after[after.index("USER") :]


def test_the_last_stage_installs_nothing() -> None:
    runs = [one.text for one in final_stage() if one.name == "RUN"]
    assert not [run for run in runs if re.search(r"apt-get|pip install|curl|wget|gcc", run)]
    assert [one.text for one in final_stage() if one.name == "COPY"] == ["--from=build /opt/venv /opt/venv"]


def test_both_stages_have_the_same_python_which_the_package_accepts() -> None:
    bases = {text.split(" AS ")[0] for text in texts("FROM")}
    assert bases == {"python:3.11-slim"}
    assert project()["requires-python"] == ">=3.11"


def test_there_is_no_secret_in_it() -> None:
    source = (REPOSITORY / "Dockerfile").read_text().lower()
    assert not re.search(r"password|secret|token|api_key|://[^/\s]*@", source)
    assert [text.split("=")[0] for text in texts("ARG")] == ["TORCH_INDEX_URL"]


def test_pytorch_is_without_cuda_unless_asked_for() -> None:
    (argument,) = texts("ARG")
    assert argument.endswith("/cpu")


@pytest.mark.parametrize("source", sources())
def test_what_is_copied_exists_and_reaches_the_build(source: str) -> None:
    assert (REPOSITORY / source).exists()
    assert is_sent(source), f".dockerignore keeps {source} from the build"


def test_nothing_else_reaches_the_build() -> None:
    for private in (".git", ".env", ".venv", ".anneal", "tests", "docs", "Makefile", "docker-compose.yml"):
        assert not is_sent(private)


def test_every_package_is_copied() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    packages = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(packages) <= set(sources())


def test_sources_come_after_the_dependencies() -> None:
    instructions = [f"{one.name} {one.text}" for one in dockerfile()]
    installed = next(number for number, text in enumerate(instructions) if "--requirement" in text)
    for package in ("anneal", "service", "workers", "store", "learning", "migrations"):
        assert instructions.index(f"COPY {package} {package}") > installed


def test_the_default_command_and_check_are_modules_of_ours() -> None:
    assert [one.text for one in final_stage() if one.name == "CMD"] == ['["python", "-m", "service"]']
    (check,) = [one.text for one in final_stage() if one.name == "HEALTHCHECK"]
    assert check.endswith('CMD ["python", "-m", "service.probe"]')
    assert (REPOSITORY / "service" / "probe.py").exists()


def test_constraints_are_exact_and_name_no_place() -> None:
    source = (REPOSITORY / "constraints.txt").read_text()
    assert "://" not in source
    assert "+" not in "".join(pins().values())
    assert pins()["torch"] == "2.13.0"
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in pins().values())


def test_constraints_pin_every_dependency_within_its_range() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    asked = list(settings["project"]["dependencies"]) + settings["build-system"]["requires"]
    for more in (*settings["project"]["optional-dependencies"].values(), *settings["dependency-groups"].values()):
        asked += more
    for requirement in map(Requirement, asked):
        if requirement.name == "anneal":
            continue
        pinned = pins().get(canonicalize_name(requirement.name))
        assert pinned, f"{requirement.name} is not pinned. Run: make constraints"
        assert requirement.specifier.contains(pinned), f"{requirement} excludes the pinned {pinned}"


def is_sent(path: str) -> bool:
    """Return whether .dockerignore lets a path through: the last line that matches it decides."""
    sent = True
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        parents = [path, *map(str, Path(path).parents)]
        if any(fnmatch(one, pattern) for one in parents):
            sent = line.startswith("!")
    return sent


def test_the_image_installs_what_the_service_and_production_ask_for() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/requirements.py", "server", "production"],
        cwd=REPOSITORY, check=True, capture_output=True, text=True,
    )  # fmt: skip
    names = {canonicalize_name(Requirement(line).name) for line in done.stdout.splitlines()}
    assert {"torch", "fastapi", "uvicorn", "celery", "psycopg", "httpx"} <= names
    assert "anneal" not in names
    assert "pytest" not in names
