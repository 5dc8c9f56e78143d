"""The tables of galleries: whom they know, and by which files."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from store.record import Record, created


class GalleryRecord(Record):
    """Subjects that are told apart by one version's embeddings; a version that is pointed at here stays."""

    __tablename__ = "galleries"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(64))
    version_id: Mapped[str] = mapped_column(ForeignKey("versions.id"), index=True)
    # What was asked for, and what it came to: null while there is nothing to choose a threshold by.
    threshold_from: Mapped[dict[str, Any]]
    threshold: Mapped[dict[str, Any] | None]
    # Goes up with whatever a threshold is chosen by; the one above is of the revision `threshold_at`.
    revision: Mapped[int] = mapped_column(default=0)
    threshold_at: Mapped[int] = mapped_column(default=0)
    # The job that moves it to another version, or the last that did, or was to.
    move_job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    user_metadata: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[float] = created()
    updated_at: Mapped[float] = created()

    __table_args__ = (UniqueConstraint("project", "name"), Index(None, "project", "id"))


class SubjectRecord(Record):
    """Somebody, or something, that a gallery knows."""

    __tablename__ = "subjects"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    gallery_id: Mapped[str] = mapped_column(ForeignKey("galleries.id"))
    name: Mapped[str] = mapped_column(String(200))
    user_metadata: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[float] = created()

    __table_args__ = (UniqueConstraint("gallery_id", "name"), Index(None, "gallery_id", "id"))


class SampleRecord(Record):
    """A file that a subject was enrolled by, kept so that another version can embed it, and its embedding."""

    __tablename__ = "samples"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    subject_id: Mapped[str] = mapped_column(ForeignKey("subjects.id"), index=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("artifacts.sha256"), index=True)
    # Of length 1, as little-endian float32; read only where it is named.
    embedding: Mapped[bytes] = mapped_column(LargeBinary, deferred=True, deferred_raiseload=True)
    created_at: Mapped[float] = created()


class SampleEmbeddingRecord(Record):
    """What a version that a gallery is to move to made of a sample: it goes with the sample, as all that is known."""

    __tablename__ = "sample_embeddings"

    sample_id: Mapped[str] = mapped_column(ForeignKey("samples.id"), primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("versions.id"), primary_key=True, index=True)
    embedding: Mapped[bytes] = mapped_column(LargeBinary)
