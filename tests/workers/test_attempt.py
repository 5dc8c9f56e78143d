"""One attempt with a child that ends by itself, just before it could hear what its job's row asks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrations import runner
from store import attempts, commands, jobs, keys
from store.artifacts import ArtifactStore
from store.database import Database
from store.jobs import NewJob
from store.settings import StoreSettings
from store.token import Token
from store.workers import Presence
from workers.attempt import Attempt, Ending
from workers.context import Context
from workers.draining import DrainSignal
from workers.presence import Beacon
from workers.protocol import Assignment

PROGRESS = '{"type": "progress", "phase": "training", "run": "scratch", "fraction": 1.0}'
FINISHED = f'print(\'{PROGRESS}\'); print(\'{{"type": "result", "files": {{}}}}\')'
CRASHED = f"print('{PROGRESS}', flush=True); raise SystemExit(3)"


class ScriptStarter:
    """Starts a few lines of Python as the child."""

    def __init__(self, script: str) -> None:
        self._script = f"import sys; sys.stdin.readline(); {script}"

    def prepare(self) -> None:
        """Need nothing."""

    def start(self, directory: str, files: tuple[int, int, int]) -> subprocess.Popen[bytes]:
        stdin, stdout, stderr = files
        command = [sys.executable, "-c", self._script]
        return subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=stderr, cwd=directory, start_new_session=True
        )

    def close(self) -> None:
        """Hold nothing."""


@pytest.fixture
def settings(tmp_path: Path) -> StoreSettings:
    # No heartbeat before the child has ended: the last one is the first to see the row.
    made = StoreSettings(data_dir=tmp_path, heartbeat_s=60, lease_s=600)
    made.make_directories()
    return made


@pytest.fixture
def database(settings: StoreSettings) -> Iterator[Database]:
    opened = Database(settings.resolved_database_url)
    runner.upgrade(opened.engine)
    yield opened
    opened.close()


def context(settings: StoreSettings, database: Database, script: str) -> Context:
    beacon = Beacon(database, Presence("here:1", "here", 1, ("train",), "cpu"))
    artifacts = ArtifactStore(settings.artifacts_dir)
    return Context(settings, database, artifacts, DrainSignal(), ScriptStarter(script), beacon, "here:1", ("train",))


@pytest.mark.parametrize(("script", "ending"), [(FINISHED, Ending.FINISHED), (CRASHED, Ending.CRASHED)])
@pytest.mark.parametrize("command", ["pause", "cancel", "drain"])
def test_a_command_that_comes_after_the_child_s_end(
    settings: StoreSettings, database: Database, tmp_path: Path, script: str, ending: Ending, command: str
) -> None:
    with database.write() as session:
        job = jobs.submit(session, NewJob(kind="finetune", project=keys.DEFAULT_PROJECT, spec={}))
        claimed = attempts.claim(session, job.id, "here:1", settings.lease_s)
        assert claimed is not None
        if command != "drain":
            getattr(commands, command)(session, keys.DEFAULT_PROJECT, job.id)
        token = Token(job.id, claimed.attempt)
    opened = context(settings, database, script)
    if command == "drain":
        opened.drain.request()
    try:
        given = Assignment(
            job_id=token.job_id, attempt=token.attempt, kind="finetune", directory=str(tmp_path), spec={}
        )
        # What it did by itself is what counts; what was asked decides what becomes of the job.
        assert Attempt(opened, token, given).supervise() is ending
    finally:
        opened.close()
    with database.read() as session:
        assert jobs.get(session, keys.DEFAULT_PROJECT, token.job_id).progress["fraction"] == 1.0
