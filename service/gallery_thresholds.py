"""At which score two files count as of one subject: chosen at a stated false accept rate, and from what is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from service.errors import ApiError
from service.library import importing
from store.galleries import AUTO, ENROLLED, EVALUATION, GIVEN, Known

# Validation pairs first: test pairs are for reporting, but better than none.
_SPLITS = ("validation", "test")

AskedThreshold = Annotated[float, Field(ge=-1, le=1)] | Literal["auto", "evaluation", "enrolled"]
FalseAcceptRate = Annotated[float, Field(gt=0, le=0.5)]


class ThresholdView(BaseModel):
    """A threshold, the false accept rate it was chosen at, and the pairs that it was chosen by."""

    value: float
    source: Literal["evaluation", "enrolled", "given"]
    false_accept_rate: float | None
    true_accept_rate: float | None
    split: str | None
    pairs: dict[str, int] | None
    new_subjects: int | None = Field(
        None, description="Of an evaluation: subjects that training did not know. With none, strangers exceed the rate."
    )


def asked_from(threshold: float | str, false_accept_rate: float) -> dict[str, Any]:
    """Return what was asked for, as a gallery keeps it."""
    if isinstance(threshold, str):
        return {"source": threshold, "false_accept_rate": false_accept_rate}
    return {"source": GIVEN, "value": float(threshold), "false_accept_rate": false_accept_rate}


def changed(asked: Mapping[str, Any], threshold: float | str | None, rate: float | None) -> dict[str, Any]:
    """Return what is asked for once some of it is to be something else."""
    source = asked.get("value", asked["source"]) if threshold is None else threshold
    return asked_from(source, rate or asked["false_accept_rate"])


def require_possible(asked: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    """Raise 422 for a threshold that can never be had from a version of these metrics."""
    chosen(asked, metrics, list)


def chosen(
    asked: Mapping[str, Any], metrics: Mapping[str, Any], known: Callable[[], Sequence[Known]]
) -> dict[str, Any] | None:
    """Return the threshold that was asked for; None while there are too few pairs to choose it by.

    `metrics` are those of the gallery's version, by part; `known` reads what is enrolled, where that counts. Of the
    false accept rates that an evaluation has thresholds for, the highest counts that is not above the one asked for. An
    evaluation of subjects that training knew counts only when asked for by name: pairs of strangers are accepted more
    often.
    """
    source, rate = asked["source"], asked["false_accept_rate"]
    if source == GIVEN:
        return _threshold(asked["value"], GIVEN)
    found = _by_evaluation(metrics, rate, source) if source in (AUTO, EVALUATION) else None
    if found is None and source == EVALUATION:
        raise ApiError(
            422,
            "no_validation_pairs",
            f"The model's evaluation has no threshold for a false accept rate of {rate:g}: too few pairs of two "
            "subjects were held out.",
            hint='Set threshold to "enrolled" or to a number, raise false_accept_rate, or train with a validation part '
            "that has several files of several subjects.",
            param="threshold",
        )
    return found or _by_enrolled(known(), rate)


def kept(
    asked: Mapping[str, Any], metrics: Mapping[str, Any], known: Callable[[], Sequence[Known]]
) -> dict[str, Any] | None:
    """Return the threshold that was asked for; None also when the gallery has moved to where it cannot be had."""
    try:
        return chosen(asked, metrics, known)
    except ApiError:
        return None


def _by_evaluation(metrics: Mapping[str, Any], rate: float, source: str) -> dict[str, Any] | None:
    for split in _SPLITS:
        measured = metrics.get(split) or {}
        if source == AUTO and not measured.get("new_subjects"):
            continue
        fitting = [point for point in measured.get("thresholds") or () if point["false_accept_rate"] <= rate + 1e-9]
        if fitting:
            best = max(fitting, key=lambda point: float(point["false_accept_rate"]))
            return {
                **_threshold(best["threshold"], EVALUATION),
                "false_accept_rate": best["false_accept_rate"],
                "true_accept_rate": best["true_accept_rate"],
                "split": split,
                "pairs": measured["pairs"],
                "new_subjects": measured.get("new_subjects"),
            }
    return None


def _by_enrolled(known: Sequence[Known], rate: float) -> dict[str, Any] | None:
    if not known:
        return None
    with importing:
        import torch

        from learning import verification

    vectors_NE = np.stack([np.frombuffer(one.embedding, "<f4") for one in known])
    number = {subject: position for position, subject in enumerate({one.subject_id for one in known})}
    subject_N = torch.tensor([number[one.subject_id] for one in known])
    found = verification.pairs(torch.from_numpy(vectors_NE), subject_N)
    points = verification.operating_points(found, (rate,))
    if not points:
        return None
    return {
        **_threshold(points[0].threshold, ENROLLED),
        "false_accept_rate": rate,
        "true_accept_rate": points[0].true_accept_rate,
        "pairs": {"same": len(found.genuine_G), "different": len(found.impostor_I)},
    }


def _threshold(value: float, source: str) -> dict[str, Any]:
    return {
        "value": value,
        "source": source,
        "false_accept_rate": None,
        "true_accept_rate": None,
        "split": None,
        "pairs": None,
        "new_subjects": None,
    }
