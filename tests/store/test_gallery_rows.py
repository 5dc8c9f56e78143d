"""Galleries: what two writers at once may do, how many there may be, and that nothing is left behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from queue_steps import PROJECT, know_artifact, submit

from store import galleries, models
from store.artifacts import ArtifactStore
from store.collection import Collector
from store.database import Database
from store.errors import Conflict, NotFound, QuotaExceeded
from store.galleries import Moved, New, Quota

SHA = "a" * 64
PLENTY = Quota(galleries=3, samples=4)
ASKED = {"source": "auto", "false_accept_rate": 0.01}


def version(database: Database) -> models.Version:
    new = models.NewVersion("faces", "task", "image-embedding", "resnet", "image", {}, {}, {"weights": SHA})
    job_id = submit(database)
    with database.write() as session:
        know_artifact(session, SHA, 5)
        return models.register(session, PROJECT, job_id, new)


def make(database: Database, name: str, of: models.Version) -> None:
    with database.write() as session:
        galleries.create(session, PROJECT, name, of, threshold_from=ASKED, user_metadata={}, quota=PLENTY)


def enrol(database: Database, artifacts: ArtifactStore, who: str, contents: list[bytes], by: models.Version) -> None:
    new = [New(artifacts.write([content]), b"\0" * 8) for content in contents]
    with database.write() as session:
        gallery = galleries.get(session, PROJECT, "staff")
        galleries.held(session, gallery, version_id=by.record.id)
        galleries.require_room(session, gallery, len(new), PLENTY)
        galleries.add_samples(session, artifacts, galleries.enrol(session, gallery, who, {}), new)


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def test_names_and_quotas_under_concurrency(database: Database) -> None:
    made = version(database)

    def attempt(number: int) -> str:
        try:
            make(database, f"g{number % 4}", made)
            return "made"
        except QuotaExceeded:
            return "quota"
        except Conflict:
            return "twice"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, range(16)))
    assert outcomes.count("made") == 3
    assert set(outcomes) <= {"made", "quota", "twice"}
    with database.read() as session, pytest.raises(NotFound):
        galleries.get(session, "other", "g0")


def test_a_subject_is_known_once_and_samples_are_counted(database: Database, artifacts: ArtifactStore) -> None:
    made = version(database)
    make(database, "staff", made)
    enrol(database, artifacts, "Ada", [b"1", b"2", b"3"], made)
    with pytest.raises(Conflict, match='knows a subject "Ada" already'):
        enrol(database, artifacts, "Ada", [b"4"], made)
    with pytest.raises(QuotaExceeded, match="has 3 samples; with 2 more it would have over 4"):
        enrol(database, artifacts, "Grace", [b"4", b"5"], made)
    with database.read() as session:
        gallery = galleries.get(session, PROJECT, "staff")
        assert galleries.counts(session, gallery.id) == (1, 3)


def test_moving_starts_again_when_somebody_was_enrolled(database: Database, artifacts: ArtifactStore) -> None:
    first, second = version(database), version(database)
    make(database, "staff", first)
    enrol(database, artifacts, "Ada", [b"1"], first)
    with database.read() as session:
        gallery = galleries.get(session, PROJECT, "staff")
        seen = {one.sample_id: b"\1" * 4 for one in galleries.everybody(session, gallery.id)}
    enrol(database, artifacts, "Grace", [b"2"], first)
    with pytest.raises(Moved), database.write() as session:
        galleries.move(session, gallery, second, seen)
    with database.write() as session:
        everybody = galleries.everybody(session, gallery.id)
        assert {one.embedding for one in everybody} == {b"\0" * 8}
        moved = galleries.move(session, gallery, second, {one.sample_id: b"\1" * 4 for one in everybody})
        assert [(one.name, one.embedding) for one in moved] == [("Ada", b"\1" * 4), ("Grace", b"\1" * 4)]
    # Whoever embedded by the version before is told so.
    with pytest.raises(Moved):
        enrol(database, artifacts, "Alan", [b"3"], first)
    with database.write() as session, pytest.raises(Conflict, match='what the gallery "staff" knows'):
        models.remove_version(session, second)
    with database.write() as session:
        models.remove_version(session, first)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)  # SQLite has one writer at a time
def test_whoever_waited_reads_what_was_changed_meanwhile(database: Database) -> None:
    make(database, "staff", version(database))
    with database.write() as session:
        gallery = galleries.get(session, PROJECT, "staff")
        with database.write() as other:
            galleries.get(other, PROJECT, "staff").threshold_from = {"source": "given", "value": 0.5}
        galleries.held(session, gallery)
        assert gallery.threshold_from == {"source": "given", "value": 0.5}


def test_files_go_with_the_last_row_that_points_at_them(
    database: Database, artifacts: ArtifactStore, tmp_path: Path
) -> None:
    made = version(database)
    make(database, "staff", made)
    enrol(database, artifacts, "Ada", [b"own", b"shared"], made)
    enrol(database, artifacts, "Grace", [b"shared"], made)
    stray = artifacts.write([b"stored, and then the process was killed"])
    collector = Collector(database, artifacts, 0)
    for _ in range(256):  # strays are looked for in a directory at a time
        collector.collect()
    with pytest.raises(NotFound):
        artifacts.path(stray.sha256)
    with database.write() as session:
        gallery = galleries.get(session, PROJECT, "staff")
        ada = session.scalars(galleries.subjects(gallery.id, "Ada")).one()
        digests = [sample.sha256 for sample in galleries.samples_of(session, ada.id)]
        seen = galleries.everybody(session, gallery.id)
        galleries.remove_subject(session, ada)
    assert [digest in collector.collect() for digest in digests] == [True, False]
    # Who embeds anew what it saw before does without a file that went with its row, but not without one that was lost.
    with database.read() as session:
        read = galleries.contents(session, artifacts, seen)
        assert [(one.name, content) for one, content in read] == [("Ada", b"shared"), ("Grace", b"shared")]
        with pytest.raises(NotFound):
            galleries.contents(session, ArtifactStore(tmp_path / "elsewhere"), seen)
    with database.write() as session:
        galleries.remove(session, galleries.get(session, PROJECT, "staff"))
    assert collector.collect() == [digests[1]]
