"""A measured series with fewer points, as a plot needs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from store.records import MetricRecord


def downsample(points: Iterable[MetricRecord], most: int) -> list[MetricRecord]:
    """Return at most `most` points (4 or more) of each run and split, in the order of measurement.

    A step that a resumed attempt measured again counts once, as measured last. Of each series the first and the last
    point stay; those between are cut into equal groups, each of which keeps its lowest and its highest loss.
    """
    series: dict[tuple[str, str], dict[int, MetricRecord]] = {}
    for point in points:
        series.setdefault((point.run, point.split), {})[point.step] = point
    kept = [point for steps in series.values() for point in _few([steps[step] for step in sorted(steps)], most)]
    return sorted(kept, key=lambda point: point.id)


def _few(points: Sequence[MetricRecord], most: int) -> list[MetricRecord]:
    if len(points) <= most:
        return list(points)
    inner, groups = points[1:-1], (most - 2) // 2
    bounds = [len(inner) * index // groups for index in range(groups + 1)]
    extremes = {
        extreme.id: extreme
        for begin, end in pairwise(bounds)
        for extreme in (min(inner[begin:end], key=_height), max(inner[begin:end], key=_height))
    }
    return [points[0], *extremes.values(), points[-1]]


def _height(point: MetricRecord) -> float:
    values = [value for value in point.measured.values() if isinstance(value, int | float)]
    return float(point.measured.get("loss") or (values[0] if values else 0.0))
