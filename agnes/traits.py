"""What a scan found, a number for each method and piece of evidence: what a calibration compares."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agnes.results import Evidence, Trigger

COMPARED = 5  # fewer classes than this give nothing to compare with
VALID_ASR = 0.85  # Koldenhof, table 5.2
_STRONGEST = 5  # classes of which a trait tells; what lies further back is no sign of anything
_LEAST_SIZE = 1 / 255
_LEAST_SPREAD = 0.05  # of scores; closer ones count as equal


@dataclass(frozen=True)
class Trait:
    """What one method says of a network, in a number; the larger, the more it speaks for a backdoor."""

    source: str  # the method and, of evidence, its name
    target: int | None  # the class it points to
    value: float
    by_class: Mapping[int, float] = field(default_factory=dict)  # what it says of the strongest, if it compared any

    @property
    def method(self) -> str:
        """The method that says it."""
        return self.source.partition(":")[0]

    @property
    def said(self) -> Mapping[int | None, float]:
        """What it says of classes; of None, what it says of no class."""
        return {**self.by_class} or {self.target: self.value}


def traits(triggers: Sequence[Trigger], evidence: Sequence[Evidence], area: int) -> list[Trait]:
    """Of every method that compared classes, and of every piece of evidence, in order of their names."""
    found = [
        trait
        for method in {t.method: None for t in triggers}
        if (trait := _of_triggers(method, [t for t in triggers if t.method == method and t.held_out], area))
    ]
    found += [trait for each in evidence if (trait := _of_evidence(each))]
    return sorted(found, key=lambda trait: trait.source)


def _of_triggers(method: str, triggers: Sequence[Trigger], area: int) -> Trait | None:
    """How far the smallest trigger to each class lies below those of others."""
    sizes = smallest_by_target(triggers, area)
    if len(sizes) < COMPARED:
        return None
    smallness = {target: -size for target, size in sizes.items()}
    said = {target: _apart(smallness, target) for target in _strongest(smallness)}
    return Trait(method, next(iter(said)), max(said.values()), said)


def _of_evidence(evidence: Evidence) -> Trait | None:
    """The score and how far the first class is above the others, if they are not too few; so of the next classes.

    One without the other is no sign: on some clean networks a class stands out that hardly an image is taken for, on
    others images are taken for many.
    """
    source, scores = f"{evidence.method}: {evidence.name}", dict(enumerate(evidence.by_class))
    if not scores:
        return Trait(source, evidence.target, evidence.score)
    if len(scores) < COMPARED:
        return None
    first = max(scores.values())
    said = {of: evidence.score - (first - scores[of]) + _apart(scores, of) for of in _strongest(scores)}
    return Trait(source, evidence.target, max(said.values()), said)


def _strongest(by_class: Mapping[int, float]) -> list[int]:
    """The classes of the largest numbers, the first of them first."""
    return sorted(by_class, key=lambda each: -by_class[each])[:_STRONGEST]


def _apart(by_class: Mapping[int, float], of: int) -> float:
    """From a class to the largest other one, over the root of the others' spread: half a distance, half deviations.

    Below zero for all but the first.
    """
    others = [number for each, number in by_class.items() if each != of]
    return (by_class[of] - max(others)) / math.sqrt(statistics.pstdev(others) + _LEAST_SPREAD)


def smallest_by_target(triggers: Sequence[Trigger], area: int) -> dict[int, float]:
    """The log size of the smallest trigger to each class."""
    sizes: dict[int, float] = {}
    for trigger in triggers:
        size = log_size(trigger, area)
        sizes[trigger.target] = min(size, sizes.get(trigger.target, size))
    return sizes


def log_size(trigger: Trigger, area: int) -> float:
    """Log of the size; a trigger that falls short of the success bound counts for more, up to the whole image.

    In proportion, so that a class just below the bound is no outlier to one just above it.
    """
    size, short = max(trigger.l1, _LEAST_SIZE), max(0.0, 1 - trigger.asr / VALID_ASR)
    return math.log(size) + short * max(0.0, math.log(area) - math.log(size))
