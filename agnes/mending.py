"""Repairs: made, measured before and after, scanned again, the best first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agnes import judging, measuring
from agnes.detecting import Findings, detect
from agnes.results import NOT_NEEDED, Repair, Trigger, TriggerOutcome

if TYPE_CHECKING:
    from agnes.network import Network
    from agnes.stages import Stages


def mend(stages: Stages, network: Network, found: Findings, accuracy_drop: float) -> tuple[Repair, ...]:
    """Repair with the triggers that convict, measure before and after, and scan again; the best repair first.

    Where the engine chose the method, the next one is tried as long as a trigger is left or accuracy fell by more than
    `accuracy_drop`.
    """
    convicting = [trigger for trigger in found.triggers if trigger.convicts]
    measured: list[Repair] = []

    def enough(repairs: Sequence[Repair]) -> str:
        measured.extend(_measured(stages, network, convicting, repair) for repair in repairs[len(measured) :])
        good = next((repair for repair in measured if _holds(repair, accuracy_drop)), None)
        return f"{NOT_NEEDED} {good.method} has repaired the network" if good else ""

    enough(stages.mitigate(network, convicting, found.candidates, enough))
    return tuple(sorted(measured, key=lambda repair: _merit(repair, accuracy_drop)))


def _holds(repair: Repair, accuracy_drop: float) -> bool:
    """Whether a repair leaves nothing to wish for: a clean re-scan, and accuracy about as before."""
    return repair.rescan is not None and repair.rescan.status == "clean" and _lost(repair) <= accuracy_drop


def _lost(repair: Repair) -> float:
    return (repair.accuracy_before or 0.0) - (repair.accuracy_after or 0.0)


def _measured(stages: Stages, network: Network, triggers: Sequence[Trigger], repair: Repair) -> Repair:
    """A repair with what it did; one that cannot be measured says so and does not end the run."""
    started = time.monotonic()
    try:
        return _measure(stages, network, triggers, repair)
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        return replace(repair, notes=(*repair.notes, f"the repaired network could not be measured: {reason}"))
    finally:
        stages.timings["rescan"] = stages.timings.get("rescan", 0.0) + time.monotonic() - started


def _measure(stages: Stages, network: Network, triggers: Sequence[Trigger], repair: Repair) -> Repair:
    backend, samples = stages.backend, stages.samples
    with backend.computing():
        before, images = measuring.accuracy(network, samples, backend)
        after, _ = measuring.accuracy(repair.network, samples, backend)
        labelled = measuring.with_labels(network, samples, backend)  # the same images count before and after
        outcomes = []
        for trigger in triggers:
            success, count = measuring.attack_success(network, trigger, labelled, backend)
            left, _ = measuring.attack_success(repair.network, trigger, labelled, backend)
            outcomes.append(TriggerOutcome(trigger.target, success, left, count))
    rescan = judging.after_repair(detect(stages.again(), repair.network).verdict, outcomes, network.class_names)
    return replace(
        repair,
        accuracy_before=before,
        accuracy_after=after,
        accuracy_images=images,
        outcomes=tuple(outcomes),
        rescan=rescan,
    )


def _merit(repair: Repair, accuracy_drop: float) -> tuple[Any, ...]:
    """What makes a repair better: no backdoor left, accuracy kept, less attack success, less accuracy lost."""
    if repair.rescan is None:  # never measured
        return (2,)
    success = max((o.after for o in repair.outcomes), default=0.0)
    kept = _lost(repair) <= accuracy_drop
    return (repair.rescan.status != "clean", not kept, round(success, 2), _lost(repair))
