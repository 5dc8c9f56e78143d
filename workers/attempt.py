"""The supervision of one attempt: messages in, heartbeats out, commands through, and an end in every case."""

from __future__ import annotations

import base64
import json
import math
import queue
import threading
import time
from enum import Enum
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError

from store import attempts, checkpoints, gallery_moves
from store.attempts import Measurement, Orders
from store.checkpoints import NewCheckpoint, Retention
from store.errors import Fenced
from store.records import JobRecord
from store.states import CancelMode, State
from store.token import Token
from workers.assignment import log_path
from workers.context import Context
from workers.protocol import EXPECTED_ERROR, NO_ROOM, RESUMABLE, STOPPED_AT_CHECKPOINT, Assignment
from workers.silence import Silence
from workers.supervision import Child

log = structlog.get_logger(__name__)

GUARD_S = 0.2


class Ending(Enum):
    """How an attempt ended."""

    FINISHED = "finished"
    STOPPED = "stopped at a checkpoint"
    OUT_OF_TIME = "stopped at a checkpoint because its time was over"
    NO_ROOM = "could not write its files"
    REFUSED = "refused by an expected error"
    CRASHED = "crashed"


class Attempt:
    """One child process and what it has said so far."""

    def __init__(self, context: Context, token: Token, given: Assignment) -> None:
        self._context = context
        self._token = token
        self._given = given
        self._child: Child
        self._progress: dict[str, Any] | None = None
        self._metrics = _measured_before(context, token)
        self._measurements: list[Measurement] = []
        self._stop_by: float | None = None
        self._resumable = False  # whether there is anything that a checkpoint could keep
        self._time_is_over = _deadline(context, token, given)
        self._out_of_time = False
        self._silence = Silence(context.settings.lease_s)
        policy = given.spec.get("checkpointing") or {}
        self._retention = Retention(**{name: policy[name] for name in ("keep_last", "keep_best") if name in policy})
        self.result: dict[str, Any] = {}
        self.error: dict[str, Any] = {}
        self.reason = ""
        self._trouble = ""

    def supervise(self) -> Ending:
        """Run the child to its end; raises Fenced, with the child dead, when the job is lost to another worker."""
        self._child = Child(self._given, log_path(self._context.settings, self._token), self._context.starter)
        over = threading.Event()
        threading.Thread(target=self._guard_lease, args=(over,), name="lease guard", daemon=True).start()
        try:
            while (message := self._next_message()) is not None:
                self._hear(message)
            code = self._child.wait()
            self._report()  # only that: what has ended cannot be asked for anything
        except BaseException:
            self._child.kill()
            self._child.wait()
            raise
        finally:
            over.set()
        return self._ending(code)

    def _guard_lease(self, over: threading.Event) -> None:
        """Kill the child when no heartbeat has come through for almost a lease, also while one hangs for ever."""
        while not over.wait(GUARD_S):
            if self._silence.is_too_long():
                log.warning("no heartbeat came through for almost a lease; the child is killed", job=self._token.job_id)
                self._child.kill()
                return

    def _next_message(self) -> dict[str, Any] | None:
        """Return the child's next message, beating the heart meanwhile; None once its output has ended."""
        while True:
            due_in = self._context.settings.heartbeat_s - self._silence.seconds()
            if due_in <= 0:
                self._beat()
                self._escalate()
                continue
            try:
                return self._child.messages.get(timeout=due_in)
            except queue.Empty:
                continue

    def _beat(self) -> None:
        """Beat the heart, and obey the state that comes back."""
        orders = self._report()
        if orders is not None:
            self._obey(orders)

    def _report(self) -> Orders | None:
        """Extend the lease, hand over what was heard, and return what is asked; None while the database is away."""
        try:
            with self._context.database.write() as session:
                orders = attempts.heartbeat(
                    session,
                    self._token,
                    self._context.settings.lease_s,
                    progress=self._progress,
                    metrics=self._metrics if self._measurements else None,
                    measurements=self._measurements,
                )
        except DBAPIError as error:
            if self._silence.is_too_long():
                raise Fenced("The database could not be reached for almost a whole lease.") from error
            log.warning("heartbeat failed; will try again", error=str(error.orig))
            time.sleep(min(0.5, self._context.settings.heartbeat_s))
            return None
        self._silence.end()
        self._progress, self._measurements = None, []
        return orders

    def _obey(self, orders: Orders) -> None:
        if orders.state is State.CANCELLING and orders.cancel_mode is CancelMode.DISCARD:
            self.reason = "cancelled"
            self._child.kill()
        elif orders.state is State.CANCELLING:
            self._ask_to_stop("cancelled")
        elif orders.state is State.PAUSING:
            self._ask_to_stop("paused")
        elif self._context.drain.requested():
            self._ask_to_stop("the worker is shutting down")
        elif time.monotonic() > self._time_is_over:
            self._out_of_time = True
            self._ask_to_stop("its time is over")

    def _ask_to_stop(self, reason: str) -> None:
        if not self._resumable:
            # Nothing is lost by killing it: what it had, it can read again.
            self.reason = reason
            self._child.kill()
        elif self._stop_by is None:
            self.reason = reason
            self._stop_by = time.monotonic() + self._context.settings.stop_grace_s
            self._child.stop()

    def _escalate(self) -> None:
        if self._stop_by is not None and time.monotonic() > self._stop_by:
            log.warning("the child did not stop in time and is killed", job=self._token.job_id)
            self._child.kill()

    def _ending(self, code: int) -> Ending:
        if code == 0 and self.result:
            return Ending.FINISHED
        if code == EXPECTED_ERROR and self.error:
            return Ending.REFUSED
        if self._out_of_time:
            return Ending.OUT_OF_TIME
        if code == STOPPED_AT_CHECKPOINT or self.reason:
            # Killed because it was asked to stop: no failure, it goes on from the last checkpoint that was published.
            self.reason = self.reason or "stopped"
            return Ending.STOPPED
        if code == NO_ROOM:
            self.reason = f"its files could not be written{self._trouble}"
            return Ending.NO_ROOM
        self.reason = f"its process died with {_describe(code)}{self._trouble}"
        return Ending.CRASHED

    def _hear(self, message: dict[str, Any]) -> None:
        kind = message.pop("type", None)
        if kind == "progress":
            self._progress = message
            self._resumable = message.get("phase") in RESUMABLE
        elif kind == "metrics":
            self._measure(message)
        elif kind == "checkpoint":
            self._publish_checkpoint(message)
        elif kind == "embeddings":
            self._keep_embeddings(self._path(message["file"]))
        elif kind == "resolved":
            with self._context.database.write() as session:
                attempts.describe(session, self._token, message["environment"], message["spec"])
        elif kind == "result":
            self.result = message
        elif kind == "error":
            self.error = message["error"]
        elif kind == "trouble":
            self._trouble = f": {message['reason']}"

    def _measure(self, message: dict[str, Any]) -> None:
        point = Measurement(**message)
        self._measurements.append(point)
        numbers = {name: value for name, value in point.values.items() if isinstance(value, int | float)}
        self._metrics["latest"].setdefault(point.run, {})[point.split] = {"step": point.step, **numbers}
        best = self._metrics["best"].setdefault(point.run, {}).get(point.split)
        if best is None or numbers.get("loss", float("inf")) < best.get("loss", float("inf")):
            self._metrics["best"][point.run][point.split] = {"step": point.step, **numbers}

    def _publish_checkpoint(self, message: dict[str, Any]) -> None:
        stored = {path: self._context.artifacts.add(self._path(path)) for path in message["files"]}
        with self._context.database.write() as session:
            for artifact in stored.values():
                self._context.artifacts.register(session, artifact)
            new = NewCheckpoint(
                run=message["run"],
                step=message["step"],
                files={path.rsplit("/", 1)[-1]: artifact.sha256 for path, artifact in stored.items()},
                finished=message["finished"],
                score=message["score"],
                metrics=message["metrics"],
            )
            checkpoints.publish(session, self._token, new, self._retention)
        for path in stored:  # the child writes them under a new name each time
            self._path(path).unlink(missing_ok=True)

    def _keep_embeddings(self, path: Path) -> None:
        found = {sample: base64.b64decode(vector) for sample, vector in json.loads(path.read_bytes()).items()}
        with self._context.database.write() as session:
            gallery_moves.keep(session, self._token, found)
        path.unlink()

    def _path(self, relative: str) -> Path:
        return Path(self._given.directory) / relative


def _deadline(context: Context, token: Token, given: Assignment) -> float:
    """Return when the job's time is over, by this process's clock; what earlier attempts took counts."""
    if given.max_runtime_s is None:
        return math.inf
    with context.database.read() as session:
        return time.monotonic() + given.max_runtime_s - attempts.seconds_before(session, token)


def _measured_before(context: Context, token: Token) -> dict[str, Any]:
    # An attempt that resumes measures only what comes after; the best may lie before.
    with context.database.read() as session:
        return session.get_one(JobRecord, token.job_id).metrics or {"latest": {}, "best": {}}


def _describe(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
