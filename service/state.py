"""What one API process has open, and how endpoints get at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from anyio import CapacityLimiter
from celery import Celery
from fastapi import Depends, Request

from service.changes import Changes
from service.deliveries import Deliverer
from service.event_stream import EventStreams
from service.known import Known
from service.predictors import Predictors
from service.settings import ServiceSettings
from store.artifacts import ArtifactStore
from store.database import Database
from store.parts import PartStore
from store.upkeep import Sweeper


@dataclass(frozen=True, slots=True)
class State:
    """The resources of one API process."""

    settings: ServiceSettings
    database: Database
    artifacts: ArtifactStore
    parts: PartStore
    celery: Celery
    sweeper: Sweeper
    deliverer: Deliverer
    known: Known
    predictors: Predictors
    changes: Changes
    streams: EventStreams
    pollers: CapacityLimiter  # threads that answer polls; more of them only wait for the interpreter's lock


async def get_state(request: Request) -> State:
    """Return the process's resources."""
    state: State = request.app.state.opened
    return state


Opened = Annotated[State, Depends(get_state)]
