"""Files addressed by their sha256: written beside, synced, renamed, so that a name always has its whole content."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store.database import database_now
from store.errors import CorruptArtifact, NotFound
from store.incoming import Incoming, receiving
from store.records import ArtifactRecord

CHUNK_BYTES = 1 << 20
_UNWANTED = ".unwanted"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A stored file."""

    sha256: str
    bytes: int


class ArtifactStore:
    """A directory of artifacts; several machines share it as a mounted volume."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._incoming = directory / "incoming"

    def path(self, sha256: str) -> Path:
        """Return the file's path; NotFound when it is not there."""
        path = self._path(sha256)
        if not path.is_file():
            raise NotFound(f"Artifact {sha256} is missing from the artifact store.")
        return path

    def receive(self, *, max_bytes: int | None = None) -> AbstractContextManager[Incoming]:
        """Open a file for bytes to come; it is stored by `keep`, or gone when the block ends."""
        hint = "Send a smaller file, or raise ANNEAL_MAX_UPLOAD_BYTES on the server."
        return receiving(self._incoming, max_bytes=max_bytes, hint=hint)

    def keep(self, incoming: Incoming) -> Artifact:
        """Store what was received under its digest."""
        artifact = Artifact(incoming.sha256, incoming.bytes)
        incoming.keep(self._path(artifact.sha256))
        return artifact

    def write(self, chunks: Iterable[bytes], *, max_bytes: int | None = None) -> Artifact:
        """Store a stream in constant memory; TooLarge as soon as it passes `max_bytes`, and then nothing stays."""
        with self.receive(max_bytes=max_bytes) as file:
            for chunk in chunks:
                file.write(chunk)
            return self.keep(file)

    def add(self, path: Path) -> Artifact:
        """Store a copy of a file."""
        return self.write(_chunks(path))

    def chunks(self, sha256: str) -> Iterator[bytes]:
        """Iterate over a file's bytes in pieces."""
        return _chunks(self.path(sha256))

    def verify(self, sha256: str) -> Path:
        """Return the file's path after reading it whole; CorruptArtifact when its bytes are not its digest's."""
        path = self.path(sha256)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise CorruptArtifact(f"Artifact {sha256} has the content of {found}.")
        return path

    def copy_to(self, files: Mapping[str, Artifact | ArtifactRecord], directory: Path) -> None:
        """Lay out files (by path within `directory`) for a process that knows no artifacts, each verified."""
        for name, artifact in files.items():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.verify(artifact.sha256), target)

    def register(self, session: Session, artifact: Artifact) -> None:
        """Write the artifact's row, or touch it, in the transaction that adds a pointer to it.

        NotFound when the file has been collected meanwhile, which takes a writer that stood still for longer than
        the grace: the transaction must not be committed then. From here on neither row nor file is collected.
        """
        _write_row(session, artifact)
        try:
            os.utime(self._path(artifact.sha256))
        except FileNotFoundError:
            raise NotFound(
                f"Artifact {artifact.sha256} was collected before it was registered.", hint="Store it again."
            ) from None

    def remove(self, sha256: str, grace_s: float) -> bool:
        """Delete a file unless it was stored within the last `grace_s` seconds; True when it is gone.

        Moved aside before its age decides: a writer of the same content may rename a new file into place at any
        moment, and that one must not be deleted for its predecessor's age.
        """
        path = self._path(sha256)
        aside = self._incoming / f"{sha256}.{uuid4().hex}{_UNWANTED}"
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            path.rename(aside)
        except FileNotFoundError:
            return True
        if age_s(aside) < grace_s:
            aside.rename(path)  # the same content, whatever is there by now
            return False
        aside.unlink()
        return True

    def digests(self, prefix: str) -> Iterator[str]:
        """Iterate over the digests that begin with two hexadecimal digits."""
        directory = self._directory / prefix
        return (path.name for path in directory.iterdir()) if directory.is_dir() else iter(())

    def remove_leftovers(self, grace_s: float) -> None:
        """Delete half-written files that nobody has written to for a while."""
        for path in self._incoming.glob("*"):
            with suppress(FileNotFoundError):
                if age_s(path) <= grace_s:
                    continue
                if path.suffix == _UNWANTED:  # its remover was killed before it had decided
                    path.rename(self._path(path.name.partition(".")[0]))
                else:
                    path.unlink()

    def _path(self, sha256: str) -> Path:
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise NotFound(f"{sha256!r} is no artifact's digest.")
        return self._directory / sha256[:2] / sha256


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as source:
        yield from iter(lambda: source.read(CHUNK_BYTES), b"")


def age_s(path: Path) -> float:
    """Return the seconds since a file was last written."""
    return time.time() - path.stat().st_mtime


def _write_row(session: Session, artifact: Artifact) -> None:
    touch = (
        update(ArtifactRecord)
        .where(ArtifactRecord.sha256 == artifact.sha256)
        .values(touched_at=database_now())
        .returning(ArtifactRecord.sha256)
        .execution_options(synchronize_session=False)
    )
    if session.scalar(touch) is not None:
        return
    try:
        with session.begin_nested():
            session.add(ArtifactRecord(sha256=artifact.sha256, bytes=artifact.bytes))
            session.flush()
    except IntegrityError:  # somebody else registered the same content meanwhile
        session.execute(touch)
