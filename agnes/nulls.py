"""The null of a method that inverts neurons: triggers that it made for random ones, to compare candidates' with."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from agnes.results import Trigger
from agnes.traits import log_size

FEWEST = 19  # random neurons; of fewer, one in twenty cannot be told


def against_null(triggers: Sequence[Trigger], area: int) -> tuple[Trigger, ...]:
    """The triggers, those of candidates with the share of random neurons' triggers that do as well (ABS, 5.1).

    Only random neurons that lead to other classes are compared with: those of a backdoor are not all candidates.
    """
    return tuple(replace(t, null_share=_share(t, triggers, area)) if _of(t, "candidate") else t for t in triggers)


def _of(trigger: Trigger, purpose: str) -> bool:
    return trigger.purpose == purpose and trigger.channel is not None and trigger.held_out > 0


def _share(trigger: Trigger, triggers: Sequence[Trigger], area: int) -> float | None:
    """Counted with the trigger itself, so that it is never zero; None where there are too few to tell."""
    null = [t for t in triggers if t.method == trigger.method and _of(t, "null") and t.target != trigger.target]
    if len(null) < FEWEST:
        return None
    size = log_size(trigger, area)
    return (1 + sum(log_size(t, area) <= size for t in null)) / (1 + len(null))


def told(triggers: Sequence[Trigger]) -> tuple[str, ...]:
    """What a method says of its null: how many random neurons there were, their success and their size."""
    null = [t for t in triggers if _of(t, "null")]
    if not null:
        return ()
    success, sizes = [t.asr for t in null], [t.l1 for t in null]
    return (
        f"compared with {len(null)} random neurons: success of their triggers {statistics.median(success):.0%} in the "
        f"median, {max(success):.0%} at most; size {statistics.median(sizes):.1f}, {min(sizes):.1f} at least",
    )
