"""Whether pretraining helped: the same network from scratch, measured on the same rows."""

from __future__ import annotations

import math
from typing import Any

from learning.interfaces import Task


def compare(task: Task, pretrained: dict[str, Any], scratch: dict[str, Any]) -> dict[str, Any]:
    """Return both runs' metrics on the best part there is to compare on, the gain, and a sentence that says it."""
    split = next(name for name in ("test", "validation", "train") if name in pretrained and name in scratch)
    ours, theirs = pretrained[split], scratch[split]
    score, other = float(ours[task.score] or 0.0), float(theirs[task.score] or 0.0)
    found = {
        "split": split,
        "rows": ours["rows"],
        "metric": task.score,
        "pretrained": ours,
        "scratch": theirs,
        "gain": score - other,
        "standard_error": _standard_error(task.score, other, int(ours["rows"])),
    }
    return {**found, "verdict": _verdict(found)}


def _standard_error(metric: str, value: float, rows: int) -> float | None:
    """Return the binomial standard error where the metric is a share of rows; None elsewhere."""
    return math.sqrt(max(value * (1 - value), 0.0) / rows) if metric == "accuracy" and rows else None


def _verdict(found: dict[str, Any]) -> str:
    metric, rows, gain, error = (found[name] for name in ("metric", "rows", "gain", "standard_error"))
    score, other = (float(found[run][metric] or 0.0) for run in ("pretrained", "scratch"))
    figures = f"{metric} {score:.4f} pretrained, {other:.4f} from scratch, on {rows} {found['split']} rows"
    if gain == 0:
        verdict = "made no difference"
    elif error is not None and abs(gain) <= error:
        verdict = f"made no difference that {rows} rows can show"
    else:
        verdict = "helped" if gain > 0 else "hurt"
    caution = " These are the rows it was trained on; hold some out to know." if found["split"] == "train" else ""
    return f"Pretraining {verdict}: {figures}.{caution}"
