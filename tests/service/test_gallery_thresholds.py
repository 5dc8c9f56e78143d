"""Where a gallery's threshold is chosen from."""

from __future__ import annotations

import numpy as np

from service import gallery_thresholds as thresholds
from store.galleries import Known


def test_an_evaluation_counts_by_itself_only_when_its_subjects_were_new() -> None:
    point = {"false_accept_rate": 0.01, "threshold": 0.4, "true_accept_rate": 0.9}
    held = {"thresholds": [point], "pairs": {"same": 200, "different": 300}, "new_subjects": 0}
    known = [Known(str(n), f"sub_{n}", str(n), "", np.eye(4, dtype="<f4")[n].tobytes()) for n in range(4)]
    by_itself = thresholds.chosen(thresholds.asked_from("auto", 0.2), {"validation": held}, lambda: known)
    assert by_itself is not None
    assert (by_itself["source"], by_itself["new_subjects"]) == ("enrolled", None)
    asked = thresholds.chosen(thresholds.asked_from("evaluation", 0.2), {"validation": held}, lambda: known)
    assert asked is not None
    assert (asked["source"], asked["value"], asked["new_subjects"]) == ("evaluation", 0.4, 0)
    mixed = thresholds.chosen(
        thresholds.asked_from("auto", 0.2), {"validation": held | {"new_subjects": 3}}, lambda: known
    )
    assert mixed is not None
    assert (mixed["source"], mixed["new_subjects"]) == ("evaluation", 3)
