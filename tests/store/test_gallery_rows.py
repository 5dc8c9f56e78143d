"""Galleries: what two writers at once may do, how many there may be, and that nothing is left behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from queue_steps import PROJECT, claim, know_artifact, look, submit
from sqlalchemy import event, func, select
from sqlalchemy.exc import IntegrityError

from store import attempts, commands, galleries, gallery_moves, jobs, models
from store.artifacts import ArtifactStore
from store.collection import Collector
from store.database import Database
from store.errors import Conflict, Fenced, NotFound, QuotaExceeded
from store.galleries import Moved, New, Quota
from store.gallery_records import SampleEmbeddingRecord, SubjectRecord
from store.records import JobRecord
from store.token import Token

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
        galleries.changed(session, gallery, by_samples=True)


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


def move(database: Database, of: models.Version) -> Token:
    """Submit a move of the gallery and claim it."""
    with database.write() as session:
        gallery = galleries.get(session, PROJECT, "staff")
        spec = {"gallery": "staff", "gallery_id": gallery.id, "ref": of.ref, "version_id": of.record.id}
        resolved = {**spec, "threshold_from": None}
        job = jobs.submit(session, jobs.NewJob(jobs.MOVE, PROJECT, spec, resolved=resolved))
        gallery_moves.begin(session, job)
    return claim(database, job.id)


def hand_over(database: Database, token: Token) -> list[str]:
    """Embed what is not embedded yet; return whose it was."""
    with database.read() as session:
        left, _ = gallery_moves.unmoved(session, session.get_one(JobRecord, token.job_id))
        whose = [session.get_one(SubjectRecord, one.subject_id).name for one in left]
    with database.write() as session:
        gallery_moves.keep(session, token, {one.sample_id: b"\1" * 4 for one in left})
    return whose


def finish(database: Database, token: Token) -> None:
    with database.write() as session:
        attempts.complete(session, token, {})
        gallery_moves.finish(session, session.get_one(JobRecord, token.job_id))


def embeddings(database: Database) -> list[tuple[str, bytes]]:
    with database.read() as session:
        gallery = galleries.get(session, PROJECT, "staff")
        return [(one.name, one.embedding) for one in galleries.everybody(session, gallery.id)]


def test_moving_starts_again_when_somebody_was_enrolled(database: Database, artifacts: ArtifactStore) -> None:
    first, second = version(database), version(database)
    make(database, "staff", first)
    enrol(database, artifacts, "Ada", [b"1"], first)
    token = move(database, second)
    with pytest.raises(Conflict, match="is being moved to"):
        move(database, first)
    assert hand_over(database, token) == ["Ada"]
    enrol(database, artifacts, "Grace", [b"2"], first)
    with pytest.raises(Moved, match="1 files were enrolled"):
        finish(database, token)
    assert embeddings(database) == [("Ada", b"\0" * 8), ("Grace", b"\0" * 8)]
    assert look(database, token.job_id).state == "running"
    assert hand_over(database, token) == ["Grace"]
    finish(database, token)
    assert embeddings(database) == [("Ada", b"\1" * 4), ("Grace", b"\1" * 4)]
    # Whoever embedded by the version before is told so.
    with pytest.raises(Moved):
        enrol(database, artifacts, "Alan", [b"3"], first)
    with database.write() as session, pytest.raises(Conflict, match='what the gallery "staff" knows'):
        models.remove_version(session, second)
    with database.write() as session:
        models.remove_version(session, first)


def test_a_move_that_was_stopped_goes_on_and_keeps_nothing_of_the_forgotten(
    database: Database, artifacts: ArtifactStore
) -> None:
    first, second = version(database), version(database)
    make(database, "staff", first)
    for who in ("Ada", "Grace"):
        enrol(database, artifacts, who, [who.encode()], first)
    token = move(database, second)
    assert hand_over(database, token) == ["Ada", "Grace"]
    with database.write() as session:
        gallery = galleries.get(session, PROJECT, "staff")
        galleries.remove_subject(session, session.scalars(galleries.subjects(gallery.id, "Ada")).one())
        assert session.scalar(select(func.count()).select_from(SampleEmbeddingRecord)) == 1
        commands.cancel(session, PROJECT, token.job_id)
    with pytest.raises(Fenced):
        finish(database, token)
    with database.write() as session:
        attempts.give_up(session, token, "cancelled")
    with pytest.raises(Fenced):
        hand_over(database, token)
    assert embeddings(database) == [("Grace", b"\0" * 8)]
    again = move(database, second)
    assert hand_over(database, again) == []  # what the cancelled one made is of that version all the same
    finish(database, again)
    assert embeddings(database) == [("Grace", b"\1" * 4)]
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(SampleEmbeddingRecord)) == 0


def test_a_version_that_is_gone_is_no_name_that_is_taken(database: Database) -> None:
    """As seen by who has looked a version up just before another transaction deletes it."""
    made = version(database)
    with database.write() as session:
        models.remove_version(session, models.by_id(session, made.record.id))
    with pytest.raises(NotFound, match="No version"):
        make(database, "staff", made)
    there = version(database)
    wrong: Any = None
    with pytest.raises(IntegrityError), database.write() as session:
        galleries.create(session, PROJECT, wrong, there, threshold_from=ASKED, user_metadata={}, quota=PLENTY)


def test_enrolling_reads_no_embedding(database: Database, artifacts: ArtifactStore) -> None:
    made = version(database)
    make(database, "staff", made)
    enrol(database, artifacts, "Ada", [b"1", b"2"], made)
    said: list[str] = []

    def hear(*given: Any) -> None:
        said.append(given[2])

    event.listen(database.engine, "before_cursor_execute", hear)
    enrol(database, artifacts, "Grace", [b"3"], made)
    assert len(said) > 5
    assert not [one for one in said if one.startswith("SELECT") and "embedding" in one]
    with database.read() as session:
        gallery = galleries.get(session, PROJECT, "staff")
        assert not galleries.has_threshold(gallery)  # it is chosen when somebody asks for it


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)  # SQLite has one writer at a time
def test_whoever_waited_reads_what_was_changed_meanwhile(database: Database) -> None:
    make(database, "staff", version(database))
    with database.write() as session:
        gallery = galleries.get(session, PROJECT, "staff")
        with database.write() as other:
            galleries.get(other, PROJECT, "staff").threshold_from = {"source": "given", "value": 0.5}
        galleries.held(session, gallery)
        assert gallery.threshold_from == {"source": "given", "value": 0.5}


def test_files_go_with_the_last_row_that_points_at_them(database: Database, artifacts: ArtifactStore) -> None:
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
        galleries.remove_subject(session, ada)
    assert [digest in collector.collect() for digest in digests] == [True, False]
    with database.write() as session:
        galleries.remove(session, galleries.get(session, PROJECT, "staff"))
    assert collector.collect() == [digests[1]]
