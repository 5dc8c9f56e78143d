"""Galleries: subjects known by files, told apart by the embeddings of one version of a model.

The rows are the truth. A file is stored before the rows that point at it, and goes once no row does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store import ids, models
from store.artifacts import Artifact, ArtifactStore
from store.database import alone, database_now
from store.errors import Conflict, NotFound, QuotaExceeded
from store.gallery_records import GalleryRecord, SampleEmbeddingRecord, SampleRecord, SubjectRecord
from store.models import Version


class Moved(Conflict):
    """The gallery has moved to another version since it was looked at."""


AUTO, EVALUATION, ENROLLED, GIVEN = "auto", "evaluation", "enrolled", "given"
BY_NO_SAMPLE = (EVALUATION, GIVEN)
"""Where a threshold comes from: pairs that the version was evaluated on, the samples, or the caller."""


@dataclass(frozen=True, slots=True)
class Quota:
    """How many galleries a project may have, and how many samples a gallery."""

    galleries: int
    samples: int


@dataclass(frozen=True, slots=True)
class Known:
    """An enrolled file, and whose it is."""

    sample_id: str
    subject_id: str
    name: str
    sha256: str
    embedding: bytes


@dataclass(frozen=True, slots=True)
class New:
    """A file to enrol: stored already, and embedded by the gallery's version."""

    artifact: Artifact
    embedding: bytes


def create(
    session: Session,
    project: str,
    name: str,
    version: Version,
    *,
    threshold_from: Mapping[str, Any],
    user_metadata: Mapping[str, Any],
    quota: Quota,
) -> GalleryRecord:
    """Write a gallery that knows nobody yet; Conflict when the project has one of that name."""
    alone(session, f"galleries {project}")
    count = session.scalar(select(func.count()).select_from(GalleryRecord).where(GalleryRecord.project == project))
    if (count or 0) >= quota.galleries:
        raise QuotaExceeded(
            f"The project has {count} galleries, and may have {quota.galleries}.", hint="Delete one that nobody needs."
        )
    record = GalleryRecord(
        id=ids.new_id(ids.GALLERY),
        project=project,
        name=name,
        version_id=version.record.id,
        threshold_from=dict(threshold_from),
        user_metadata=dict(user_metadata),
    )
    try:
        with session.begin_nested():
            session.add(record)
            session.flush()
    except IntegrityError:
        models.by_id(session, version.record.id)  # it may have been deleted meanwhile
        if session.scalar(_named(project, name)) is None:
            raise
        raise Conflict(
            f'There is a gallery "{name}" already.', hint="Choose another name, or enrol into that one.", param="name"
        ) from None
    session.refresh(record)
    return record


def _named(project: str, name: str) -> Select[GalleryRecord]:
    return select(GalleryRecord).where(GalleryRecord.project == project, GalleryRecord.name == name)


def get(session: Session, project: str, name: str) -> GalleryRecord:
    """Return the project's gallery by name, as the database has it now; NotFound otherwise."""
    record = session.scalar(_named(project, name), execution_options={"populate_existing": True})
    if record is None:
        raise NotFound(f'No gallery "{name}".', hint="List them with GET /api/v1/galleries.")
    return record


def by_id(session: Session, gallery_id: str) -> GalleryRecord:
    """Return a gallery by its id; NotFound when it was deleted."""
    record = session.get(GalleryRecord, gallery_id)
    if record is None:
        raise NotFound("That gallery was deleted.", hint="List them with GET /api/v1/galleries.")
    return record


def held(session: Session, gallery: GalleryRecord, *, version_id: str | None = None) -> None:
    """Keep other writers of the gallery waiting until this transaction ends, and read it as they left it.

    Moved unless it has this version.
    """
    query = select(GalleryRecord).where(GalleryRecord.id == gallery.id).with_for_update()
    found = session.scalar(query, execution_options={"populate_existing": True})
    if found is None:
        raise NotFound(f'No gallery "{gallery.name}" any more.', hint="List them with GET /api/v1/galleries.")
    if version_id is not None and found.version_id != version_id:
        raise Moved(f'Gallery "{gallery.name}" has just moved to another version.', hint="Try again.")


def listing(project: str) -> Any:
    """Return the query for a project's galleries, to be paged by the caller."""
    return select(GalleryRecord).where(GalleryRecord.project == project)


def counts(session: Session, gallery_id: str) -> tuple[int, int]:
    """Return how many subjects and samples a gallery has."""
    subjects = select(func.count()).select_from(SubjectRecord).where(SubjectRecord.gallery_id == gallery_id)
    samples = (
        select(func.count())
        .select_from(SampleRecord)
        .join(SubjectRecord, SampleRecord.subject_id == SubjectRecord.id)
        .where(SubjectRecord.gallery_id == gallery_id)
    )
    return session.scalar(subjects) or 0, session.scalar(samples) or 0


def remove(session: Session, gallery: GalleryRecord) -> None:
    """Delete a gallery with all its subjects."""
    held(session, gallery)
    _forget(session, SubjectRecord.gallery_id == gallery.id)
    session.execute(delete(GalleryRecord).where(GalleryRecord.id == gallery.id))


def enrol(session: Session, gallery: GalleryRecord, name: str, user_metadata: Mapping[str, Any]) -> SubjectRecord:
    """Write a subject, to be given samples; Conflict when the gallery knows one of that name."""
    require_new(session, gallery, name)
    subject = SubjectRecord(
        id=ids.new_id(ids.SUBJECT), gallery_id=gallery.id, name=name, user_metadata=dict(user_metadata)
    )
    session.add(subject)
    session.flush()
    session.refresh(subject)
    return subject


