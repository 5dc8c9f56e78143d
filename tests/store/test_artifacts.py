"""Files addressed by their content: whole or absent, capped, verified, and safe to write at the same time."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from store.artifacts import Artifact, ArtifactStore
from store.database import Database
from store.errors import CorruptArtifact, NotFound, TooLarge
from store.incoming import Incoming
from store.records import ArtifactRecord

CONTENT = b"some content" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]


def test_written_and_read(store: ArtifactStore, tmp_path: Path) -> None:
    assert store.write([CONTENT[:5], CONTENT[5:]]) == Artifact(DIGEST, len(CONTENT))
    assert store.path(DIGEST).read_bytes() == CONTENT
    assert store.verify(DIGEST) == store.path(DIGEST)
    assert files(tmp_path) == [tmp_path / "artifacts" / DIGEST[:2] / DIGEST]
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    assert store.add(source).sha256 == DIGEST
    whole = Artifact(DIGEST, len(CONTENT))
    store.copy_to({"a": whole, "deep/b": whole}, tmp_path / "out")
    assert (tmp_path / "out" / "deep" / "b").read_bytes() == CONTENT


def test_nothing_stays_of_what_is_too_large(store: ArtifactStore, tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 1000

    with pytest.raises(TooLarge) as caught:
        store.write(endless(), max_bytes=10_000)
    assert "10000" in caught.value.message
    assert files(tmp_path) == []
    assert store.write([b"x" * 10_000], max_bytes=10_000).bytes == 10_000


def test_nothing_stays_of_what_broke_off(store: ArtifactStore, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        store.write(broken())
    assert files(tmp_path) == []


def test_damage_is_found(store: ArtifactStore, tmp_path: Path) -> None:
    store.write([CONTENT])
    path = store.path(DIGEST)
    path.write_bytes(b"S" + CONTENT[1:])
    with pytest.raises(CorruptArtifact, match=DIGEST):
        store.verify(DIGEST)
    with pytest.raises(CorruptArtifact):
        store.copy_to({"a": Artifact(DIGEST, len(CONTENT))}, tmp_path / "out")
    store.write([CONTENT])  # stored again, it is whole again
    store.verify(DIGEST)


@pytest.mark.parametrize("name", ["0" * 64, "../../etc/passwd", "", "G" * 64, "0" * 63, "/" + "0" * 63])
def test_what_is_not_there(store: ArtifactStore, name: str) -> None:
    with pytest.raises(NotFound):
        store.path(name)


def test_the_same_content_at_the_same_time(store: ArtifactStore, database: Database, tmp_path: Path) -> None:
    def write(_: int) -> str:
        artifact = store.write([CONTENT])
        with database.write() as session:
            store.register(session, artifact)
        store.verify(artifact.sha256)
        return artifact.sha256

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(write, range(24))) == {DIGEST}
    assert len(files(tmp_path)) == 1
    with database.read() as session:
        assert session.get_one(ArtifactRecord, DIGEST).bytes == len(CONTENT)


class Unsyncable(io.BytesIO):
    """A file that takes everything, and that the system refuses to sync."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor


def test_a_sync_that_fails_while_more_is_coming_is_told() -> None:
    ends = os.pipe()
    try:
        incoming = Incoming(Unsyncable(ends[1]), None, None)
        incoming.write(bytes(64 << 20))
        with pytest.raises(OSError, match="Invalid argument"):
            incoming.write(bytes(64 << 20))
    finally:
        for end in ends:
            os.close(end)
