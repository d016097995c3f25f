"""How well probabilities tell trojaned models from clean ones, and how sure of that one may be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]  # one a model; higher speaks for a backdoor
Truth = NDArray[np.bool_]  # whether each model is trojaned
Measure = Callable[[NDArray[np.int64]], float | None]  # of the models at these indices

BINS = 10  # of the calibration error, equally wide
ROUNDS = 2000  # of the bootstrap
LEVEL = 0.95  # of its intervals


def auc(scores: Scores, truth: Truth) -> float | None:
    """The chance that a trojaned model scores above a clean one, a tie counting half; None without both kinds."""
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return None
    rank_sum = midranks(scores)[truth].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def midranks(values: Scores) -> Scores:
    """The rank of each value from 1, equal values sharing the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def roc(scores: Scores, truth: Truth) -> tuple[Scores, Scores]:
    """False and true positive rates at every threshold, from none called trojaned to all; ties fall together."""
    positives, negatives = max(int(truth.sum()), 1), max(int((~truth).sum()), 1)
    values = np.unique(scores)[::-1]
    called = scores[None, :] >= values[:, None]
    tpr = (called & truth).sum(1) / positives
    fpr = (called & ~truth).sum(1) / negatives
    return np.concatenate([[0.0], fpr]), np.concatenate([[0.0], tpr])


def tpr_at(scores: Scores, truth: Truth, most: float) -> float | None:
    """The largest true positive rate of a threshold whose false positive rate is at most so much."""
    if truth.all() or not truth.any():
        return None
    fpr, tpr = roc(scores, truth)
    return float(tpr[fpr <= most + 1e-12].max())


def brier(scores: Scores, truth: Truth) -> float | None:
    """The mean squared difference between probability and truth."""
    return float(((scores - truth) ** 2).mean()) if len(scores) else None


def calibration(scores: Scores, truth: Truth, bins: int = BINS) -> list[tuple[float, float, int]]:
    """For each bin that holds a model: mean probability, share trojaned, and how many."""
    which = np.minimum((scores * bins).astype(np.int64), bins - 1)
    found = []
    for number in range(bins):
        inside = which == number
        if inside.any():
            found.append((float(scores[inside].mean()), float(truth[inside].mean()), int(inside.sum())))
    return found


def calibration_error(scores: Scores, truth: Truth, bins: int = BINS) -> float | None:
    """Expected calibration error: |mean probability - share trojaned| over the bins, weighted by their models."""
    if not len(scores):
        return None
    return float(sum(abs(p - share) * count for p, share, count in calibration(scores, truth, bins)) / len(scores))


def interval(
    measure: Measure, strata: NDArray, *, rounds: int = ROUNDS, level: float = LEVEL, seed: int = 0
) -> tuple[float, float] | None:
    """The middle of what the measure comes to on models drawn again, each stratum as many times as it has models."""
    groups = [np.flatnonzero(strata == value) for value in np.unique(strata)]
    if not groups or rounds < 1:
        return None
    rng = np.random.default_rng(seed)
    drawn = [np.concatenate([rng.choice(group, len(group)) for group in groups]) for _ in range(rounds)]
    found = [value for value in map(measure, drawn) if value is not None]
    if not found:
        return None
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
