"""Whether there is a device for a job: known as long as a worker says of itself what it computes on."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from learning.errors import InvalidConfig
from store import queue, workers
from store.records import WorkerRecord


def check_device(session: Session, wanted: str) -> None:
    """Raise when a job wants a GPU and every training worker that is online has none; with no worker it may wait."""
    if wanted != "cuda":
        return
    online = select(WorkerRecord.device).where(workers.online, workers.serves(queue.TRAIN))
    devices = session.scalars(online).all()
    if devices and not any(device.get("gpus") for device in devices):
        raise InvalidConfig(
            f"No worker that is online has a CUDA device ({len(devices)} without).",
            hint='Set resources.device to "auto" or "cpu", or start a worker on a GPU machine first.',
            param="resources.device",
        )
