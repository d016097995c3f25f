"""What a scan found, a number for each method and piece of evidence: what a calibration compares."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from agnes.results import Evidence, Trigger

COMPARED = 5  # fewer classes than this give nothing to compare with
VALID_ASR = 0.85  # Koldenhof, table 5.2
_LEAST_SIZE = 1 / 255
_LEAST_SPREAD = 0.05  # of scores; closer ones count as equal


@dataclass(frozen=True)
class Trait:
    """What one method says of a network, in a number; the larger, the more it speaks for a backdoor."""

    source: str  # the method and, of evidence, its name
    target: int | None  # the class it points to
    value: float


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
    """How far the smallest trigger lies below those of other classes."""
    by_target = smallest_by_target(triggers, area)
    if len(by_target) < COMPARED:
        return None
    return Trait(method, min(by_target, key=lambda t: by_target[t]), _apart([-size for size in by_target.values()]))


def _of_evidence(evidence: Evidence) -> Trait | None:
    """The score and how far the first class is above the others, if they are not too few.

    One without the other is no sign: on some clean networks a class stands out that hardly an image is taken for, on
    others images are taken for many.
    """
    source, classes = f"{evidence.method}: {evidence.name}", evidence.by_class
    if 0 < len(classes) < COMPARED:
        return None
    return Trait(source, evidence.target, evidence.score + (_apart(classes) if classes else 0.0))


def _apart(by_class: Sequence[float]) -> float:
    """From the first to the second, over the root of the others' spread: half a distance, half deviations."""
    first, *others = sorted(by_class, reverse=True)
    return (first - others[0]) / math.sqrt(statistics.pstdev(others) + _LEAST_SPREAD)


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
