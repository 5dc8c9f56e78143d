"""The registry: models, their immutable versions, and the aliases that point at them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store import ids, webhooks
from store.database import database_now
from store.errors import Conflict, NotFound
from store.gallery_records import GalleryRecord, SampleEmbeddingRecord
from store.records import AliasRecord, ArtifactRecord, JobRecord, ModelRecord, VersionFileRecord, VersionRecord
from store.states import TERMINAL

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
PICTURES = "pictures/"  # how the paths of files begin that show how good a model is
REF = re.compile(rf"(?P<name>{NAME.pattern})(?::(?P<number>[0-9]{{1,9}})|@(?P<alias>{NAME.pattern}))?")


@dataclass(frozen=True, slots=True)
class NewVersion:
    """What a finished job registers."""

    model: str
    kind: str
    task: str
    architecture: str
    modality: str
    metrics: Mapping[str, Any]
    lineage: Mapping[str, Any]
    files: Mapping[str, str]
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Version:
    """A version with its model and the alias it was asked for by, if any."""

    record: VersionRecord
    model: ModelRecord
    alias: str | None = None

    @property
    def ref(self) -> str:
        """The reference that always means this version."""
        return f"{self.model.name}:{self.record.number}"


def register(session: Session, project: str, job_id: str, new: NewVersion) -> Version:
    """Add the next version of a model, making the model if it is new; part of the transaction that ends the job."""
    model_id = _ensure_model(session, project, new.model)
    number = session.scalars(
        update(ModelRecord)
        .where(ModelRecord.id == model_id)
        .values(last_version=ModelRecord.last_version + 1)
        .returning(ModelRecord.last_version)
    ).one()
    version = VersionRecord(
        id=ids.new_id(ids.VERSION),
        model_id=model_id,
        number=number,
        kind=new.kind,
        task=new.task,
        architecture=new.architecture,
        modality=new.modality,
        metrics=dict(new.metrics),
        lineage=dict(new.lineage),
        job_id=job_id,
    )
    session.add(version)
    session.flush()
    session.add_all(
        VersionFileRecord(version_id=version.id, path=path, sha256=sha256) for path, sha256 in new.files.items()
    )
    model = session.get_one(ModelRecord, model_id)
    about = {"model": model.name, "version": number, "ref": f"{model.name}:{number}", "job_id": job_id}
    webhooks.announce(session, project, webhooks.Event.VERSION_CREATED, about)
    for alias in new.aliases:
        _point(session, model_id, alias, version.id)
    session.flush()
    return Version(version, model)


def _ensure_model(session: Session, project: str, name: str) -> str:
    query = select(ModelRecord.id).where(ModelRecord.project == project, ModelRecord.name == name)
    model_id = session.scalar(query)
    if model_id is not None:
        return model_id
    try:
        with session.begin_nested():
            model = ModelRecord(id=ids.new_id(ids.MODEL), project=project, name=name)
            session.add(model)
            session.flush()
            return model.id
    except IntegrityError:  # another job registered the first version of the same model meanwhile
        return session.scalars(query).one()


def get_model(session: Session, project: str, name: str) -> ModelRecord:
    """Return the project's model by name; NotFound otherwise."""
    model = session.scalar(select(ModelRecord).where(ModelRecord.project == project, ModelRecord.name == name))
    if model is None:
        raise NotFound(f'No model "{name}".', hint="List models with GET /api/v1/models.")
    return model


def resolve(session: Session, project: str, ref: str) -> Version:
    """Return the version that `name` (the latest), `name:3` or `name@alias` means; NotFound otherwise."""
    match = REF.fullmatch(ref)
    if match is None:
        raise NotFound(f'No model "{ref}".', hint='Refer to a model as "name", "name:3" or "name@alias".')
    model = get_model(session, project, match["name"])
    if match["alias"]:
        return _by_alias(session, model, match["alias"])
    if match["number"]:
        return get_version(session, model, int(match["number"]))
    # Not the counter: the version made last may have been deleted.
    latest = session.scalar(select(func.max(VersionRecord.number)).where(VersionRecord.model_id == model.id))
    if latest is None:
        raise NotFound(f'Model "{model.name}" has no version any more.', hint="Train one, or name another model.")
    return get_version(session, model, latest)


def get_version(session: Session, model: ModelRecord, number: int) -> Version:
    """Return a model's version by number; NotFound otherwise."""
    record = session.scalar(
        select(VersionRecord).where(VersionRecord.model_id == model.id, VersionRecord.number == number)
    )
    if record is None:
        raise NotFound(
            f'Model "{model.name}" has no version {number}.',
            hint=f"List them with GET /api/v1/models/{model.name}/versions.",
        )
    return Version(record, model)


def by_id(session: Session, version_id: str) -> Version:
    """Return a version by its id; NotFound when it was deleted."""
    record = session.get(VersionRecord, version_id)
    if record is None:
        raise NotFound(f'No version "{version_id}" any more.', hint="List models with GET /api/v1/models.")
    return Version(record, session.get_one(ModelRecord, record.model_id))


