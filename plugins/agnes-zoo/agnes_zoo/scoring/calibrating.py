"""Weights for what methods say, fitted on scans of a zoo: a logistic regression that no finding can speak against."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agnes.calibration import lifted
from agnes_zoo.scoring import metrics

Matrix = NDArray[np.float64]
Traits = Mapping[str, Mapping[str, float]]  # source -> name -> value

_RIDGE = 1.0  # how strongly weights are drawn to zero: as much as one more model would say against them
_STEPS = 4000  # of the descent
_LEAST_SPREAD = 0.05
_FALSE_ALARMS = 0.05  # share of clean models that may be convicted when left out, at most
_LEAST_THRESHOLD = 0.5
_DOUBT = 0.5  # of the threshold: a probability from there on does not acquit


@dataclass(frozen=True)
class Known:
    """A model of known truth and what a scan said of it."""

    name: str
    trojaned: bool
    traits: Traits


@dataclass(frozen=True)
class Fit:
    """Weights for some sources, and how they do on models left out one at a time."""

    sources: tuple[str, ...]
    intercept: float
    weights: Mapping[str, Mapping[str, tuple[float, float, float]]]  # source -> name -> weight, mean, spread
    threshold: float
    left_out: tuple[float, ...]  # each model's probability by a fit without it
    auc: float | None  # of these
    brier: float | None

    def as_json(self) -> dict[str, Any]:
        """As the calibration file holds it."""
        weights = {s: {n: [round(v, 6) for v in values] for n, values in of.items()} for s, of in self.weights.items()}
        return {
            "sources": list(self.sources),
            "intercept": round(self.intercept, 6),
            "weights": weights,
            "threshold": round(self.threshold, 4),
            "doubt": round(self.threshold * _DOUBT, 4),
            "left_out": {"auc": self.auc, "brier": self.brier},
        }


def every_fit(models: Sequence[Known]) -> list[Fit]:
    """A fit for each set of sources that all models were scanned with."""
    common = sorted(set.intersection(*(set(model.traits) for model in models)))
    together = _together(common)
    chosen = (
        tuple(sorted(itertools.chain(*subset)))
        for size in range(1, len(together) + 1)
        for subset in itertools.combinations(together, size)
    )
    return [fit(models, sources) for sources in chosen]


def _together(sources: Iterable[str]) -> list[tuple[str, ...]]:
    """Sources by method: those of one method come together."""
    return [tuple(group) for _, group in itertools.groupby(sources, key=lambda source: source.partition(":")[0])]


def fit(models: Sequence[Known], sources: tuple[str, ...]) -> Fit:
    """Weights for these sources, from all models; the threshold from models left out."""
    intercept, weights = _fitted(models, sources)
    left_out = []
    for place, model in enumerate(models):
        rest = [*models[:place], *models[place + 1 :]]
        left_out.append(_probability(model.traits, *_fitted(rest, sources)))
    scores, truth = np.array(left_out), np.array([model.trojaned for model in models], dtype=bool)
    threshold = _threshold(scores[~truth])
    auc, brier = metrics.auc(scores, truth), metrics.brier(scores, truth)
    return Fit(sources, intercept, weights, threshold, tuple(left_out), auc, brier)


def _threshold(clean: Matrix) -> float:
    """The least probability, a half or more, that convicts hardly any clean model."""
    allowed = math.floor(_FALSE_ALARMS * len(clean))
    above = np.sort(clean)[::-1]
    return max(_LEAST_THRESHOLD, float(above[allowed]) + 1e-4 if len(above) > allowed else 0.0)


def _fitted(
    models: Sequence[Known], sources: Sequence[str]
) -> tuple[float, dict[str, dict[str, tuple[float, float, float]]]]:
    """Intercept and weights; half of the models' weight is on clean ones, whatever their number."""
    clean = [model for model in models if not model.trojaned]
    names = [(source, name) for source in sources for name in models[0].traits[source]]
    scale = {(s, n): _scale([model.traits[s][n] for model in clean]) for s, n in names}
    x = np.array([[lifted(model.traits[s][n], *scale[s, n]) for s, n in names] for model in models])
    y = np.array([model.trojaned for model in models], dtype=float)
    weights, intercept = _descended(x, y)
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for (source, name), weight in zip(names, weights.tolist(), strict=True):
        found.setdefault(source, {})[name] = (weight, *scale[source, name])
    return intercept, found


def _scale(values: Sequence[float]) -> tuple[float, float]:
    """Mean and spread of what clean models show."""
    return statistics.fmean(values), max(statistics.stdev(values), _LEAST_SPREAD)


def _descended(x: Matrix, y: Matrix) -> tuple[Matrix, float]:
    """The weights, none below zero, and the intercept of the penalised logistic regression; by projected descent."""
    counts = {True: y.sum(), False: len(y) - y.sum()}
    each = np.where(y > 0, len(y) / 2 / counts[True], len(y) / 2 / counts[False])
    design = np.column_stack([x, np.ones(len(x))])
    penalty = np.append(np.full(x.shape[1], _RIDGE), 0.0)
    rate = 1 / (0.25 * float(np.linalg.norm(design * np.sqrt(each)[:, None], 2)) ** 2 + _RIDGE)
    weights = momentum = np.zeros(design.shape[1])
    for step in range(_STEPS):
        expected = 1 / (1 + np.exp(-np.clip(design @ momentum, -50, 50)))
        after = momentum - rate * (design.T @ (each * (expected - y)) + penalty * momentum)
        after[:-1] = np.maximum(after[:-1], 0)
        momentum = after + step / (step + 3) * (after - weights)
        weights = after
    return weights[:-1], float(weights[-1])


def _probability(
    traits: Traits, intercept: float, weights: Mapping[str, Mapping[str, tuple[float, float, float]]]
) -> float:
    odds = intercept + sum(
        weight * lifted(traits[source][name], mean, spread)
        for source, of in weights.items()
        for name, (weight, mean, spread) in of.items()
    )
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, odds))))
