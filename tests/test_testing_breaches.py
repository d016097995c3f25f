"""Promises of agnes.testing: each breach of the contract is caught by its own check."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from methods import Groups, Opens, OpensChecks, Suspects, breaching

from agnes.errors import OutOfTime, Refused
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.network import Network
from agnes.results import AdditiveTrigger, Candidate, Change, Evidence, MaskTrigger, Repair, Representatives
from agnes.testing import (
    AbstractionChecks,
    DiagnosisChecks,
    InversionChecks,
    MitigationChecks,
    StimulationChecks,
    tiny_network,
    tiny_samples,
)
from agnes.testing import networks as tiny

# --- methods that break it, each in one way --------------------------------------------------------------------------


@dataclass(frozen=True)
class Acts(Method):
    """Does something, then suspects a channel."""

    act: Callable[..., Any] | None = None  # what it does
    change: Any = None  # what becomes of its candidates

    @hookimpl
    def stimulate(self, network, samples, backend):
        if self.act is not None:
            self.act(network=network, samples=samples, backend=backend)
        found = [
            Candidate(network.layers[0].name, 0, 1, 2.0, 1.0, 2.0),
            Candidate(network.layers[0].name, 1, 1, 1.0, 1.0, 2.0),
        ]
        return found if self.change is None else self.change(found)


def first_parameter(network):
    return next(network.module.parameters())


def holds_much(backend, **_):
    return torch.zeros(3 * backend.memory // 4)  # floats of four bytes: three times the budget


NETWORK_BREACHES = {
    "the weight": lambda network, **_: first_parameter(network).mul_(2),
    "the mode": lambda network, **_: network.module.train(),
    "requires_grad": lambda network, **_: first_parameter(network).requires_grad_(True),
    "the gradient": lambda network, **_: network.module.zero_grad(),
    "the hooks": lambda network, **_: network.module.register_forward_hook(lambda *_: None),
}
SHARED_BREACHES = {
    "torch's random state": lambda **_: torch.rand(1),
    "numpy's random state": lambda **_: np.random.rand(1),
    "random's state": lambda **_: random.random(),
    "torch's gradient mode": lambda **_: torch.set_grad_enabled(False),
    "the images": lambda samples, **_: samples.images.zero_(),
    "printed": lambda **_: sys.stdout.write("here I am"),
}


@pytest.fixture
def put_back():
    """What the breaches below do to the whole process is undone."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    yield
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
    torch.set_grad_enabled(True)


@pytest.mark.parametrize("what", NETWORK_BREACHES)
def test_a_network_that_is_not_left_as_it_was_is_noticed(what):
    checks = breaching(StimulationChecks, Acts(NETWORK_BREACHES[what]))
    with pytest.raises(AssertionError, match=f"Acts changed .*{what}"):
        checks.test_the_network_is_left_as_it_was("plain")


@pytest.mark.parametrize("what", SHARED_BREACHES)
def test_what_all_share_is_watched(what, put_back):
    checks = breaching(StimulationChecks, Acts(SHARED_BREACHES[what]))
    with pytest.raises(AssertionError, match=f"Acts (changed )?.*{what}"):
        checks.test_nothing_shared_is_touched_and_nothing_printed("plain")


RESULT_BREACHES = {
    "best first": lambda found: found[::-1],
    "no channel 99": lambda found: [replace(found[0], channel=99)],
    "no layer 'nowhere'": lambda found: [replace(found[0], layer="nowhere")],
    "target is 77": lambda found: [replace(found[0], target=77)],
    "score of a candidate is nan": lambda found: [replace(found[0], score=float("nan"))],
    "one for each class": lambda found: [replace(found[0], elevations=(1.0, 2.0))],
    "positions are": lambda found: [replace(found[0], positions=torch.ones(2, 2, dtype=torch.bool))],
    "neither Candidate nor a list": lambda found: "many",
    "stands among the results": lambda found: [*found, 3],
}


@pytest.mark.parametrize("said", RESULT_BREACHES)
def test_candidates_that_cannot_be_are_noticed(said):
    checks = breaching(StimulationChecks, Acts(change=RESULT_BREACHES[said]))
    with pytest.raises(Exception, match=said):
        checks.test_its_results_are_what_its_stage_promises("plain")


def test_a_method_that_fails_is_told_with_its_error():
    checks = breaching(StimulationChecks, Acts(lambda **_: 1 / 0))
    with pytest.raises(
        AssertionError, match=r"Acts on the network 'plain': ZeroDivisionError: .* \(.*test_testing_breaches\.py:\d+\)"
    ):
        checks.test_it_runs_on_what_meets_its_needs("plain")
    with pytest.raises(pytest.skip.Exception):
        checks.test_the_network_is_left_as_it_was("plain")


