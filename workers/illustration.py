"""The pictures of a trained model, drawn once it is measured and kept beside its files."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from learning.capabilities import Illustrated, Judged
from learning.preparation import Prepared
from learning.training import Outcome
from store.models import PICTURES

# A picture with more is left out: it would be no small file beside a model any more.
_MOST_BYTES = 4 << 20


def draw(prepared: Prepared, outcome: Outcome, directory: Path) -> list[str]:
    """Write the pictures there are below a model's directory; return what to warn about.

    A model that is trained and measured is worth more than its pictures, so whatever goes wrong here is only told.
    """
    task = prepared.design.task
    if outcome.judged is None or not isinstance(task, Illustrated):
        return []
    part, measured = outcome.judged
    judged = Judged(part, measured.predictions, measured.targets, prepared.rows[part])
    target = directory / PICTURES
    try:
        for name, svg in task.pictures(judged, prepared.design.inputs, prepared.design.targets):
            if len(content := svg.encode()) <= _MOST_BYTES:
                target.mkdir(exist_ok=True)
                (target / f"{name}.svg").write_bytes(content)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return [f"Some pictures of the model could not be drawn: {type(error).__name__}: {error}"]
    return []
