"""Files addressed by their sha256: written beside, synced, renamed, so that a name always has its whole content."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store.errors import CorruptArtifact, NotFound, TooLarge
from store.records import ArtifactRecord

CHUNK_BYTES = 1 << 20


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

    def write(self, chunks: Iterable[bytes], *, max_bytes: int | None = None) -> Artifact:
        """Store a stream in constant memory; TooLarge as soon as it passes `max_bytes`, and then nothing stays."""
        with self._temporary() as file:
            digest, size = hashlib.sha256(), 0
            for chunk in chunks:
                size += len(chunk)
                if max_bytes is not None and size > max_bytes:
                    raise TooLarge(
                        f"The body is larger than {max_bytes} bytes.",
                        hint="Send a smaller file, or raise ANNEAL_MAX_UPLOAD_BYTES on the server.",
                    )
                digest.update(chunk)
                file.write(chunk)
            return self._keep(file, digest.hexdigest(), size)

    def add(self, path: Path) -> Artifact:
        """Store a copy of a file."""
        with path.open("rb") as source:
            return self.write(iter(lambda: source.read(CHUNK_BYTES), b""))

    def verify(self, sha256: str) -> Path:
        """Return the file's path after reading it whole; CorruptArtifact when its bytes are not its digest's."""
        path = self.path(sha256)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise CorruptArtifact(f"Artifact {sha256} has the content of {found}.")
        return path

    def copy_to(self, files: dict[str, str], directory: Path) -> None:
        """Lay out files (path within `directory` to sha256) for a process that knows no artifacts, each verified."""
        for name, sha256 in files.items():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.verify(sha256), target)

    def _path(self, sha256: str) -> Path:
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise NotFound(f"{sha256!r} is no artifact's digest.")
        return self._directory / sha256[:2] / sha256

    @contextmanager
    def _temporary(self) -> Iterator[IO[bytes]]:
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=self._incoming, delete=False) as file:
            try:
                yield file
            finally:
                Path(file.name).unlink(missing_ok=True)

    def _keep(self, file: IO[bytes], sha256: str, size: int) -> Artifact:
        target = self._path(sha256)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.flush()
        os.fsync(file.fileno())
        # A rename over the same content is harmless: readers keep the file they opened.
        Path(file.name).rename(target)
        _sync_directory(target.parent)
        return Artifact(sha256, size)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def register(session: Session, artifact: Artifact) -> None:
    """Write the artifact's row unless it is there; whatever keeps the file points at this row."""
    if session.get(ArtifactRecord, artifact.sha256) is None:
        with session.begin_nested() as savepoint:
            session.add(ArtifactRecord(sha256=artifact.sha256, bytes=artifact.bytes))
            try:
                session.flush()
            except IntegrityError:  # somebody else registered the same content meanwhile
                savepoint.rollback()
