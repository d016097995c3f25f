"""A search for triggers, stage by stage as a paper names them, and what is counted of what it finds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agnes import measuring, settings
from agnes.calling import call
from agnes.hookspecs import HOOK_OF
from agnes.network import Network
from agnes.registry import Registry
from agnes.results import Candidate, Representatives, Trigger
from agnes.samples import Samples
from agnes_zoo.experiments.subject import Subject

CLASSES = 0.8  # share of the classes that a backdoor misleads (AGNES, section 5.1)
_NEAR = 0.05  # of the best success: compromised (ABS, section 5.1)
_FLAGGED = 2.0  # anomaly index (Neural Cleanse)
_TO_DEVIATIONS = 1.4826
_SEARCHES: Mapping[str, Mapping[str, str]] = {
    "abs": {"stimulation": "abs", "inversion": "abs-mask"},
    "abs-feature": {"stimulation": "abs", "inversion": "abs-feature"},
    "abssm": {"abstraction": "deepabstract", "stimulation": "abssm", "inversion": "abs-mask"},
    "aproxsm": {"abstraction": "kmeans", "stimulation": "aproxsm", "inversion": "abs-mask"},
    "two-stage": {"stimulation": "variance", "inversion": "two-stage"},
    "neural-cleanse": {"inversion": "neural-cleanse"},
    "pairs": {"inversion": "tao-inversion"},
    "stimulation": {"stimulation": "abs"},
}
SEARCHES = tuple(_SEARCHES)


@dataclass(frozen=True)
class Found:
    """What a search found, and how long each of its stages took."""

    representatives: Representatives | None
    candidates: tuple[Candidate, ...]
    triggers: tuple[Trigger, ...]  # without those that are there for comparison
    seconds: Mapping[str, float] = field(default_factory=dict)


def methods_of(name: str) -> Mapping[str, str]:
    """Stage -> method."""
    return _SEARCHES[name]


def method(name: str, stage: str, assigned: Mapping[str, Mapping[str, Any]]) -> Any:
    """A method with its settings."""
    registry = Registry.discover()
    return settings.build(registry.method(registry.named(name, (stage,))), name, assigned.get(name, {}))


def search(
    subject: Subject,
    network: Network,
    name: str,
    assigned: Mapping[str, Mapping[str, Any]],
    samples: Samples | None = None,
) -> Found:
    """Run the stages one after another."""
    samples = subject.samples if samples is None else samples
    given: dict[str, Any] = {"representatives": None, "candidates": ()}
    results: dict[str, Any] = {"abstraction": None, "stimulation": (), "inversion": ()}
    seconds = {}
    for stage, which in _SEARCHES[name].items():
        instance = method(which, stage, assigned)
        shown = subject.training if stage == "abstraction" else samples  # AGNES clusters on thousands of images
        started = subject.clock()
        results[stage] = call(
            HOOK_OF[stage], which, instance, network=network, samples=shown, backend=subject.backend, **given
        )
        seconds[stage] = subject.clock() - started
        if stage == "abstraction":
            given["representatives"] = results[stage]
        elif stage == "stimulation":
            given["candidates"] = tuple(results[stage])
    triggers = tuple(replace(t, asr=subject.success(network, t)) for t in results["inversion"] if t.purpose != "null")
    return Found(results["abstraction"], tuple(results["stimulation"]), triggers, seconds)


def counted(subject: Subject, network: Network, found: Found, bound: float) -> dict[str, float | None]:
    """The figures that the papers report of a search."""
    working = [t for t in found.triggers if t.asr >= bound]
    neurons = {(t.layer, t.channel): t.asr for t in sorted(working, key=lambda t: t.asr)}
    right = [t.asr for t in found.triggers if t.target == subject.target]
    flagged = flagged_classes(found.triggers)
    best = max((t.asr for t in found.triggers), default=0.0)
    return {
        "candidates": float(len(found.candidates)),
        "reasr": best,
        "reached": float(best >= bound),
        "asr": max(right, default=0.0) if subject.target is not None else None,
        "backdoors": float(sum(misled_classes(subject, network, t) >= CLASSES for t in pointed_out(working, flagged))),
        "neurons": float(len(neurons)),
        "neurons_asr": statistics.mean(neurons.values()) if neurons else 0.0,
        "called": float(bool(flagged)),
        "named": None if subject.target is None else float(subject.target in flagged),
        "merged": merged(found.representatives),
        **similarity(subject, working),
        **{f"seconds_{stage}": value for stage, value in found.seconds.items()},
        "seconds": sum(found.seconds.values()),
        "seconds_searching": sum(value for stage, value in found.seconds.items() if stage != "abstraction"),
    }


def pointed_out(triggers: Sequence[Trigger], flagged: Sequence[int]) -> list[Trigger]:
    """The triggers that a search points out: a scan has one for every class, of which the outliers count."""
    return [t for t in triggers if t.purpose != "scan" or t.target in flagged]


def misled_classes(subject: Subject, network: Network, trigger: Trigger) -> float:
    """The share of the other classes most of whose images a trigger sends to its target."""
    labels = subject.held_out.labels
    assert labels is not None
    hits = (
        measuring.predictions(network, trigger.apply(subject.held_out.images), subject.backend).cpu() == trigger.target
    )
    others = [label for label in labels.unique().tolist() if label != trigger.target]
    return sum(float(hits[labels == label].float().mean()) > 0.5 for label in others) / max(len(others), 1)


def flagged_classes(triggers: Sequence[Trigger]) -> list[int]:
    """The classes whose trigger is an outlier on the small side (Neural Cleanse)."""
    sizes = {t.target: t.l1 for t in sorted(triggers, key=lambda t: -t.l1)}
    if len(sizes) < 3:
        return []
    median = statistics.median(sizes.values())
    deviation = _TO_DEVIATIONS * statistics.median(abs(size - median) for size in sizes.values())
    return [target for target, size in sizes.items() if median - size > _FLAGGED * max(deviation, 1e-9)]


def merged(representatives: Representatives | None) -> float | None:
    """The share of the neurons that an abstraction left out."""
    if representatives is None:
        return None
    kept = sum(int(positions.sum()) for positions in representatives.positions.values())
    return 1 - kept / sum(positions.numel() for positions in representatives.positions.values())


def similarity(subject: Subject, triggers: Sequence[Trigger]) -> dict[str, float | None]:
    """How like the true trigger the others are in the mean."""
    true = subject.true_trigger
    if true is None or not triggers:
        return {"mse": None, "iou": None}
    found = [measuring.likeness(trigger, true, subject.held_out.images[:50]) for trigger in triggers]
    return {"mse": statistics.mean(each.mse for each in found), "iou": statistics.mean(each.iou for each in found)}


def compromised(found: Found) -> list[Trigger]:
    """The triggers whose success is nearly that of the best (ABS, section 5.1)."""
    best = max((t.asr for t in found.triggers), default=0.0)
    return [t for t in found.triggers if best - t.asr < _NEAR]