def _by_alias(session: Session, model: ModelRecord, alias: str) -> Version:
    record = session.scalar(
        select(VersionRecord)
        .join(AliasRecord, AliasRecord.version_id == VersionRecord.id)
        .where(AliasRecord.model_id == model.id, AliasRecord.name == alias)
    )
    if record is None:
        raise NotFound(
            f'Model "{model.name}" has no alias "{alias}".',
            hint=f"Set it with PUT /api/v1/models/{model.name}/aliases/{alias}.",
        )
    return Version(record, model, alias)


def set_alias(session: Session, project: str, name: str, alias: str, number: int) -> Version:
    """Point an alias at a version, moving it if it exists."""
    version = get_version(session, get_model(session, project, name), number)
    _point(session, version.model.id, alias, version.record.id)
    return Version(version.record, version.model, alias)


def _point(session: Session, model_id: str, alias: str, version_id: str) -> None:
    move = (
        update(AliasRecord)
        .where(AliasRecord.model_id == model_id, AliasRecord.name == alias)
        .values(version_id=version_id, updated_at=database_now())
        .returning(AliasRecord.name)
    )
    if session.scalar(move) is not None:
        return
    try:
        with session.begin_nested():
            session.add(AliasRecord(model_id=model_id, name=alias, version_id=version_id))
            session.flush()
    except IntegrityError:  # somebody else made the same alias meanwhile
        session.execute(move)


def remove_alias(session: Session, project: str, name: str, alias: str) -> None:
    """Delete an alias; NotFound when there is none."""
    model = get_model(session, project, name)
    _by_alias(session, model, alias)
    session.execute(delete(AliasRecord).where(AliasRecord.model_id == model.id, AliasRecord.name == alias))


def aliases(session: Session, model_id: str) -> dict[str, int]:
    """Return a model's aliases and the version numbers they point at."""
    query = (
        select(AliasRecord.name, VersionRecord.number)
        .join(VersionRecord, AliasRecord.version_id == VersionRecord.id)
        .where(AliasRecord.model_id == model_id)
    )
    return {name: number for name, number in session.execute(query)}


def files(session: Session, version_id: str) -> dict[str, ArtifactRecord]:
    """Return a version's files by path."""
    query = (
        select(VersionFileRecord.path, ArtifactRecord)
        .join(ArtifactRecord, VersionFileRecord.sha256 == ArtifactRecord.sha256)
        .where(VersionFileRecord.version_id == version_id)
        .order_by(VersionFileRecord.path)
    )
    return {path: artifact for path, artifact in session.execute(query)}


def loadable(session: Session, version_id: str) -> dict[str, ArtifactRecord]:
    """Return those of a version's files that make the model, by path: all but what is only looked at."""
    return {path: file for path, file in files(session, version_id).items() if not path.startswith(PICTURES)}


def remove_version(session: Session, version: Version) -> None:
    """Delete a version that no alias, no gallery and no job's base points at; Conflict otherwise."""
    pointing = [name for name, number in aliases(session, version.model.id).items() if number == version.record.number]
    if pointing:
        raise Conflict(
            f'Version {version.ref} is what the alias "{pointing[0]}" points at.',
            hint="Move or delete the alias first.",
        )
    _require_no_gallery(session, version)
    try:
        with session.begin_nested():
            made = SampleEmbeddingRecord.version_id == version.record.id  # for a move that has not ended
            session.execute(delete(SampleEmbeddingRecord).where(made))
            session.execute(delete(VersionFileRecord).where(VersionFileRecord.version_id == version.record.id))
            session.delete(version.record)
            session.flush()
    except IntegrityError:
        _require_no_gallery(session, version)  # one may have begun to use it just now
        raise Conflict(f"Version {version.ref} is the base model of a job and stays for its lineage.") from None


def _require_no_gallery(session: Session, version: Version) -> None:
    query = select(GalleryRecord.name).where(GalleryRecord.version_id == version.record.id).order_by(GalleryRecord.id)
    name = session.scalar(query.limit(1))
    if name is not None:
        raise Conflict(
            f'Version {version.ref} is what the gallery "{name}" knows its subjects by.',
            hint="Move the gallery to another version, or delete it, first.",
        )
    moves = (
        select(GalleryRecord.name, JobRecord)
        .join(JobRecord, GalleryRecord.move_job_id == JobRecord.id)
        .where(GalleryRecord.project == version.model.project, JobRecord.state.not_in(TERMINAL))
    )
    for name, job in session.execute(moves):
        if (job.resolved or {})["version_id"] == version.record.id:
            raise Conflict(
                f'Version {version.ref} is what the gallery "{name}" is being moved to.',
                hint=f"Wait for job {job.id}, or cancel it, first.",
            )
