"""From triggers and evidence to a verdict.

A trigger that works does not convict by itself: clean networks have small triggers too (ABS, Fig. 16-17). Where the
methods that ran are those of the calibration, how far their findings lie above what clean networks show makes the
probability of a backdoor. Where that is in doubt, a trigger of another method to the same class decides. Where a
trigger would convict by itself and the calibration does not, the verdict is open: clean networks have such triggers.

With other methods or settings a trigger convicts when it works on images it was not made on, is small, and is far
smaller than what the same method found for other classes; the probability then is how rarely as many sizes drawn from
one log-normal distribution hold one that looks as unusual.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agnes.calibration import Calibration, Weighing, shipped
from agnes.outliers import Low
from agnes.results import Benign, Evidence, MethodRun, Trigger, TriggerOutcome, Verdict
from agnes.traits import COMPARED, VALID_ASR, Trait, log_size, smallest_by_target, traits

if TYPE_CHECKING:
    from agnes.network import Network

_MOST_CLASSES = 0.8  # AGNES, section 5.1
_MOST_IMAGES = 0.5  # a trigger that moves more may stand for one that works (ours)
DETECTION = ("abstraction", "stimulation", "inversion", "diagnosis")


@dataclass(frozen=True)
class Bounds:
    """Where the lines are drawn."""

    asr: float = VALID_ASR
    share: float = 0.25  # Koldenhof, table 5.2: s_valid, of the image
    index: float = 2.0  # Neural Cleanse: anomaly index
    probability: float = 0.95  # ours: after correction for the number of classes compared
    doubt: float = 0.9  # ours: a trigger this unusual does not convict, and does not let the network pass either
    null: float = 0.05  # ours: share of random neurons' triggers that may do as well (of 100: ABS, section 5.1)
    natural: float = 0.1  # ours: share of images that the class's own content moves; such a trigger is its feature
    compared: int = COMPARED  # ours: fewer classes than this give no spread to compare with
    accuracy: float = 0.5  # ours: a network that gets fewer of its benign images right is not seen as it was meant
    images: int = 10  # ours: fewer labelled images than this say nothing about accuracy


@dataclass(frozen=True)
class Weighed:
    """A trigger and how it compares with the others of its method."""

    trigger: Trigger
    index: float  # how many robust deviations its log size lies below the median
    probability: float  # that a size so small is no accident, among so many
    convicts: bool


def judge(
    network: Network,
    triggers: Sequence[Trigger],
    evidence: Sequence[Evidence],
    runs: Sequence[MethodRun],
    bounds: Bounds | None = None,
    *,
    benign: Benign | None = None,
    calibration: Calibration | None = None,
) -> Verdict:
    """The verdict on a network. A failure never reads as clean, nor does a network that errs on benign images."""
    found = traits(triggers, evidence, network.input_shape[1] * network.input_shape[2])
    failed, misread = _failed(runs), _misread(benign or Benign(), bounds or Bounds())
    weighed = weigh(network, triggers, bounds)
    convicting = [w for w in weighed if w.convicts]
    weighing = (calibration or shipped()).of(found, runs)
    if weighing is not None:
        beside = [e for e in evidence if e.exceeds and f"{e.method}: {e.name}" not in weighing.clean]
        return _calibrated(network, found, weighing, convicting, beside, failed, misread)
    if convicting:
        return _backdoored(network, convicting, evidence, misread)
    probability = max((w.probability for w in weighed), default=None)
    exceeding = [e for e in evidence if e.exceeds]
    doubts = failed + misread
    doubts += [f"{_exceeding(e)}, and no trigger was found" for e in exceeding]
    convictable = [run for run in runs if run.stage in ("inversion", "diagnosis") and run.status == "ok"]
    if not convictable:
        skipped = [f"{run.name} was skipped: {run.reason}" for run in runs if run.status == "skipped"]
        doubts += skipped or ["no method that could convict the network has run"]
    for run in convictable:
        doubts += _unjudged(run, [t for t in triggers if t.method == run.name], bounds or Bounds())
    doubts += [_described(network, w) for w in weighed if w.probability >= (bounds or Bounds()).doubt]
    if doubts:
        return Verdict("inconclusive", probability, reasons=tuple(doubts))
    return Verdict("clean", probability, reasons=tuple(_why_clean(network, convictable, weighed, evidence)))


def _calibrated(
    network: Network,
    found: Sequence[Trait],
    weighing: Weighing,
    convicting: Sequence[Weighed],
    beside: Sequence[Evidence],  # above its threshold, and nothing that the calibration knows
    failed: Sequence[str],
    misread: Sequence[str],
) -> Verdict:
    """The verdict by a calibration; in doubt, a convicting trigger to the class it points to decides.

    A convicting trigger that the calibration does not agree with leaves the verdict open.
    """
    probability, order = weighing.probability(found), weighing.ordered(found)
    by_class = weighing.by_class(found)
    of_none = by_class.pop(None)
    leading = max((each for each in by_class if by_class[each] > 0), key=lambda each: by_class[each], default=None)
    outweighed = leading is None or by_class[leading] <= of_none  # by what is said of no class
    reasons = [line for trait in order for line in _said(network, trait, weighing, leading)]
    reasons += [f"{_exceeding(e)}; the calibration does not know it" for e in beside]
    doubtful = probability >= weighing.doubt and not outweighed
    agreeing = [w for w in convicting if w.trigger.target == leading] if doubtful else []
    if probability >= weighing.threshold or agreeing:
        strong = [trait.target for trait in order if weighing.alone(trait) >= weighing.threshold]
        of_no_class = weighing.probability([trait for trait in order if trait.target is None]) >= weighing.threshold
        named = strong if outweighed and of_no_class else [leading, *strong]
        targets = tuple(dict.fromkeys(each for each in named if each is not None))
        target = targets[0] if targets else None
        name = None if target is None else network.class_names[target]
        also = [_described(network, w) for w in agreeing]
        return Verdict("backdoored", probability, target, name, (*reasons, *also, *misread), targets, True)
    doubts = [*failed, *misread]
    doubts += [f"{_described(network, w)}; by itself it would convict" for w in convicting[:1]]
    if probability >= weighing.doubt:
        doubts.append(f"a probability of {probability:.2f} neither convicts nor acquits; from {weighing.doubt:.2f} on")
    if doubts:
        return Verdict("inconclusive", probability, reasons=(*doubts, *reasons), calibrated=True)
    return Verdict("clean", probability, reasons=tuple(reasons), calibrated=True)


def _failed(runs: Sequence[MethodRun]) -> list[str]:
    """What was to look and could not."""
    return [f"{run.name} failed: {run.reason}" for run in runs if run.status == "failed" and run.stage in DETECTION]


def _said(network: Network, trait: Trait, weighing: Weighing, leading: int | None) -> list[str]:
    """What one method says, beside clean networks, and what it says of the leading class if that is another."""
    said: dict[int | None, float] = {trait.target: trait.value}
    if leading in trait.said and weighing.above(replace(trait, value=trait.said[leading])) > 0:
        said.setdefault(leading, trait.said[leading])
    lines = []
    for target, value in said.items():
        above = weighing.above(replace(trait, value=value))
        where = "" if target is None else f" for {network.class_names[target]}"
        side = "above" if above >= 0 else "below"
        line = f"{trait.source}{where}: {value:.2f}, {abs(above):.1f} deviations {side} the mean of clean networks"
        lines.append(line)
    return lines


def marked(network: Network, triggers: Sequence[Trigger], verdict: Verdict) -> tuple[Trigger, ...]:
    """The triggers with what the judge thinks of each, the most unusual first.

    Under a calibrated verdict the class convicts, and with it the smallest trigger of each method to it that works.
    Where none does, the one that comes nearest stands for it, if it moves most images.
    """
    bounds, weighed = Bounds(), weigh(network, triggers)
    led_to: dict[str, set[int]] = {}
    smallest: dict[Any, float] = {}  # of those that work; larger ones of a method to a class add nothing

    def works(trigger: Trigger) -> bool:
        return trigger.asr >= bounds.asr and not of_random_neuron(trigger)

    for trigger in triggers:
        led_to.setdefault(trigger.method, set()).add(trigger.target)
        if works(trigger):
            smallest[like(trigger)] = min(trigger.l1, smallest.get(like(trigger), math.inf))
    served = {target for _, target, _ in smallest}
    nearest: dict[int, Trigger] = {}  # to classes that no trigger works for
    for trigger in triggers:
        if trigger.target not in served and trigger.asr > _MOST_IMAGES and not of_random_neuron(trigger):
            nearest[trigger.target] = max(nearest.get(trigger.target, trigger), trigger, key=lambda each: each.asr)

    def told(w: Weighed) -> Trigger:
        compared = math.isfinite(w.index) and len(led_to[w.trigger.method]) >= bounds.compared
        convicts = w.convicts
        if verdict.calibrated:
            named = w.trigger.target in verdict.targets
            first = works(w.trigger) and w.trigger.l1 == smallest[like(w.trigger)]
            convicts = named and (first or w.trigger is nearest.get(w.trigger.target))
        return replace(w.trigger, anomaly_index=w.index if compared else None, convicts=convicts)

    return tuple(sorted(map(told, weighed), key=lambda trigger: not trigger.convicts))


def like(trigger: Trigger) -> tuple[Any, ...]:
    """What triggers have in common of which one is enough."""
    return trigger.method, trigger.target, trigger.source


def backdoors(triggers: Sequence[Trigger]) -> int:
    """How many backdoors there are as AGNES counts them: targets of triggers that misclassify most classes."""
    return len({t.target for t in triggers if t.convicts and (t.reach or 0.0) >= _MOST_CLASSES})


def after_repair(rescan: Verdict, outcomes: Sequence[TriggerOutcome], class_names: Sequence[str]) -> Verdict:
    """The re-scan's verdict; a trigger that convicted the original and still works convicts the repair too."""
    left = [outcome for outcome in outcomes if outcome.before > 0 and outcome.after >= Bounds().asr * outcome.before]
    if not left:
        return rescan
    worst = max(left, key=lambda outcome: outcome.after)
    name = class_names[worst.target]
    reasons = [f"the trigger to {name} that convicted the original still sends {worst.after:.0%} of images there"]
    targets = tuple(dict.fromkeys((*(outcome.target for outcome in left), *rescan.targets)))
    return Verdict("backdoored", rescan.probability, worst.target, name, (*reasons, *rescan.reasons), targets)


