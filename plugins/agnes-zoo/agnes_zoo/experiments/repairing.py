"""Repairs as the papers measure them: before and after, by the true trigger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agnes.calling import call
from agnes.errors import AgnesError
from agnes.network import Network
from agnes.results import Trigger
from agnes_zoo.experiments.searching import Found, counted, flagged_classes, method, pointed_out, search
from agnes_zoo.experiments.subject import Subject

_LOST, _GONE = 0.25, 0.75  # of accuracy at most, of success at least: a successful defence (Koldenhof, section 5.2.1)
_THRESHOLDS = tuple(0.25 * step for step in range(13))  # Koldenhof, appendix A.1
_CLASSES = 43  # that top_p is said for in the paper


def truth_of(subject: Subject) -> Found:
    """What a search would have found that knows the trigger."""
    true = subject.true_trigger
    if true is None:
        raise AgnesError("this network has no trigger with one target; nothing can be repaired by it")
    return Found(None, (), (true,), {})


def repaired(
    subject: Subject,
    found: Found,
    name: str,
    settings: Mapping[str, Any],
    methods: Mapping[str, Mapping[str, Any]],
    rescan: str,
    valid: Mapping[str, float] | None,
    bound: float,
) -> dict[str, float | None]:
    """The figures of one repair; a network that nothing was found in stays as it is."""
    triggers = valid_triggers(subject, found, valid or {"asr": bound})
    started = subject.clock()
    network = mended(subject, subject.network, found, triggers, name, {**settings, **methods.get(name, {})})
    seconds = subject.clock() - started
    before = subject.accuracy(subject.network), subject.true_success(subject.network)
    after = subject.accuracy(network), subject.true_success(network)
    lost = before[0] - after[0]
    gone = None if before[1] is None or after[1] is None else before[1] - after[1]
    values: dict[str, float | None] = {
        "accuracy_before": before[0],
        "accuracy_after": after[0],
        "accuracy_lost": lost,
        "asr_before": before[1],
        "asr_after": after[1],
        "asr_lost": gone,
        "successful": None if gone is None else float(lost < _LOST and gone > _GONE),
        "triggers": float(len(triggers)),
        "seconds_search": sum(found.seconds.values()),
        "seconds_repair": seconds,
    }
    if rescan:
        again = counted(subject, network, search(subject, network, rescan, methods), bound)
        first = counted(subject, subject.network, found, bound)
        for metric in ("neurons", "neurons_asr"):
            values |= {f"{metric}_before": first[metric], f"{metric}_after": again[metric]}
    return values


def valid_triggers(subject: Subject, found: Found, valid: Mapping[str, float]) -> list[Trigger]:
    """The triggers pointed out that succeed and, where a share of the image is given, are small."""
    area = subject.network.input_shape[1] * subject.network.input_shape[2]
    most = valid.get("size", 1.0) * area
    eligible = pointed_out(found.triggers, flagged_classes(found.triggers))
    return [t for t in eligible if t.asr >= valid["asr"] and ("size" not in valid or t.l1 < most)]


def mended(
    subject: Subject,
    network: Network,
    found: Found,
    triggers: Sequence[Trigger],
    name: str,
    settings: Mapping[str, Any],
) -> Network:
    """A repaired copy, or the network where there is nothing to repair it by."""
    instance = method(name, "mitigation", {name: settings})
    if not triggers and ("triggers" in instance.needs or name == "weight-prune"):
        return network
    repair = call(
        "mitigate",
        name,
        instance,
        network=network,
        samples=subject.benign,
        triggers=tuple(triggers),
        candidates=found.candidates,
        backend=subject.backend,
    )
    return repair.network


def in_rounds(
    subject: Subject,
    found: Found,
    name: str,
    methods: Mapping[str, Mapping[str, Any]],
    top_p: int,
    bound: float,
    rounds: int,
) -> dict[str, float | None]:
    """Retrain, search again, and so on until no neuron is left (strategic retraining, algorithm 1)."""
    network = subject.network
    settings = {
        "rounds": 1,
        "again": 0,  # the paper trains once in a round, and keeps what it has
        "gone": 0.0,
        "top_p": max(1, round(top_p * network.class_count / _CLASSES)),
        **methods.get("retrain", {}),
    }
    values = _round(subject, network, found, bound, 0)
    for number in range(1, rounds + 1):
        triggers = valid_triggers(subject, found, {"asr": bound})
        if not triggers:
            last = {key.rpartition("_")[0]: value for key, value in values.items() if key.endswith(f"_{number - 1}")}
            values |= {f"{metric}_{number}": value for metric, value in last.items()}
            continue
        network = mended(subject, network, found, triggers, "retrain", settings)
        found = search(subject, network, name, methods)
        values |= _round(subject, network, found, bound, number)
    start = values["accuracy_0"] or 0.0
    return values | {f"lost_{n}": start - (values[f"accuracy_{n}"] or 0.0) for n in range(1, rounds + 1)}


def _round(subject: Subject, network: Network, found: Found, bound: float, number: int) -> dict[str, float | None]:
    counts = counted(subject, network, found, bound)
    return {
        f"neurons_{number}": counts["neurons"],
        f"success_{number}": counts["neurons_asr"],
        f"accuracy_{number}": subject.accuracy(network),
        f"true_{number}": subject.true_success(network),
    }


def clp_sweep(subject: Subject) -> dict[str, float | None]:
    """The best of the thresholds that keep accuracy or end the trigger, by half of both; none: nothing is pruned."""
    accuracy, asr = subject.accuracy(subject.network), subject.true_success(subject.network) or 0.0
    results = []
    for u in reversed(_THRESHOLDS):  # of equal ones the highest
        network = mended(subject, subject.network, truth_of(subject), (), "clp", {"u": u})
        after = subject.accuracy(network), subject.true_success(network) or 0.0
        lost, gone = accuracy - after[0], asr - after[1]
        if lost < _LOST or gone > _GONE:
            results.append(((1 - gone) / 2 + lost / 2, u, after))
    _, u, after = min(results, key=lambda each: each[0], default=(0.0, _THRESHOLDS[-1], (accuracy, asr)))
    return {
        "accuracy_before": accuracy,
        "accuracy_after": after[0],
        "accuracy_lost": accuracy - after[0],
        "asr_before": asr,
        "asr_after": after[1],
        "asr_lost": asr - after[1],
        "u": u,
        "successful": float(accuracy - after[0] < _LOST and asr - after[1] > _GONE),
    }
