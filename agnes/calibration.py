"""From what methods say to a probability, by weights fitted on networks of known truth (`agnes bench calibrate`)."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from agnes.results import MethodRun
from agnes.traits import Trait

SCHEMA_VERSION = "1.0"


@dataclass(frozen=True)
class Weighing:
    """How the traits of some sources become a probability."""

    intercept: float
    weights: Mapping[str, Mapping[str, tuple[float, float, float]]]  # source -> value -> weight, mean and spread
    threshold: float  # a probability from it on convicts
    doubt: float  # a probability from it on does not acquit either

    def parts(self, traits: Sequence[Trait]) -> dict[str, float]:
        """What each source adds to the log odds, beyond what it says of an average clean network."""
        return {
            trait.source: sum(
                weight * lifted(trait.values[name], mean, spread)
                for name, (weight, mean, spread) in self.weights[trait.source].items()
            )
            for trait in traits
            if trait.source in self.weights
        }

    def probability(self, traits: Sequence[Trait]) -> float:
        """That the network holds a backdoor, where half of all networks do."""
        return self.alone(sum(self.parts(traits).values()))

    def alone(self, part: float) -> float:
        """The probability if this were all that is added to the log odds."""
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, self.intercept + part))))


@dataclass(frozen=True)
class Calibration:
    """All that one calibration holds: a weighing for every set of methods, and the settings they were run with."""

    weighings: Mapping[frozenset[str], Weighing]  # by sources
    settings: Mapping[str, Mapping[str, Any]]  # of each method

    def of(self, traits: Sequence[Trait], runs: Sequence[MethodRun]) -> Weighing | None:
        """The weighing for these traits; None where methods or settings are others than in the calibration."""
        sources = {s for weighing in self.weighings for s in weighing}
        known = [trait for trait in traits if trait.source in sources]
        changed = {run.name for run in runs if run.name in self.settings and _differs(run, self.settings[run.name])}
        usable = frozenset(t.source for t in known if t.source.partition(":")[0] not in changed)
        return self.weighings.get(usable) if len(usable) == len(known) else None


def _differs(run: MethodRun, settings: Mapping[str, Any]) -> bool:
    return run.status == "ok" and json.loads(json.dumps(dict(run.settings))) != settings


def lifted(value: float, mean: float, spread: float) -> float:
    """The logarithm of how many deviations it is above the clean mean; what is below speaks for nothing."""
    return math.log1p(max(0.0, (value - mean) / spread))


@functools.cache
def shipped() -> Calibration:
    """The calibration that comes with this version."""
    return parse(resources.files("agnes").joinpath("calibration.json").read_text(encoding="utf-8"))


def parse(text: str) -> Calibration:
    """A calibration file's text."""
    said = json.loads(text)
    weighings = {
        frozenset(each["sources"]): Weighing(
            each["intercept"],
            {s: {n: (v[0], v[1], v[2]) for n, v in values.items()} for s, values in each["weights"].items()},
            each["threshold"],
            each["doubt"],
        )
        for each in said["weighings"]
    }
    return Calibration(weighings, said["settings"])
