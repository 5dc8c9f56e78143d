"""The table of files that are no dataset: what a job made, or is to read."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from store.record import Record, created


class FileRecord(Record):
    """A file of a project, by what it is for; the job that made it, or reads it, if one does."""

    __tablename__ = "files"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project: Mapped[str] = mapped_column(String(64))
    filename: Mapped[str]
    purpose: Mapped[str] = mapped_column(String(32))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("artifacts.sha256"), index=True)
    created_at: Mapped[float] = created()

    __table_args__ = (Index(None, "project", "id"),)