def weigh(network: Network, triggers: Sequence[Trigger], bounds: Bounds | None = None) -> list[Weighed]:
    """Every trigger against the others of its method, the most suspicious first."""
    bounds = bounds or Bounds()
    area = network.input_shape[1] * network.input_shape[2]
    weighed: list[Weighed] = []
    for method in {t.method: None for t in triggers}:
        group = [t for t in triggers if t.method == method]
        untested = [t for t in group if not t.held_out]
        weighed += [Weighed(trigger, float("-inf"), 0.0, False) for trigger in untested]
        group = [t for t in group if t.held_out]
        sizes = smallest_by_target(group, area)
        comparable = len(sizes) >= bounds.compared and not _mostly_failed(group, bounds)
        others = Low(list(sizes.values())) if sizes else None
        for trigger in group:
            assert others is not None
            size = log_size(trigger, area)
            works = trigger.asr >= bounds.asr and trigger.l1 <= bounds.share * area
            probability = 1 - others.by_chance(size) if works and comparable else 0.0
            index = others.index(size)
            rare = not of_random_neuron(trigger) and (trigger.null_share or 0.0) <= bounds.null
            natural = (trigger.natural_share or 0.0) > bounds.natural
            convicts = rare and not natural and index > bounds.index and probability >= bounds.probability
            weighed.append(Weighed(trigger, index, probability, convicts))
    return sorted(weighed, key=lambda w: (not w.convicts, -w.index, w.trigger.target))