def test_a_result_that_differs_from_run_to_run_is_noticed():
    count = itertools.count()
    checks = breaching(StimulationChecks, Acts(change=lambda found: [replace(found[0], score=float(next(count)))]))
    with pytest.raises(AssertionError, match="differs from run to run"):
        checks.test_the_same_seed_gives_the_same_result()


def test_a_result_drawn_from_a_global_state_is_noticed():
    draw = lambda found: [replace(found[0], score=float(torch.rand(())))]  # noqa: E731
    checks = breaching(StimulationChecks, Acts(change=draw))
    with pytest.raises(AssertionError, match="differs from run to run"):
        checks.test_the_same_seed_gives_the_same_result()


def test_a_method_beyond_its_memory_is_noticed():
    checks = breaching(StimulationChecks, Acts(holds_much))
    with pytest.raises(AssertionError, match=r"held [\d,]+ bytes at once and may hold"):
        checks.test_memory_stays_in_budget()


def test_a_spent_budget_may_end_in_nothing_but_its_own_error():
    def fails(backend, **_):
        try:
            backend.check()
        except OutOfTime:
            raise KeyError("half done") from None

    checks = breaching(StimulationChecks, Acts(fails))
    with pytest.raises(KeyError, match="half done"):
        checks.test_a_spent_time_budget_ends_it()


def test_partial_results_are_checked_as_well():
    def ends(**_):
        raise OutOfTime("late", partial=["no candidate"])

    checks = breaching(StimulationChecks, Acts(ends))
    with pytest.raises(AssertionError, match="stands among the results"):
        checks.test_a_spent_time_budget_ends_it()


def test_a_need_that_is_not_declared_is_noticed():
    checks = breaching(StimulationChecks, Acts(lambda samples, **_: samples.labels.sum()))
    with pytest.raises(AssertionError, match="Acts: failed: AttributeError"):
        checks.test_what_it_needs_and_is_not_there_skips_it_with_a_reason()


def test_a_need_that_no_network_meets_is_told():
    @dataclass(frozen=True)
    class Wants(Suspects):
        """Wants BatchNorm."""

        needs: ClassVar[frozenset[str]] = frozenset({"batch_norm"})

    checks = breaching(StimulationChecks, Wants())
    with pytest.raises(AssertionError, match="which none of"):
        checks.first_network()
    with pytest.raises(pytest.skip.Exception, match="needs batch normalisation in the network"):
        checks.test_it_runs_on_what_meets_its_needs("plain")


@pytest.mark.parametrize("answer", ["", True, 3])
def test_suits_gives_a_reason_or_none(answer):
    @dataclass(frozen=True)
    class Odd(Suspects):
        """Answers oddly."""

        def suits(self, network):
            return answer

    with pytest.raises(AssertionError, match="suits gives a reason or None"):
        breaching(StimulationChecks, Odd()).test_it_says_of_every_network_whether_it_suits("plain")


# --- what each stage promises ----------------------------------------------------------------------------------------

NETWORK = tiny_network("plain")
SAMPLES = tiny_samples(NETWORK)
DELTA = torch.zeros(tiny.INPUT_SHAPE)
STAIN = AdditiveTrigger(target=1, asr=0.5, held_out=2, delta=DELTA)


class Leaves01(AdditiveTrigger):
    def apply(self, images):
        return images + 2


class ChangesImages(AdditiveTrigger):
    def apply(self, images):
        return images.zero_()


TRIGGERS = {
    "no share": replace(STAIN, asr=1.5),
    "held-out": replace(STAIN, held_out=-1),
    "target is 5": replace(STAIN, target=5),
    "source is -1": replace(STAIN, source=-1),
    "names a channel and no layer": replace(STAIN, channel=1),
    "no channel 50": replace(STAIN, layer=NETWORK.layers[0].name, channel=50),
    "apply leaves": Leaves01(target=1, asr=0.5, held_out=2, delta=DELTA),
    "apply changes the images": ChangesImages(target=1, asr=0.5, held_out=2, delta=DELTA),
    "carry gradients": replace(STAIN, delta=DELTA.clone().requires_grad_()),
    "l1 is not finite": replace(STAIN, delta=DELTA + float("nan")),
    "not height x width": MaskTrigger(target=1, asr=1.0, held_out=1, mask=torch.ones(1, 1, 1), pattern=DELTA),
}


