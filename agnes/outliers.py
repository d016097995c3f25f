"""How unusual the smallest of some numbers are, measured so that a few outliers cannot hide themselves."""

from __future__ import annotations

import bisect
import functools
import math
import statistics
from collections.abc import Sequence

import numpy as np

TO_DEVIATIONS = 1.4826  # a normal distribution's standard deviation, in median absolute deviations
_LEAST_SPREAD = 0.05  # logarithms of sizes this close count as equal
_LOW_SHARE = 4  # a quarter of the numbers may be outliers


class Low:
    """Numbers of which the low ones are suspected."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = sorted(values)
        self.median = statistics.median(self.values)
        spread = statistics.median(abs(v - self.median) for v in self.values)
        self.deviation = TO_DEVIATIONS * max(spread, _LEAST_SPREAD)

    def index(self, value: float) -> float:
        """How many deviations it lies below the true median (Neural Cleanse's anomaly index, on the low side)."""
        return (self.median - value) / self.deviation

    def gap(self, value: float) -> float:
        """The widest gap, in deviations, that sets it and what is lower apart from the rest; ours."""
        place, few = bisect.bisect_left(self.values, value), low_count(len(self.values))
        gaps = [self.values[i + 1] - self.values[i] for i in range(place, min(few, len(self.values) - 1))]
        return max(gaps, default=0.0) / self.deviation

    def by_chance(self, value: float) -> float:
        """How often as many normal numbers hold one that lies as low, or one set apart as far: the likelier of both."""
        index, gap = null(len(self.values))
        return max(_share_above(index, self.index(value)), _share_above(gap, self.gap(value)))


def low_count(count: int) -> int:
    """How many of the lowest numbers may be outliers together."""
    return max(1, count // _LOW_SHARE)


def _share_above(ordered: Sequence[float], value: float) -> float:
    above = len(ordered) - bisect.bisect_left(ordered, value)
    return (above + 1) / (len(ordered) + 1)


@functools.cache
def null(count: int) -> tuple[list[float], list[float]]:
    """The largest index and the widest low gap of many draws of `count` normal numbers, each sorted."""
    draws = math.ceil(max(2_000, min(20_000, 2_000_000 / count)))
    values = np.sort(np.random.default_rng(0).standard_normal((draws, count)), axis=1)
    median = np.median(values, axis=1)
    deviation = TO_DEVIATIONS * np.median(np.abs(values - median[:, None]), axis=1)
    gaps = np.diff(values[:, : low_count(count) + 1], axis=1)
    return np.sort((median - values[:, 0]) / deviation).tolist(), np.sort(gaps.max(1) / deviation).tolist()
