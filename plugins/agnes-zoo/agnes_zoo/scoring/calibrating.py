"""What clean networks show, and how sure what lies above it makes one: fitted on scans of a zoo."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agnes.calibration import logistic, raised
from agnes.errors import UsageError
from agnes.traits import Trait
from agnes_zoo.scoring import metrics

Matrix = NDArray[np.float64]

_RIDGE = 1.0  # how strongly the weight is drawn to zero: as much as one more model would say against it
_STEPS = 100  # of Newton's
_NEAR = 1e-10
_LEAST_SPREAD = 0.03
_LEAST_THRESHOLD = 0.5
_DOUBT = 0.5  # of the threshold: a probability from there on does not acquit
_LEAST = 2  # networks of each kind: one is left out, and one remains


@dataclass(frozen=True)
class Known:
    """A model of known truth and what a scan said of it."""

    name: str
    trojaned: bool
    traits: Mapping[str, Trait]  # by source
    arch: str = ""
    data: str = ""

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Known:
        """As a calibration file lists it."""
        traits = {source: _read(source, of) for source, of in said["traits"].items()}
        return cls(said["name"], said["trojaned"], traits, said["arch"], said["data"])

    def as_json(self) -> dict[str, Any]:
        """As a calibration file lists it: a number for a trait of no class, a number for each class else."""
        return {
            "name": self.name,
            "trojaned": self.trojaned,
            "arch": self.arch,
            "data": self.data,
            "traits": {
                source: trait.value if set(trait.said) == {None} else dict(trait.said)
                for source, trait in self.traits.items()
            },
        }


def _read(source: str, said: float | Mapping[str, float]) -> Trait:
    if not isinstance(said, Mapping):
        return Trait(source, None, said)
    by_class = {int(each): value for each, value in said.items()}
    first = max(by_class, key=lambda each: by_class[each])
    return Trait(source, first, by_class[first], by_class)


@dataclass(frozen=True)
class Fit:
    """What clean models show by some sources, the weight of what lies above, and how that does on models left out."""

    clean: Mapping[str, tuple[float, float]]  # by source: mean and standard deviation
    intercept: float
    weight: float
    threshold: float
    left_out: tuple[float, ...]  # each model's probability by a fit without it
    auc: float | None  # of these
    brier: float | None

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(self.clean)

    @property
    def decides(self) -> bool:
        """Whether it acquits a network without findings and convicts some other, by the numbers in the file."""
        said = self.as_json()
        return logistic(said["intercept"]) < said["doubt"] and said["threshold"] < 1

    def as_json(self) -> dict[str, Any]:
        """As the calibration file holds it."""
        return {
            "clean": {source: [round(value, 6) for value in values] for source, values in self.clean.items()},
            "intercept": round(self.intercept, 6),
            "weight": round(self.weight, 6),
            "threshold": round(self.threshold, 4),
            "doubt": round(self.threshold * _DOUBT, 4),
            "left_out": {"auc": self.auc, "brier": self.brier},
        }


def every_fit(models: Sequence[Known]) -> list[Fit]:
    """A fit for each set of sources that all models were scanned with, where it decides.

    A fit is left out that could never acquit, as it doubts a network without any finding above the mean, or never
    convict, as its threshold is no probability: these sets of methods are not calibrated.
    """
    together = _together(_common(models))
    chosen = (
        tuple(sorted(itertools.chain(*subset)))
        for size in range(1, len(together) + 1)
        for subset in itertools.combinations(together, size)
    )
    found = [each for sources in chosen if (each := fit(models, sources)).decides]
    if not found:
        raise UsageError("no set of methods tells these networks apart well enough to acquit some and convict others")
    return found


def _common(models: Sequence[Known]) -> list[str]:
    """The sources that all models have; of enough models that each can be left out."""
    trojaned = sum(model.trojaned for model in models)
    clean = len(models) - trojaned
    if min(clean, trojaned) < _LEAST:
        raise UsageError(
            f"a calibration needs two clean and two trojaned networks at least: these are {clean} and {trojaned}"
        )
    common = set.intersection(*(set(model.traits) for model in models))
    if not common:
        raise UsageError("no method said something of every network")
    return sorted(common)


def _together(sources: Iterable[str]) -> list[tuple[str, ...]]:
    """Sources by method: those of one method come together."""
    return [tuple(group) for _, group in itertools.groupby(sources, key=lambda source: source.partition(":")[0])]


def fit(models: Sequence[Known], sources: tuple[str, ...]) -> Fit:
    """From all models by these sources; the threshold from models left out."""
    clean, intercept, weight = _fitted(models, sources)
    left_out = _left_out(models, sources, range(len(models)))
    scores, truth = np.array(left_out), np.array([model.trojaned for model in models], dtype=bool)
    auc, brier = metrics.auc(scores, truth), metrics.brier(scores, truth)
    return Fit(clean, intercept, weight, _threshold(models, sources, left_out), tuple(left_out), auc, brier)


def _left_out(models: Sequence[Known], sources: Sequence[str], kin: Sequence[Hashable]) -> list[float]:
    """Each model's probability by a fit without it and its kin; 0 where too few models would be left to fit on."""
    rest = {each: [model for model, of in zip(models, kin, strict=True) if of != each] for each in dict.fromkeys(kin)}
    fits = {each: _fitted(some, sources) for each, some in rest.items() if not _too_few(some)}
    found = []
    for model, each in zip(models, kin, strict=True):
        clean, intercept, weight = fits.get(each, ({}, -math.inf, 0.0))
        found.append(logistic(intercept + weight * _raised(model, clean)))
    return found


