"""Repairs: made, measured before and after, scanned again, the best first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agnes import judging, measuring
from agnes.detecting import Findings, detect
from agnes.results import Repair, Trigger, TriggerOutcome

if TYPE_CHECKING:
    from agnes.network import Network
    from agnes.stages import Stages


def mend(stages: Stages, network: Network, found: Findings) -> tuple[Repair, ...]:
    """Repair with the triggers that convict, measure before and after, and scan again; the best repair first."""
    convicting = [trigger for trigger in found.triggers if trigger.convicts]
    repairs = stages.mitigate(network, convicting, found.candidates)
    measured = [_measured(stages, network, convicting, repair) for repair in repairs]
    return tuple(sorted(measured, key=_merit))


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


def _merit(repair: Repair) -> tuple[Any, ...]:
    """What makes a repair better: no backdoor left, then less attack success, then less accuracy lost."""
    if repair.rescan is None:  # never measured
        return (2,)
    success = max((o.after for o in repair.outcomes), default=0.0)
    lost = (repair.accuracy_before or 0.0) - (repair.accuracy_after or 0.0)
    return (repair.rescan.status != "clean", round(success, 2), lost)