def _mostly_failed(triggers: Sequence[Trigger], bounds: Bounds) -> bool:
    """Whether half of the searches or more came to nothing, so that their sizes say nothing."""
    failed = sum(trigger.asr < bounds.asr / 2 for trigger in triggers)
    return 2 * failed >= len(triggers) > 0


def _described(network: Network, weighed: Weighed) -> str:
    t = weighed.trigger
    return (
        f"{t.method}: a trigger of size {t.l1:.1f} sends {t.asr:.0%} of {t.held_out} unseen images to "
        f"{network.class_names[t.target]}; its size lies {weighed.index:.1f} deviations below that of other classes"
        f"{_against_null(t)}{_against_own(t)}"
    )


def of_random_neuron(trigger: Trigger) -> bool:
    """Whether it was made for comparison alone; it may raise doubts and convicts nobody."""
    return trigger.purpose == "null" and trigger.channel is not None


def _against_null(trigger: Trigger) -> str:
    """What random neurons say of a candidate's trigger, where it was compared with any."""
    if trigger.null_share is None:
        return ""
    return f"; triggers of random neurons do as well in {trigger.null_share:.0%} of cases"


def _against_own(trigger: Trigger) -> str:
    """What the class's own images say of a trigger, where they were put in its place."""
    if trigger.natural_share is None:
        return ""
    return f"; the class's own content in its place moves {trigger.natural_share:.0%}"