@pytest.mark.parametrize("said", TRIGGERS)
def test_triggers_that_cannot_be_are_noticed(said):
    with pytest.raises(AssertionError, match=said if said != "l1 is not finite" else "leaves|l1"):
        InversionChecks().check([TRIGGERS[said]], NETWORK, SAMPLES)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"score": float("inf")}, "is not finite"),
        ({"threshold": float("nan")}, "is not finite"),
        ({"null": (1.0, float("nan"))}, "is not finite"),
        ({"target": 5}, "target is 5"),
        ({"name": ""}, "no name"),
    ],
)
def test_evidence_that_cannot_be_is_noticed(change, said):
    evidence = Evidence("spread", 1.0, 2.0, (0.5,), 1)
    DiagnosisChecks().check(evidence, NETWORK, SAMPLES)
    with pytest.raises(AssertionError, match=said):
        DiagnosisChecks().check([replace(evidence, **change)], NETWORK, SAMPLES)


def repaired(**weights: float) -> Network:
    copy = NETWORK.copy()
    for name, value in weights.items():
        copy.module.get_parameter(name.replace("_", "."))[0] = value
    return copy


CHANGE = (Change(NETWORK.layers[0].name, 0, "set"),)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Repair(NETWORK, ()), "is the one that was given"),
        (lambda: Repair(NETWORK.with_class_names(["a", "b", "c", "d", "e"]), ()), "shares"),
        (lambda: Repair(tiny_network("residual"), CHANGE), "has more parameters"),
        (lambda: Repair(repaired(**{NETWORK.layers[0].weight.replace(".", "_"): 0.0}), ()), "lists no change"),
        (lambda: Repair(repaired(), CHANGE), "no weight was changed"),
        (
            lambda: Repair(repaired(**{NETWORK.layers[0].weight.replace(".", "_"): float("nan")}), CHANGE),
            "not all numbers",
        ),
        (lambda: Repair(in_training(repaired()), ()), "in training mode"),
    ],
)
def test_repairs_that_cannot_be_are_noticed(make, said):
    with pytest.raises(AssertionError, match=said):
        MitigationChecks().check(make(), NETWORK, SAMPLES)


def in_training(network: Network) -> Network:
    network.module.train()
    return network


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda clusters, positions: (clusters[:1], positions), "clusters of"),
        (lambda clusters, positions: (clusters.float(), positions), "not int64"),
        (lambda clusters, positions: (clusters, positions.long()), "not bool"),
        (lambda clusters, positions: (clusters - 1, positions), "has no cluster"),
        (lambda clusters, positions: (clusters, positions & (clusters > 0)), "have no representative"),
    ],
)
def test_representatives_that_are_no_partition_are_noticed(change, said):
    good = Groups().abstract(NETWORK, None)
    AbstractionChecks().check(good, NETWORK, SAMPLES)
    name = NETWORK.layers[0].name
    clusters, positions = change(good.clusters[name], good.positions[name])
    bad = Representatives({**good.clusters, name: clusters}, {**good.positions, name: positions})
    with pytest.raises(AssertionError, match=said):
        AbstractionChecks().check(bad, NETWORK, SAMPLES)


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_loader_that_runs_a_files_code_is_noticed(tmp_path):
    @dataclass(frozen=True)
    class Trusting(Opens):
        """Unpickles whatever comes."""

        @hookimpl
        def load(self, path):
            try:
                torch.load(path, weights_only=False)
            except Exception as error:
                raise Refused("refused") from error

    checks = type("Breaching", (OpensChecks,), {"method": Trusting()})()
    with pytest.raises(AssertionError, match="ran code from a file"):
        checks.test_code_hidden_in_a_file_is_not_run(tmp_path, "torch")


@pytest.mark.parametrize(
    ("check", "arguments", "act", "said"),
    [
        ("test_the_file_and_its_folder_are_left_as_they_were", (), "writes", "wrote beside the file"),
        ("test_a_foreign_file_is_left_to_others", (".txt",), "claims", "claims to open"),
        ("test_a_broken_file_is_refused_and_never_crashes", (), "crashes", "byte 3"),
        ("test_it_opens_a_good_file", (), "nothing", "gives None for its own"),
        ("test_the_same_file_gives_the_same_logits", (), "draws", "another network the second time"),
    ],
)
def test_a_loader_that_breaks_the_contract_is_noticed(tmp_path, check, arguments, act, said):
    count = itertools.count()

    @dataclass(frozen=True)
    class Loads(Method):
        """Opens as it is told."""

        @hookimpl
        def load(self, path):
            if act == "writes":
                (path.parent / "cache").write_text("x")
            if act == "crashes":
                raise KeyError("byte 3")
            return None if act == "nothing" else tiny_network("plain", next(count))

    checks = type("Breaching", (OpensChecks,), {"method": Loads()})()
    with pytest.raises((AssertionError, KeyError), match=said):
        getattr(checks, check)(tmp_path, *arguments)