def require_new(session: Session, gallery: GalleryRecord, name: str) -> None:
    """Raise Conflict when the gallery knows a subject of that name."""
    same = select(SubjectRecord).where(SubjectRecord.gallery_id == gallery.id, SubjectRecord.name == name)
    known = session.scalar(same)
    if known is not None:
        raise Conflict(
            f'Gallery "{gallery.name}" knows a subject "{name}" already: {known.id}.',
            hint=f"Add files with POST /api/v1/galleries/{gallery.name}/subjects/{known.id}/samples, or choose another "
            "name.",
            param="name",
        )


def require_room(session: Session, gallery: GalleryRecord, samples: int, quota: Quota) -> None:
    """Raise QuotaExceeded when a gallery would have too many samples with so many more."""
    count = counts(session, gallery.id)[1]
    if count + samples > quota.samples:
        raise QuotaExceeded(
            f'Gallery "{gallery.name}" has {count} samples; with {samples} more it would have over {quota.samples}.',
            hint="Delete subjects that nobody needs, or make another gallery.",
        )


def add_samples(session: Session, artifacts: ArtifactStore, subject: SubjectRecord, new: Sequence[New]) -> None:
    """Write a subject's further samples."""
    for one in new:
        artifacts.register(session, one.artifact)
        session.add(
            SampleRecord(
                id=ids.new_id(ids.SAMPLE),
                subject_id=subject.id,
                sha256=one.artifact.sha256,
                embedding=one.embedding,
            )
        )
    session.flush()


def subject(session: Session, gallery: GalleryRecord, subject_id: str) -> SubjectRecord:
    """Return a gallery's subject by its id; NotFound otherwise."""
    record = session.get(SubjectRecord, subject_id)
    if record is None or record.gallery_id != gallery.id:
        raise NotFound(
            f'Gallery "{gallery.name}" has no subject "{subject_id}".',
            hint=f"List them with GET /api/v1/galleries/{gallery.name}/subjects.",
        )
    return record


def subjects(gallery_id: str, name: str | None = None) -> Any:
    """Return the query for a gallery's subjects, to be paged by the caller."""
    query = select(SubjectRecord).where(SubjectRecord.gallery_id == gallery_id)
    return query if name is None else query.where(SubjectRecord.name == name)


def samples_of(session: Session, subject_id: str) -> list[SampleRecord]:
    """Return a subject's samples, oldest first."""
    return list(
        session.scalars(select(SampleRecord).where(SampleRecord.subject_id == subject_id).order_by(SampleRecord.id))
    )


def lacking(session: Session, subject_id: str, digests: Iterable[str]) -> list[str]:
    """Return which of these files, each once, a subject has no sample of."""
    known = set(session.scalars(select(SampleRecord.sha256).where(SampleRecord.subject_id == subject_id)))
    return [digest for digest in dict.fromkeys(digests) if digest not in known]


def remove_subject(session: Session, record: SubjectRecord) -> None:
    """Delete a subject with its samples."""
    _forget(session, SubjectRecord.id == record.id)


def _forget(session: Session, whom: ColumnElement[bool]) -> None:
    """Delete subjects with all that is known of them."""
    gone = select(SubjectRecord.id).where(whom)
    samples = select(SampleRecord.id).where(SampleRecord.subject_id.in_(gone))
    session.execute(delete(SampleEmbeddingRecord).where(SampleEmbeddingRecord.sample_id.in_(samples)))
    session.execute(delete(SampleRecord).where(SampleRecord.subject_id.in_(gone)))
    session.execute(delete(SubjectRecord).where(whom))


def everybody(session: Session, gallery_id: str) -> list[Known]:
    """Return all samples of a gallery, oldest first."""
    query = (
        select(SampleRecord.id, SubjectRecord.id, SubjectRecord.name, SampleRecord.sha256, SampleRecord.embedding)
        .join(SubjectRecord, SampleRecord.subject_id == SubjectRecord.id)
        .where(SubjectRecord.gallery_id == gallery_id)
        .order_by(SampleRecord.id)
    )
    return [Known(*row) for row in session.execute(query)]


def changed(session: Session, gallery: GalleryRecord, *, by_samples: bool = False) -> None:
    """Note that what the gallery's threshold is chosen by has changed; one that no sample counts for stays."""
    stays = by_samples and has_threshold(gallery) and (gallery.threshold or {}).get("source") in BY_NO_SAMPLE
    gallery.revision += 1
    if stays:
        gallery.threshold_at = gallery.revision
    gallery.updated_at = database_now()
    session.flush()
    session.refresh(gallery)


def has_threshold(gallery: GalleryRecord) -> bool:
    """Return whether the threshold is that of the gallery as it is; null counts, while there is none to be had."""
    return gallery.threshold_at == gallery.revision


def keep_threshold(session: Session, gallery: GalleryRecord, threshold: dict[str, Any] | None) -> None:
    """Keep what was chosen for the gallery as it was looked at, unless it has changed since."""
    session.execute(
        update(GalleryRecord)
        .where(GalleryRecord.id == gallery.id, GalleryRecord.revision == gallery.revision)
        .values(threshold=threshold, threshold_at=gallery.revision)
        .execution_options(synchronize_session=False)
    )


def version_of(session: Session, gallery: GalleryRecord) -> Version:
    """Return the version whose embeddings a gallery has."""
    return models.by_id(session, gallery.version_id)
