"""Repairs: made, measured before and after, scanned again, the best first."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from agnes import certifying, judging, measuring
from agnes.dealing import Dealt
from agnes.detecting import Findings, detect
from agnes.errors import OutOfTime
from agnes.relearning import relearn
from agnes.results import NOT_NEEDED, Repair, Trigger, TriggerOutcome, Verdict
from agnes.selection import NAMED, unmet_needs

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.stages import Stages

_TRIGGERS = frozenset({"triggers"})
_RANKS = {"clean": 0, "inconclusive": 1, "backdoored": 2}  # of the re-scan's verdict, the best first
_WORKS = 0.5  # success from which a trigger works: one that convicts nothing is learnt from
_NONE = 0.05  # success that is as good as none
_MOST_SUSPECTS = 5  # of such triggers, the strongest
_BLIND = "the scan found no backdoor in the original: that it finds none in the repair either would prove nothing"
_SHARE_OF_RESCANS = 0.2  # of the time left: a method is offered re-scans only where one takes less


def mend(
    stages: Stages,
    network: Network,
    found: Findings,
    dealt: Dealt,
    accuracy_drop: float,
    *,
    suspected: bool = False,  # the user suspects the network, whatever the scan says
) -> tuple[Repair, ...]:
    """Repair with the triggers that convict, measure before and after, and scan again; the best repair first.

    Where the engine chose the method, the next one is tried as long as a trigger is left or accuracy fell by more than
    `accuracy_drop`. Where none convicts and the network is suspected all the same, one method that does without a
    trigger that convicts is tried, with those that work best at hand.
    """
    if dealt.repair.inverted:
        stages.skip("mitigation", "needs benign images; give --data, --test-data or --repair-data")
        return ()
    convicting = [trigger for trigger in found.triggers if trigger.convicts]
    convicted = found.verdict.status == "backdoored"
    if not (convicting or convicted or suspected) and not _named(stages):
        stages.skip("mitigation", unmet_needs(_TRIGGERS, frozenset()))
        return ()
    bench = _Bench(stages, network, convicting, dealt, found.verdict)
    measured: list[Repair] = []

    def enough(repairs: Sequence[Repair]) -> str:
        measured.extend(bench.measured(repair) for repair in repairs[len(measured) :])
        if measured and not convicting:
            return f"{NOT_NEEDED} without a trigger that convicts, nothing says that {measured[0].method} fell short"
        good = next((repair for repair in measured if _holds(repair, accuracy_drop)), None)
        return f"{NOT_NEEDED} {good.method} has repaired the network" if good else ""

    rescan = bench.rescans if bench.rescans.affordable else None
    enough(stages.mitigate(network, _shown(network, found), found.candidates, enough, rescan))
    ordered = sorted(measured, key=lambda repair: _merit(repair, accuracy_drop))
    return tuple(bench.relearnt(repair) if place == 0 else repair for place, repair in enumerate(ordered))


def _named(stages: Stages) -> bool:
    """Whether the user named a method of repair; what the engine chooses leaves alone what nothing speaks against."""
    return any(chosen.why == NAMED for chosen in stages.selection.of("mitigation"))


def _shown(network: Network, found: Findings) -> list[Trigger]:
    """What a repair may learn from: the triggers that convict, and smaller ones of other methods to their classes.

    A smaller one is another view of the same trigger, and may be the truer one; a larger one costs accuracy. Where none
    convicts, those that work best.
    """
    convicting = [trigger for trigger in found.triggers if trigger.convicts]
    working = _working(network, found)
    if not convicting:
        return working[:_MOST_SUSPECTS]
    least = {t.target: min(each.l1 for each in convicting if each.target == t.target) for t in convicting}
    methods = {(trigger.method, trigger.target) for trigger in convicting}
    beside = [t for t in working if t.l1 < least.get(t.target, 0.0) and (t.method, t.target) not in methods]
    return convicting + beside


def _working(network: Network, found: Findings) -> list[Trigger]:
    """Of each method and class the trigger that works best, on half of the images or more; the strongest first.

    Those too large to be one are left out, and those of random neurons, which are there to compare with.
    """
    most = judging.Bounds().share * network.input_shape[1] * network.input_shape[2]
    best: dict[Any, Trigger] = {}
    for trigger in found.triggers:
        tried = trigger.held_out and not judging.of_random_neuron(trigger)
        if tried and trigger.asr >= _WORKS and trigger.l1 <= most:
            like = judging.like(trigger)
            best[like] = max(best.get(like, trigger), trigger, key=lambda each: each.asr)
    return sorted(best.values(), key=lambda trigger: -trigger.asr)


def _holds(repair: Repair, accuracy_drop: float) -> bool:
    """Whether a repair leaves nothing to wish for: a clean re-scan, and accuracy about as before."""
    return repair.rescan is not None and repair.rescan.status == "clean" and _lost(repair) <= accuracy_drop


def _lost(repair: Repair) -> float:
    """Accuracy that went or, where no image has a label, the share of answers that changed."""
    if repair.accuracy_before is None or repair.accuracy_after is None:
        return 0.0 if repair.agreement is None else 1 - repair.agreement
    return repair.accuracy_before - repair.accuracy_after


def _merit(repair: Repair, accuracy_drop: float) -> tuple[Any, ...]:
    """What makes a repair better: its backdoor and its triggers gone, accuracy kept, a clean re-scan, less lost.

    Of success next to none it does not matter how little it is.
    """
    if repair.rescan is None:  # never measured
        return (len(_RANKS),)
    success = max((o.after for o in repair.outcomes), default=0.0)
    kept = _lost(repair) <= accuracy_drop
    rank = _RANKS[repair.rescan.status]
    return (_left(repair), success >= _WORKS, not kept, rank, max(_NONE, round(success, 2)), _lost(repair))


def _left(repair: Repair) -> bool:
    """Whether the re-scan convicts a class that known triggers lead to; where there are none, any class."""
    assert repair.rescan is not None
    known, said = {outcome.target for outcome in repair.outcomes}, set(repair.rescan.targets)
    return repair.rescan.status == "backdoored" and not (known and said and known.isdisjoint(said))


@dataclass
class _Rescans:
    """The scan done again on changed copies; one that came to its end is not done twice on the same weights."""

    stages: Stages
    known: dict[str, Findings] = field(default_factory=dict)

    @property
    def affordable(self) -> bool:
        """Whether a method may ask for re-scans, by how long the scan took and how much time is left."""
        left = self.stages.backend.remaining()
        taken = sum(self.stages.timings.get(stage, 0.0) for stage in judging.DETECTION)
        return math.isinf(left) or taken <= _SHARE_OF_RESCANS * left

    def __call__(self, network: Network, backend: Backend | None = None) -> Findings:
        weights = _digest(network)
        if weights in self.known:
            return self.known[weights]
        again = self.stages.again(backend)
        found = detect(again, network)
        if all(run.status != "failed" for run in again.runs):
            self.known[weights] = found
        return found


def _digest(network: Network) -> str:
    digest = hashlib.sha256()
    for name, tensor in network.module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class _Bench:
    """Where repairs are measured, each in the same way."""

    def __init__(
        self, stages: Stages, network: Network, triggers: Sequence[Trigger], dealt: Dealt, verdict: Verdict
    ) -> None:
        self.stages, self.network, self.triggers, self.dealt = stages, network, triggers, dealt
        self.verdict = verdict  # on the original
        self.rescans = _Rescans(stages)
        self.untimed = replace(stages.backend, deadline=None)  # for a few forward passes, whatever time is left

    def measured(self, repair: Repair) -> Repair:
        """A repair with what it did; one that cannot be measured says so and does not end the run."""
        started = time.monotonic()
        try:
            return self._measure(repair)
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            return replace(repair, notes=(*repair.notes, f"the repaired network could not be measured: {reason}"))
        finally:
            timings = self.stages.timings
            timings["rescan"] = timings.get("rescan", 0.0) + time.monotonic() - started

    def _measure(self, repair: Repair) -> Repair:
        network, samples, backend = self.network, self.dealt.measure, self.untimed
        with backend.computing():
            before, images = measuring.accuracy(network, samples, backend)
            after, _ = measuring.accuracy(repair.network, samples, backend)
            repair = replace(
                repair,
                accuracy_before=before,
                accuracy_after=after,
                accuracy_images=images,
                measured_on=self.dealt.measured_on,
                confusion_before=certifying.confusion(network, samples, backend),
                confusion_after=certifying.confusion(repair.network, samples, backend),
                agreement=certifying.agreement(network, repair.network, samples, backend),
                weights=sum(tensor.numel() for tensor in certifying.weights(repair.network).values()),
                weights_changed=certifying.weights_changed(network, repair.network),
                outcomes=self._outcomes(repair.network),
            )
        if self.verdict.status != "backdoored":
            said = (*repair.notes, f"not scanned again: {_BLIND}")
            return replace(repair, rescan=Verdict("inconclusive", None, reasons=(_BLIND,)), notes=said)
        rescan = self.rescans(repair.network).verdict if repair.weights_changed else self.verdict
        return replace(repair, rescan=judging.after_repair(rescan, repair.outcomes, network.class_names))

    def _outcomes(self, repaired: Network) -> tuple[TriggerOutcome, ...]:
        """What each trigger that convicts does before and after, on the same images."""
        backend = self.untimed
        labelled = measuring.with_labels(self.network, self.dealt.measure, backend)
        outcomes = []
        for trigger in self.triggers:
            success, count = measuring.attack_success(self.network, trigger, labelled, backend)
            left, _ = measuring.attack_success(repaired, trigger, labelled, backend)
            outcomes.append(TriggerOutcome(trigger.target, success, left, count, trigger.method))
        return tuple(outcomes)

    def relearnt(self, repair: Repair) -> Repair:
        """A repair with how readily the first trigger comes back; where that cannot be said, why."""
        if repair.rescan is None or not self.triggers:
            return repair
        backend, trigger = self.stages.backend, self.triggers[0]
        try:
            with backend.computing():
                labelled = measuring.with_labels(self.network, self.dealt.measure, backend)
                found = relearn(repair.network, trigger, labelled.test or labelled, backend)
        except OutOfTime:
            why = "the time was spent"
        except Exception as error:
            why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        else:
            if found is not None:
                return replace(repair, relearning=found)
            why = "too few images or classes"
        return replace(repair, notes=(*repair.notes, f"no relearning check: {why}"))
