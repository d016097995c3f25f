"""From what methods say to a probability, by comparison with networks of known truth (`agnes bench calibrate`).

A backdoor shows to the method that looks for its kind, and to the others it looks like nothing. So what counts is how
far findings lie above what clean networks show, each squared, so that the furthest counts most; what lies below speaks
for nothing. Findings count together for one class: methods that point to different ones do not agree on a backdoor.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from agnes.errors import Refused
from agnes.results import MethodRun
from agnes.traits import Trait

SCHEMA_VERSION = "5.0"


@dataclass(frozen=True)
class Weighing:
    """How the traits of some sources become a probability."""

    clean: Mapping[str, tuple[float, float]]  # of each source: mean and standard deviation over clean networks
    intercept: float
    weight: float
    threshold: float  # a probability from it on convicts
    doubt: float  # a probability from it on does not acquit either

    def above(self, trait: Trait) -> float:
        """How many standard deviations a trait lies above the mean of clean networks."""
        return deviations(trait.value, *self.clean[trait.source])

    def ordered(self, traits: Sequence[Trait]) -> list[Trait]:
        """Those it knows, the strongest first."""
        return sorted((t for t in traits if t.source in self.clean), key=self.above, reverse=True)

    def probability(self, traits: Sequence[Trait]) -> float:
        """That the network holds a backdoor, where half of all networks do; by all of the traits."""
        return logistic(self.intercept + self.weight * raised(self.ordered(traits), self.clean))

    def by_class(self, traits: Sequence[Trait]) -> dict[int | None, float]:
        """How far what is said of each class lies above clean networks; of None, what is said of none."""
        return deviating(self.ordered(traits), self.clean)

    def alone(self, trait: Trait) -> float:
        """The probability if all other traits were as clean networks' are."""
        return self.probability([trait])


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
        usable = frozenset(t.source for t in known if t.method not in changed)
        return self.weighings.get(usable) if len(usable) == len(known) else None


def _differs(run: MethodRun, settings: Mapping[str, Any]) -> bool:
    return run.status == "ok" and json.loads(json.dumps(dict(run.settings))) != settings


def deviations(value: float, middle: float, spread: float) -> float:
    """How many spreads a value lies above the middle."""
    return (value - middle) / spread


def deviating(traits: Sequence[Trait], clean: Mapping[str, tuple[float, float]]) -> dict[int | None, float]:
    """How far what is said of each class lies above what clean networks show, and, of None, what is said of none.

    By the root of the squares.
    """
    above: dict[int | None, list[float]] = {None: []}
    for trait in traits:
        for each, value in trait.said.items():
            above.setdefault(each, []).append(max(0.0, deviations(value, *clean[trait.source])))
    return {each: math.hypot(*some) for each, some in above.items()}


def raised(traits: Sequence[Trait], clean: Mapping[str, tuple[float, float]]) -> float:
    """How far traits lie above clean networks for the class that they speak for most, as a logarithm.

    What is said of no class counts for every one.
    """
    by_class = deviating(traits, clean)
    of_none = by_class.pop(None)
    return math.log1p(math.hypot(of_none, max(by_class.values(), default=0.0)))


def logistic(odds: float) -> float:
    """From log odds to a probability."""
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, odds))))


@functools.cache
def shipped() -> Calibration:
    """The calibration that comes with this version."""
    return parse(resources.files("agnes").joinpath("calibration.json").read_text(encoding="utf-8"))


def parse(text: str) -> Calibration:
    """A calibration file's text; one that was made for other traits than today's would be misread."""
    said = json.loads(text)
    version = said.get("schema_version")
    if version != SCHEMA_VERSION:
        raise Refused(f"calibration.json is of version {version!r}; make it anew with `agnes bench calibrate`")
    weighings = {
        frozenset(each["clean"]): Weighing(
            {source: (numbers[0], numbers[1]) for source, numbers in each["clean"].items()},
            each["intercept"],
            each["weight"],
            each["threshold"],
            each["doubt"],
        )
        for each in said["weighings"]
    }
    return Calibration(weighings, said["settings"])
