"""The tables of what is on its way to becoming a dataset."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from store.record import Record, created


class UploadRecord(Record):
    """A file that comes in parts; which of them are there is read off the disk, so that the two cannot disagree."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project: Mapped[str] = mapped_column(String(64))
    filename: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str | None] = mapped_column(String(64))  # what the caller said it will be
    part_bytes: Mapped[int] = mapped_column(BigInteger)
    # Set once all parts have been joined: from then on the upload is completed.
    source_sha256: Mapped[str | None] = mapped_column(ForeignKey("artifacts.sha256"), index=True)
    created_at: Mapped[float] = created()
    expires_at: Mapped[float] = mapped_column(index=True)

    __table_args__ = (Index(None, "project", "id"),)