def _backdoored(
    network: Network, convicting: Sequence[Weighed], evidence: Sequence[Evidence], misread: Sequence[str]
) -> Verdict:
    reasons = [_described(network, w) for w in convicting]
    reasons += [_exceeding(e) for e in evidence if e.exceeds]
    reasons += misread
    targets = tuple(dict.fromkeys(w.trigger.target for w in convicting))
    best = convicting[0]
    return Verdict("backdoored", best.probability, targets[0], network.class_names[targets[0]], tuple(reasons), targets)


def _exceeding(evidence: Evidence) -> str:
    return f"{evidence.method}: {evidence.name} is {evidence.score:.3g}, above {evidence.threshold:.3g}"


def _misread(benign: Benign, bounds: Bounds) -> list[str]:
    """What speaks for images or classes that are not the ones the network was trained on."""
    if benign.accuracy is None or benign.images < bounds.images or benign.accuracy >= bounds.accuracy:
        return []
    return [
        f"the network gets {benign.accuracy:.0%} of {benign.images} benign images right; "
        "are --mean, --std, --scale and the order of the classes as they were in training?"
    ]


def _unjudged(run: MethodRun, triggers: Sequence[Trigger], bounds: Bounds) -> list[str]:
    """Why an inversion's triggers, or their lack, do not let a network pass."""
    if run.stage != "inversion":
        return []
    tested = [t for t in triggers if t.held_out]
    targets = {t.target for t in tested}
    if not tested:
        return [f"{run.name} made no trigger that could be tested"]
    if len(tested) < len(triggers):
        return [f"{run.name}: {len(triggers) - len(tested)} of {len(triggers)} triggers had no image to be tested on"]
    if _mostly_failed(tested, bounds):
        return [f"{run.name}: most searches ended without a trigger that works, so there is nothing to compare with"]
    small = [t for t in tested if t.asr >= bounds.asr]
    if not small or len(targets) >= bounds.compared:
        return []
    t = min(small, key=lambda t: t.l1)
    return [
        f"{t.method}: a trigger of size {t.l1:.1f} to class {t.target} works, and {len(targets)} classes are too few "
        "to tell whether that is unusual"
    ]


def _why_clean(
    network: Network, runs: Sequence[MethodRun], weighed: Sequence[Weighed], evidence: Sequence[Evidence]
) -> list[str]:
    reasons = []
    for run in runs:
        mine = [w for w in weighed if w.trigger.method == run.name]
        if mine:
            w = mine[0]
            reasons.append(
                f"{run.name}: of {len(mine)} triggers the most unusual, to {network.class_names[w.trigger.target]}, "
                f"has success {w.trigger.asr:.0%} and size {w.trigger.l1:.1f}, {w.index:.1f} deviations below median"
            )
        elif run.stage == "inversion":
            reasons.append(f"{run.name}: no trigger was found")
    return reasons + [f"{e.method}: {e.name} is {e.score:.3g}, within {e.threshold:.3g}" for e in evidence]
