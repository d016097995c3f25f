"""The measurements that tables are made of: each takes a network and plain settings, and gives figures by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from agnes.errors import AgnesError
from agnes.samples import Samples
from agnes_zoo.experiments import inside, repairing
from agnes_zoo.experiments.searching import Found, counted, search
from agnes_zoo.experiments.store import Answer
from agnes_zoo.experiments.subject import Subject

Methods = Mapping[str, Mapping[str, Any]]  # method -> setting -> value
_MANY = 500  # training images that stand for the whole set, where a method is given it


def training(subject: Subject) -> Answer:
    """How well the network was trained and attacked."""
    return Answer(
        {
            "accuracy": subject.accuracy(subject.network),
            "asr": subject.true_success(subject.network),
            "accuracy_training": _accuracy(subject, subject.training),
            "accuracy_validation": _accuracy(subject, subject.benign),
            "parameters": float(subject.network.parameter_count),
        }
    )


def _accuracy(subject: Subject, samples: Samples) -> float:
    from agnes.measuring import accuracy

    return accuracy(subject.network, samples, subject.backend)[0] or 0.0


def searched(subject: Subject, name: str, methods: Methods, inputs: str = "samples") -> Found:
    """A search of the network as it was trained, made once."""
    key = json.dumps([name, methods, inputs], sort_keys=True)
    if key not in subject.found:
        subject.found[key] = search(subject, subject.network, name, methods, _inputs(subject, inputs))
    return subject.found[key]


def _inputs(subject: Subject, inputs: str) -> Samples:
    if inputs in ("inverted", "benign"):
        return getattr(subject, inputs)
    return subject.training.subset(slice(_MANY)) if inputs == "training" else subject.samples


def searching(subject: Subject, search: str, methods: Methods, bound: float = 0.8, inputs: str = "samples") -> Answer:
    """What a search finds, and what it costs; `bound` is the success from which a trigger counts."""
    return Answer(counted(subject, subject.network, searched(subject, search, methods, inputs), bound))


def internals(subject: Subject, search: str, methods: Methods) -> Answer:
    """What the triggers of compromised neurons raise, beside those of the other candidates (ABS, Table 3)."""
    return Answer(inside.raised(subject, searched(subject, search, methods)))


def by_label(subject: Subject, search: str, methods: Methods, inputs: str = "samples") -> Answer:
    """For each label the best success of a trigger that is for its images alone (ABS, appendix D)."""
    found = searched(subject, search, methods, inputs)
    best: dict[str, float | None] = {}
    classes = subject.network.class_count
    for label in range(min(classes, 10)):
        own = [t.asr for t in found.triggers if t.source == label]
        if subject.attack is not None:  # the planted one moves each class to the next
            own = [t.asr for t in found.triggers if t.source == label and t.target == (label + 1) % classes]
        best[f"label_{label}"] = max(own, default=0.0)
    return Answer({**best, "labels": float(sum((value or 0.0) >= 0.8 for value in best.values()))})


def repair(
    subject: Subject,
    repair: str,
    settings: Mapping[str, Any],
    methods: Methods,
    search: str = "",
    valid: Mapping[str, float] | None = None,
    bound: float = 0.8,
    rescan: bool = False,
) -> Answer:
    """Accuracy and the true trigger's success before and after; without a search, with the true trigger."""
    found = searched(subject, search, methods) if search else repairing.truth_of(subject)
    return Answer(repairing.repaired(subject, found, repair, settings, methods, search if rescan else "", valid, bound))


def retraining(subject: Subject, search: str, methods: Methods, top_p: int, bound: float, rounds: int = 3) -> Answer:
    """Neurons found, their success and accuracy after each round; `top_p` is of 43 classes."""
    found = searched(subject, search, methods)
    return Answer(repairing.in_rounds(subject, found, search, methods, top_p, bound, rounds))


def clp_sweep(subject: Subject) -> Answer:
    """The best threshold from 0 to 3, by the true trigger (Koldenhof, appendix A.1)."""
    return Answer(repairing.clp_sweep(subject))


def channels(subject: Subject) -> Answer:
    """TAC and variance of every channel, as Z-scores of its layer (Koldenhof, Figures 6.1-6.3)."""
    values, arrays = inside.channels(subject)
    return Answer(values, arrays)


def pictures(subject: Subject, search: str, methods: Methods, bound: float = 0.8) -> Answer:
    """Reconstructed triggers beside the true one."""
    found = searched(subject, search, methods)
    values, arrays = inside.pictures(subject, found, bound)
    return Answer({**counted(subject, subject.network, found, bound), **values}, arrays)


def confusion(subject: Subject, search: str, methods: Methods, bound: float, top_p: int = 15) -> Answer:
    """What masked images are taken for (strategic retraining, Figure 3)."""
    values, arrays = inside.confusion(subject, searched(subject, search, methods), bound, top_p)
    return Answer(values, arrays)


def overactivation(subject: Subject) -> Answer:
    """The overactivation index against the clean network of the same seed."""
    from dataclasses import replace

    twin = Subject.of(replace(subject.plan, attack=None, options={}), subject.store, subject.backend)
    return Answer(inside.overactivation(subject, twin))


MEASURES: Mapping[str, Callable[..., Answer]] = {
    "training": training,
    "search": searching,
    "internals": internals,
    "by-label": by_label,
    "repair": repair,
    "retraining": retraining,
    "clp-sweep": clp_sweep,
    "channels": channels,
    "pictures": pictures,
    "confusion": confusion,
    "overactivation": overactivation,
}


def measured(subject: Subject, measure: str, settings: Mapping[str, Any]) -> Answer:
    """One measurement; what fails is an answer, too."""
    from dataclasses import replace

    started = subject.clock()
    try:
        answer = MEASURES[measure](subject, **settings)
    except AgnesError as error:
        answer = Answer({}, failed=str(error))
    return replace(answer, seconds=subject.clock() - started)
