"""How many positions a batch has at most, found by measuring the batches that are computed anyway.

Up to some size a larger batch is faster, since it shares what each costs; from some size on it is slower, since what
one layer leaves for the next has left the processor's caches. Where that is depends on the network, the arithmetic and
the machine: for a ResNet-18 at eight pictures of 224 pixels, at hundreds of 32. So now and then, when more waits than
fits, a batch is somewhat larger or smaller than the best size known, and the costs of a position are compared.
"""

from __future__ import annotations

START, FACTOR = 4096, 1.5
# In steps of FACTOR from START. Beyond the last a batch only takes longer.
SMALLEST, LARGEST = -5, 3
# One of so many full batches tries another size; a size counts once it was measured so often.
TRY_EVERY, ENOUGH = 8, 3
# A batch of fewer of the positions it might have had says nothing about that size.
FULL = 0.75
# Of sizes about as fast the smallest is the best: with it nobody waits longer than for speed's sake.
ABOUT_AS_FAST = 1.03
_NEWEST = 0.25  # the weight of a measurement in the mean


class BatchSize:
    """The best size known of one batcher's batches; belongs to the event loop, as the batcher does."""

    def __init__(self) -> None:
        self._best = 0
        self._costs: dict[int, float] = {}  # seconds of a position, by size
        self._measured: dict[int, int] = {}
        self._full_batches = 0
        self._tried = -1

    @property
    def best(self) -> int:
        """The best size known, in positions."""
        return _positions(self._best)

    @property
    def most(self) -> int:
        """The most positions that the next batch may have."""
        return _positions(min(self._best + 1, LARGEST))

    def next(self, waiting: int) -> int:
        """Return how many positions the next batch may have while so many wait."""
        if waiting < self.best:
            return self.best
        self._full_batches += 1
        if self._full_batches % TRY_EVERY:
            return self.best
        self._tried = -self._tried
        other = min(max(self._best + self._tried, SMALLEST), LARGEST)
        return _positions(other) if _positions(other) <= waiting else self.best

    def learn(self, allowed: int, positions: int, seconds: float) -> None:
        """Take note of what a batch has cost that was allowed so many positions."""
        if not FULL * allowed <= positions <= allowed:
            return
        size = next(one for one in range(SMALLEST, LARGEST + 1) if _positions(one) >= allowed)
        cost = seconds / positions
        before = self._costs.get(size, cost)
        self._costs[size] = before + _NEWEST * (cost - before)
        self._measured[size] = self._measured.get(size, 0) + 1
        known = [one for one, count in self._measured.items() if count >= ENOUGH]
        if known:
            least = min(self._costs[one] for one in known)
            self._best = min(one for one in known if self._costs[one] <= ABOUT_AS_FAST * least)


def _positions(size: int) -> int:
    return int(START * FACTOR**size)
