"""Which models this process has in memory: load and pin one before it is asked, unload it, look at all of them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from service.computing import in_use
from service.dependencies import Authorization, ModelsKey, Scheme
from service.job_requests import Request
from service.known import Meaning
from service.predictions import PredictedBy
from service.predictors import Loaded
from service.state import Opened
from service.times import rfc3339

router = APIRouter(tags=["models"])


async def _meaning(ref: str, state: Opened, _: Scheme, authorization: Authorization = "") -> Meaning:
    return await state.known.of(authorization, ref, scope="models")


Meant = Annotated[Meaning, Depends(_meaning)]


SLOW = "This machine's processor has no bf16 instructions, and the model predicts in bf16: it is many times slower."


class LoadRequest(Request):
    """How a model is to be kept."""

    pin: bool | None = Field(None, description="Keep it whatever else is asked for; false lets it go again.")


class LoadedView(BaseModel):
    """A version in memory."""

    ref: str
    version_id: str
    bytes: int
    pinned: bool
    precision: str
    in_use: int
    loads: int
    load_ms: float
    loaded_at: str | None
    last_used_at: str | None
    requests: int
    rows: int
    batches: int

    @classmethod
    def of(cls, loaded: Loaded, loads: int) -> LoadedView:
        """Return the view."""
        counts = loaded.batcher.counts
        return cls(
            ref=loaded.ref,
            version_id=loaded.version_id,
            bytes=loaded.bytes,
            pinned=loaded.pinned,
            precision=loaded.predictor.design.precision,
            in_use=loaded.users,
            loads=loads,
            load_ms=loaded.load_ms,
            loaded_at=rfc3339(loaded.loaded_at),
            last_used_at=rfc3339(loaded.last_used),
            requests=counts.requests,
            rows=counts.rows,
            batches=counts.batches,
        )


class LoadResponse(BaseModel):
    """What was loaded, or was there already."""

    model: PredictedBy
    state: Literal["loaded", "cold"]
    load_ms: float
    pinned: bool
    bytes: int
    warnings: list[str]


@router.post("/models/{ref}/load")
async def load_model(state: Opened, meant: Meant, asked: LoadRequest | None = None) -> LoadResponse:
    """Load a version and warm it up, so that the first prediction finds it ready; `pin` keeps it there."""
    async with in_use(state, meant) as (loaded, load_ms):
        if asked is not None and asked.pin is not None:
            state.predictors.pin(loaded, asked.pin)
        return LoadResponse(
            model=PredictedBy.model_validate(meant.about),
            state="cold" if load_ms else "loaded",
            load_ms=load_ms,
            pinned=loaded.pinned,
            bytes=loaded.bytes,
            warnings=[
                "This machine's processor has no bf16 instructions, in which the model predicts: it will be slow."
            ]
            if loaded.predictor.is_slow
            else [],
        )


class UnloadResponse(BaseModel):
    """What was unloaded."""

    model: PredictedBy
    was_loaded: bool


@router.post("/models/{ref}/unload")
async def unload_model(state: Opened, meant: Meant) -> UnloadResponse:
    """Take a version out of memory, pinned or not; requests that it is answering are answered."""
    was_loaded = state.predictors.unload(meant.version_id)
    return UnloadResponse(model=PredictedBy.model_validate(meant.about), was_loaded=was_loaded)


class Ledger(BaseModel):
    """The memory for models in this process."""

    object: Literal["list"] = "list"
    data: list[LoadedView]
    budget_bytes: int
    used_bytes: int


@router.get("/models:loaded")
async def list_loaded_models(state: Opened, caller: ModelsKey) -> Ledger:
    """Return the project's versions that this process has in memory, the most recently used first."""
    ledger = state.predictors.ledger()
    return Ledger(
        data=[LoadedView.of(loaded, loads) for loaded, loads in ledger if loaded.project == caller.project],
        budget_bytes=state.predictors.budget_bytes,
        used_bytes=state.predictors.used_bytes,
    )
