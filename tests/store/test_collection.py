"""Files that nothing points at go, and nothing that a row points at ever does, whatever happens at the same time."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from queue_steps import PROJECT, submit
from sqlalchemy import delete, select, text, update

from store import ids
from store.artifacts import ArtifactStore
from store.collection import _POINTERS, Collector
from store.database import BUSY_TIMEOUT_MS, Database
from store.errors import NotFound
from store.records import ArtifactRecord, CheckpointFileRecord, CheckpointRecord, DatasetRecord, JobRecord, Record

GRACE_S = 60.0
CONTENTS = st.sampled_from([f"content {number}".encode() for number in range(4)])


class Machine(RuleBasedStateMachine):
    """Content is stored, pointed at by datasets and checkpoints, forgotten and collected, in any order and at once."""

    database: Database

    def __init__(self) -> None:
        super().__init__()
        names = ", ".join(table.name for table in Record.metadata.tables.values())
        with self.database.write() as session:
            if self.database.is_sqlite:
                for pointing in (CheckpointFileRecord, CheckpointRecord, DatasetRecord, ArtifactRecord):
                    session.execute(delete(pointing))
            else:
                session.execute(text(f"TRUNCATE {names} CASCADE"))
        self.job_id = submit(self.database)
        self.directory = tempfile.TemporaryDirectory()
        self.root = Path(self.directory.name)
        self.store = ArtifactStore(self.root)
        self.collector = Collector(self.database, self.store, GRACE_S)

    def keep(self, content: bytes, table: str) -> None:
        """Store a file and then, in a transaction of its own, point at it, as every part of the product does."""
        artifact = self.store.write([content])
        with self.database.write() as session:
            self.store.register(session, artifact)
            if table == "dataset":
                session.add(
                    DatasetRecord(
                        id=ids.new_id(ids.DATASET),
                        project=PROJECT,
                        name=ids.new_id("n"),
                        filename="f",
                        job_id=self.job_id,
                        source_sha256=artifact.sha256,
                        options={},
                    )
                )
                return
            checkpoint_id = ids.new_id(ids.CHECKPOINT)
            session.add(
                CheckpointRecord(
                    id=checkpoint_id, job_id=self.job_id, attempt=1, run="r", step=1, finished=False, metrics={}
                )
            )
            session.flush()
            session.add(CheckpointFileRecord(checkpoint_id=checkpoint_id, path="p", sha256=artifact.sha256))

    @rule(content=CONTENTS, table=st.sampled_from(["dataset", "checkpoint"]))
    def store_and_point(self, content: bytes, table: str) -> None:
        self.keep(content, table)

    @rule(content=CONTENTS)
    def store_alone(self, content: bytes) -> None:
        """Its writer died before the transaction."""
        self.store.write([content])

    @rule(datasets=st.booleans())
    def forget(self, datasets: bool) -> None:
        with self.database.write() as session:
            for table in (DatasetRecord,) if datasets else (CheckpointFileRecord, CheckpointRecord):
                session.execute(delete(table))

    @rule()
    def grow_old(self) -> None:
        for path in self.root.rglob("*"):
            if path.is_file():
                os.utime(path, (0, 0))
        with self.database.write() as session:
            session.execute(update(ArtifactRecord).values(touched_at=0.0))

    @rule()
    def collect(self) -> None:
        self.collector.collect()

    @rule(contents=st.lists(CONTENTS, min_size=1, max_size=3))
    def collect_while_storing(self, contents: list[bytes]) -> None:
        with ThreadPoolExecutor(4) as pool:
            done = [pool.submit(self.collector.collect)]
            done += [pool.submit(self.keep, content, "checkpoint") for content in contents]
            done += [pool.submit(Collector(self.database, self.store, GRACE_S).collect)]
            for future in done:
                future.result()

    @invariant()
    def what_is_pointed_at_is_whole(self) -> None:
        with self.database.read() as session:
            for column in _POINTERS:
                for sha256 in session.scalars(select(column).where(column.is_not(None))):
                    self.store.verify(sha256)

    def teardown(self) -> None:
        with self.database.write() as session:
            for table in (DatasetRecord, CheckpointFileRecord, CheckpointRecord):
                session.execute(delete(table))
        self.grow_old()
        for _ in range(256):  # as many as there are directories, one of which is looked through each time
            if not self._left():
                break
            self.collector.collect()
        assert not self._left()
        self.directory.cleanup()

    def _left(self) -> list[object]:
        """Return files and rows that are still there."""
        with self.database.read() as session:
            rows = session.scalars(select(ArtifactRecord)).all()
        return [*rows, *(path for path in self.root.rglob("*") if path.is_file())]


def test_nothing_in_use_is_collected(database: Database) -> None:
    kind = type("OnThisDatabase", (Machine,), {"database": database})
    run_state_machine_as_test(
        kind,
        settings=settings(
            max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_every_pointer_is_known() -> None:
    assert {f"{column.table.name}.{column.name}" for column in _POINTERS} == {
        "datasets.source_sha256",
        "datasets.table_sha256",
        "datasets.quarantine_sha256",
        "checkpoint_files.sha256",
        "version_files.sha256",
        "uploads.source_sha256",
        "files.sha256",
        "samples.sha256",
    }


def test_a_remover_that_was_killed(tmp_path: Path, database: Database) -> None:
    """What it had moved aside comes back, unless nothing wants it."""
    store = ArtifactStore(tmp_path)
    artifact = store.write([b"content"])
    path = store.path(artifact.sha256)
    with database.write() as session:
        store.register(session, artifact)
        session.execute(update(JobRecord).values(name=None))
    aside = tmp_path / "incoming" / f"{artifact.sha256}.x.unwanted"
    path.rename(aside)
    os.utime(aside, (0, 0))
    half_written = tmp_path / "incoming" / "tmp1"
    half_written.write_bytes(b"cont")
    store.remove_leftovers(GRACE_S)
    assert store.verify(artifact.sha256) == path
    assert half_written.exists()  # its writer may still be at it
    os.utime(half_written, (0, 0))
    store.remove_leftovers(GRACE_S)
    assert not half_written.exists()


@pytest.mark.parametrize("age_s", [0.0, 2 * GRACE_S])
def test_a_fresh_file_is_not_removed(tmp_path: Path, age_s: float) -> None:
    store = ArtifactStore(tmp_path)
    artifact = store.write([b"content"])
    past = time.time() - age_s
    os.utime(store.path(artifact.sha256), (past, past))
    assert store.remove(artifact.sha256, GRACE_S) is (age_s > GRACE_S)
    assert list(store.digests(artifact.sha256[:2])) == ([] if age_s else [artifact.sha256])


def test_a_writer_that_stood_still_for_too_long(tmp_path: Path, database: Database) -> None:
    """Its file was collected before it came to register it: it is told, and nothing points at nothing."""
    store = ArtifactStore(tmp_path)
    artifact = store.write([b"content"])
    os.utime(store.path(artifact.sha256), (0, 0))
    assert store.remove(artifact.sha256, GRACE_S)
    with pytest.raises(NotFound, match="collected"), database.write() as session:
        store.register(session, artifact)
    with database.read() as session:
        assert session.get(ArtifactRecord, artifact.sha256) is None


def test_the_log_is_emptied_once_nobody_reads_it(tmp_path: Path, migrated_file: Path) -> None:
    path = tmp_path / "test.db"
    shutil.copyfile(migrated_file, path)
    database = Database(f"sqlite:///{path}")
    gone, old = b"gone-51e8d2", update(JobRecord).values(kind="old")
    submit(database)
    with database.write() as session:
        session.execute(update(JobRecord).values(kind=gone.decode()))
    with database.write() as session:
        session.execute(old)
    log = path.with_name("test.db-wal")
    assert gone in log.read_bytes()
    with database.read() as reader:
        reader.scalar(select(JobRecord.kind))
        with database.write() as session:
            session.execute(old)
        assert database.empty_log()
    assert not database.empty_log()
    assert log.stat().st_size == 0
    assert gone not in path.read_bytes()
    with database.look() as connection:
        assert connection.scalar(text("PRAGMA secure_delete")) == 1
        assert connection.scalar(text("PRAGMA busy_timeout")) == BUSY_TIMEOUT_MS
    database.close()
