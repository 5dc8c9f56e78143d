"""The child process of an attempt: reads its assignment, does the work, says what happens, dies with its supervisor.

This is where torch is imported. It knows nothing of the database and the broker.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import traceback
from typing import Any

from learning.errors import LearningError
from store.jobs import IMPORT, INGEST, MOVE, PREDICT
from workers.protocol import EXPECTED_ERROR, NO_ROOM, STOP, STOPPED_AT_CHECKPOINT, Assignment


class Channel:
    """The child's side of the pipe."""

    def __init__(self) -> None:
        # Messages go out on a private copy, so that a library that prints cannot garble them.
        self._output = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._lock = threading.Lock()
        self.stop_requested = False
        self.assignment = Assignment.from_line(sys.stdin.readline())
        threading.Thread(target=self._listen, name="commands", daemon=True).start()

    def send(self, kind: str, **message: Any) -> None:
        """Say something."""
        with self._lock:
            self._output.write(json.dumps({"type": kind, **message}, allow_nan=False) + "\n")

    def _listen(self) -> None:
        for line in sys.stdin:
            if json.loads(line).get("command") == STOP:
                self.stop_requested = True
        # The end of the input means that the supervisor is gone: nobody would hear what comes of this.
        os._exit(1)


def main() -> int:
    """Do the assignment; returns the exit code."""
    channel = Channel()
    try:
        return _do(channel)
    except LearningError as error:
        channel.send("error", error={**error.to_dict(), "description": error.description})
    except MemoryError:
        channel.send("error", error=_out_of_memory())
    except OSError as error:
        channel.send("trouble", reason=error.strerror or type(error).__name__)
        traceback.print_exc()
        return NO_ROOM if error.errno in (errno.ENOSPC, errno.EDQUOT) else 1
    except Exception:
        traceback.print_exc()
        return 1
    return EXPECTED_ERROR


def _do(channel: Channel) -> int:
    """Do what the kind of the job asks for; each imports what it needs alone."""
    if channel.assignment.kind == INGEST:
        from workers.ingestion_run import run_ingestion

        return run_ingestion(channel)
    if channel.assignment.kind == IMPORT:
        from workers.import_run import run_import

        return run_import(channel)
    if channel.assignment.kind == PREDICT:
        from workers.prediction_run import run_prediction

        return 0 if run_prediction(channel) else STOPPED_AT_CHECKPOINT
    if channel.assignment.kind == MOVE:
        from workers.move_run import run_move

        return 0 if run_move(channel) else STOPPED_AT_CHECKPOINT
    from workers.training_run import run_training

    return 0 if run_training(channel) else STOPPED_AT_CHECKPOINT


def _out_of_memory() -> dict[str, Any]:
    return {
        "code": "out_of_memory",
        "message": "The job needs more memory than its process may use.",
        "hint": "Send fewer or narrower rows or a smaller model, or lower hyperparameters.batch_size.",
        "param": None,
        "retryable": False,
    }


def run() -> None:
    """Do the assignment and end the process."""
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: the listening thread holds stdin, and joining native thread pools takes longer than the work.
    os._exit(code)


if __name__ == "__main__":
    run()
