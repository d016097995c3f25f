"""How well a detector does: its scores beside the truth, as numbers with intervals and as tables by kind."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agnes.intervals import wilson
from agnes_zoo.bench.scans import Scan
from agnes_zoo.scoring import metrics

UNDECIDED = 0.5  # the probability of a model on which nothing was said


@dataclass(frozen=True)
class Row:
    """One model: what it is and what was said of it."""

    name: str
    arch: str
    data: str
    attack: str | None
    targets: tuple[int, ...]  # that its backdoor leads to
    scan: Scan

    @property
    def trojaned(self) -> bool:
        return self.attack is not None

    @property
    def probability(self) -> float:
        return UNDECIDED if self.scan.probability is None else self.scan.probability

    @property
    def right_target(self) -> bool | None:
        """Whether the first class that was named is one the backdoor leads to; None for a clean model."""
        return bool(self.scan.targets) and self.scan.targets[0] in self.targets if self.trojaned else None

    def as_json(self) -> dict[str, Any]:
        """A row of results.csv."""
        return {
            "model": self.name,
            "arch": self.arch,
            "data": self.data,
            "attack": self.attack or "clean",
            "trojaned": self.trojaned,
            "targets": " ".join(map(str, self.targets)) if len(self.targets) <= 3 else "any",
            "verdict": self.scan.status,
            "probability": self.scan.probability,
            "named": self.scan.targets[0] if self.scan.targets else None,
            "right_target": self.right_target,
            "seconds": self.scan.seconds,
            "memory_mib": None if self.scan.memory is None else round(self.scan.memory / 2**20),
            "reason": self.scan.reason,
        }


def rows(models: Mapping[str, Mapping[str, Any]], scans: Sequence[Scan]) -> list[Row]:
    """Truth and scans put together."""
    return [
        Row(scan.name, m["arch"], m["data"], m["attack"], tuple(m["targets"]), scan)
        for scan in scans
        for m in [models[scan.name]]
    ]


def summary(found: Sequence[Row], *, seed: int = 0, rounds: int = metrics.ROUNDS) -> dict[str, Any]:
    """All numbers of a bench of detection."""
    truth = np.array([row.trojaned for row in found], dtype=bool)
    scores = np.array([row.probability for row in found], dtype=float)
    right = np.array([bool(row.right_target) for row in found], dtype=float)
    called = np.array([row.scan.status == "backdoored" for row in found], dtype=float)
    measures: dict[str, metrics.Measure] = {
        "auc": lambda i: metrics.auc(scores[i], truth[i]),
        "tpr_at_0_fpr": lambda i: metrics.tpr_at(scores[i], truth[i], 0.0),
        "tpr_at_5_fpr": lambda i: metrics.tpr_at(scores[i], truth[i], 0.05),
        "brier": lambda i: metrics.brier(scores[i], truth[i]),
        "calibration_error": lambda i: metrics.calibration_error(scores[i], truth[i]),
        "target_accuracy": lambda i: mean(right[i][truth[i]]),
        "called_backdoored_of_trojaned": lambda i: mean(called[i][truth[i]]),
        "called_backdoored_of_clean": lambda i: mean(called[i][~truth[i]]),
    }
    everyone = np.arange(len(found))
    return {
        "models": len(found),
        "clean": int((~truth).sum()),
        "trojaned": int(truth.sum()),
        "inconclusive": sum(row.scan.status == "inconclusive" for row in found),
        "failed": sum(row.scan.status == "failed" for row in found),
        "without_probability": sum(row.scan.probability is None for row in found),
        "measures": {
            name: {"value": measure(everyone), "interval": metrics.interval(measure, truth, rounds=rounds, seed=seed)}
            for name, measure in measures.items()
        },
        "seconds": spread([row.scan.seconds for row in found]),
        "memory_mib": spread([None if row.scan.memory is None else row.scan.memory / 2**20 for row in found]),
        "by_attack": _by(found, lambda row: row.attack or "clean", seed, rounds),
        "by_arch": _by(found, lambda row: row.arch, seed, rounds),
        "by_data": _by(found, lambda row: row.data, seed, rounds),
    }


def _by(found: Sequence[Row], kind: Any, seed: int, rounds: int) -> list[dict[str, Any]]:
    """The same for each kind of model; the AUC of one attack is against all clean models."""
    clean = [row for row in found if not row.trojaned]
    names = sorted(set(map(kind, found)))
    return [_of_kind(name, [row for row in found if kind(row) == name], clean, seed, rounds) for name in names]


def _of_kind(name: str, group: Sequence[Row], clean: Sequence[Row], seed: int, rounds: int) -> dict[str, Any]:
    trojaned = [row for row in group if row.trojaned]
    against = [row for row in group if not row.trojaned] or list(clean)
    scores = np.array([row.probability for row in (*trojaned, *against)], dtype=float)
    truth = np.array([True] * len(trojaned) + [False] * len(against), dtype=bool)
    called = sum(row.scan.status == "backdoored" for row in group)

    def auc(drawn: np.ndarray) -> float | None:
        return metrics.auc(scores[drawn], truth[drawn])

    return {
        "name": name,
        "models": len(group),
        "trojaned": len(trojaned),
        "called_backdoored": called,
        "called_interval": wilson(called / len(group), len(group)),
        "inconclusive": sum(row.scan.status == "inconclusive" for row in group),
        "failed": sum(row.scan.status == "failed" for row in group),
        "mean_probability": mean([row.probability for row in group]),
        "auc": metrics.auc(scores, truth),
        "auc_interval": metrics.interval(auc, truth, rounds=rounds, seed=seed),
        "target_accuracy": mean([bool(row.right_target) for row in trojaned]),
        "seconds": spread([row.scan.seconds for row in group])["median"],
    }


def mean(values: Any) -> float | None:
    """The mean, or None of nothing."""
    return float(np.mean(values)) if len(values) else None


def spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """Median, largest and sum of what is known."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return {"median": None, "most": None, "sum": None}
    return {"median": statistics.median(known), "most": max(known), "sum": sum(known)}