def _too_few(models: Sequence[Known]) -> bool:
    trojaned = sum(model.trojaned for model in models)
    return not models or trojaned in (0, len(models))


def _threshold(models: Sequence[Known], sources: Sequence[str], left_out: Sequence[float]) -> float:
    """The least probability, a half or more, that convicts no clean model that the fit has not seen the like of.

    Left out alone, with all of its architecture and with all of its data: what is scanned is of another architecture
    and of other data than the models here.
    """
    kin = [[model.arch for model in models], [model.data for model in models]]
    found = [left_out, *(_left_out(models, sources, each) for each in kin)]
    clean = [p for some in found for p, model in zip(some, models, strict=True) if not model.trojaned]
    return max(_LEAST_THRESHOLD, max(clean) + 1e-4)


def _fitted(models: Sequence[Known], sources: Sequence[str]) -> tuple[dict[str, tuple[float, float]], float, float]:
    """Means and standard deviations, the intercept and the weight; half of the models' weight is on clean ones."""
    clean = {source: _scale([m.traits[source].value for m in models if not m.trojaned]) for source in sources}
    x = np.array([_raised(model, clean) for model in models])
    y = np.array([model.trojaned for model in models], dtype=float)
    return clean, *_logistic_fit(x, y)


def _scale(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of what clean models show."""
    return statistics.fmean(values), max(statistics.pstdev(values), _LEAST_SPREAD)


def _raised(model: Known, clean: Mapping[str, tuple[float, float]]) -> float:
    """How far a model's findings lie above what clean models show."""
    return raised([model.traits[source] for source in clean], clean)


def _logistic_fit(x: Matrix, y: Matrix) -> tuple[float, float]:
    """Intercept and weight of the penalised logistic regression, by Newton's steps; the weight is not below zero."""
    each = np.where(y > 0, len(y) / 2 / y.sum(), len(y) / 2 / (len(y) - y.sum()))
    design, penalty = np.column_stack([np.ones(len(x)), x]), np.diag([0.0, _RIDGE])
    found = np.zeros(2)
    for _ in range(_STEPS):
        expected = 1 / (1 + np.exp(-design @ found))
        slope = design.T @ (each * (y - expected)) - penalty @ found
        curve = (design * (each * expected * (1 - expected))[:, None]).T @ design + penalty
        step = np.linalg.solve(curve, slope)
        found = found + step
        if np.abs(step).max() < _NEAR:
            break
    intercept, weight = found.tolist()
    return (intercept, weight) if weight > 0 else (0.0, 0.0)
