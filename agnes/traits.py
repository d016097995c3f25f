"""What a scan found, in a few numbers for each method: what a calibration weighs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agnes.results import Evidence, Trigger

COMPARED = 5  # fewer classes than this give nothing to compare with
VALID_ASR = 0.85  # Koldenhof, table 5.2
_LEAST_SIZE = 1 / 255
_LEAST_SPREAD = 0.05  # of scores; closer ones count as equal


@dataclass(frozen=True)
class Trait:
    """What one method says of a network, in numbers of which larger ones speak for a backdoor."""

    source: str  # the method and, of evidence, its name
    target: int | None  # the class it points to
    values: Mapping[str, float]


def traits(triggers: Sequence[Trigger], evidence: Sequence[Evidence], area: int) -> list[Trait]:
    """Of every method that compared classes, and of every piece of evidence, in order of their names."""
    found = [
        trait
        for method in {t.method: None for t in triggers}
        if (trait := _of_triggers(method, [t for t in triggers if t.method == method and t.held_out], area))
    ]
    return sorted([*found, *map(_of_evidence, evidence)], key=lambda trait: trait.source)


def _of_triggers(method: str, triggers: Sequence[Trigger], area: int) -> Trait | None:
    """How small the smallest trigger is, how far below the next class's and below most classes'."""
    by_target = smallest_by_target(triggers, area)
    if len(by_target) < COMPARED:
        return None
    order = sorted(by_target, key=lambda target: by_target[target])
    least, second = by_target[order[0]], by_target[order[1]]
    median = statistics.median(by_target.values())
    return Trait(
        method,
        order[0],
        {"small": math.log(area) - least, "apart": second - least, "below": median - least},
    )


def _of_evidence(evidence: Evidence) -> Trait:
    """How far the first class is above the second, as it is and in spreads of the others; else the score."""
    source = f"{evidence.method}: {evidence.name}"
    if len(evidence.by_class) < COMPARED:
        return Trait(source, evidence.target, {"score": evidence.score})
    first, *others = sorted(evidence.by_class, reverse=True)
    apart = first - others[0]
    spread = statistics.pstdev(others) + _LEAST_SPREAD
    return Trait(source, evidence.target, {"apart": apart, "outlying": apart / spread})


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
