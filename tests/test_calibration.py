"""Weights become probabilities as they say; other methods or settings than theirs are not weighed."""

import json
import math
from dataclasses import replace
from typing import NamedTuple

import fakes
import pytest
import torch

from agnes import judging
from agnes.calibration import SCHEMA_VERSION, Calibration, Weighing, deviating, deviations, parse, raised, shipped
from agnes.errors import Refused
from agnes.results import AdditiveTrigger, Benign, Evidence, MethodRun
from agnes.traits import Trait

SOURCE, OTHER = "score: index", "score: other"
WEIGHING = Weighing({SOURCE: (1.0, 0.5)}, -2.0, 3.0, threshold=0.6, doubt=0.3)
BOTH = Weighing({SOURCE: (1.0, 0.5), OTHER: (0.0, 2.0)}, -2.0, 3.0, threshold=0.6, doubt=0.3)
CALIBRATION = Calibration({frozenset({SOURCE}): WEIGHING, frozenset({SOURCE, OTHER}): BOTH}, {"score": {"depth": 3}})


@pytest.fixture(scope="module")
def network():
    return fakes.tiny_network()


def ran(status="ok", reason="", **settings):
    return MethodRun("score", "diagnosis", "d", "1", settings or {"depth": 3}, status, reason)


def evidence(score, name="index", target=0):
    """A score that compares no classes."""
    return Evidence(name, score, 9.0, target=target, method="score")


def judged(network, score, runs=None, **options):
    runs = [ran()] if runs is None else runs
    return judging.judge(network, [], [evidence(score)], runs, calibration=CALIBRATION, **options)


def said(source, value, target=None, **by_class):
    classes = {int(name.removeprefix("c")): number for name, number in by_class.items()}
    return Trait(source, target, value, classes)


CLEAN = {"a": (1.0, 0.5), "b: x": (0.0, 1.0), "b: y": (0.0, 1.0), "c: x": (0.0, 1.0), "c: y": (0.0, 1.0)}


def test_what_is_below_the_middle_of_clean_networks_speaks_for_nothing():
    assert deviations(2.0, middle=1.0, spread=0.5) == 2
    assert raised([said("a", 0.0)], CLEAN) == 0
    assert raised([said("a", 2.0)], CLEAN) == pytest.approx(math.log(3))
    assert raised([said("a", 2.0), said("b: x", -5.0)], CLEAN) == raised([said("a", 2.0)], CLEAN)
    assert raised([], CLEAN) == 0


def test_findings_count_together_for_one_class():
    agree = [said("a", 2.5, 3, c3=2.5, c1=1.0), said("b: x", 4.0, 3, c3=4.0, c2=0.5)]
    differ = [said("a", 2.5, 3, c3=2.5, c1=1.0), said("b: x", 4.0, 2, c2=4.0, c3=0.5)]
    assert deviating(agree, CLEAN) == pytest.approx({None: 0, 3: 5, 1: 0, 2: 0.5})
    assert raised(agree, CLEAN) == pytest.approx(math.log(6))
    assert deviating(differ, CLEAN) == pytest.approx({None: 0, 3: math.sqrt(9.25), 1: 0, 2: 4})
    assert raised(differ, CLEAN) == pytest.approx(math.log(5))


def test_what_is_said_of_no_class_counts_for_every_one_and_alone():
    alone = said("c: x", 3.0)
    assert raised([alone], CLEAN) == pytest.approx(math.log(4))
    assert raised([alone, said("b: x", 4.0, 2, c2=4.0)], CLEAN) == pytest.approx(math.log(6))


def test_everything_that_one_method_says_counts():
    twice = [said("b: x", 4.0, 2, c2=4.0), said("b: y", 3.0, 2, c2=3.0)]
    of_none = [said("c: x", 3.0), said("c: y", 4.0)]
    for found in (twice, twice[::-1], of_none):
        assert raised(found, CLEAN) == pytest.approx(math.log(6))


def test_the_probability_is_the_logistic_of_the_weighed_deviations(network):
    found = judged(network, 2.0)
    assert found.probability == pytest.approx(1 / (1 + math.exp(2.0 - 3.0 * math.log(3))))
    assert (found.status, found.target, found.targets, found.calibrated) == ("backdoored", 0, (0,), True)
    assert found.reasons[0] == "score: index for class 0: 2.00, 2.0 deviations above the mean of clean networks"


def test_where_findings_convict_together_alone_the_strongest_with_a_class_is_named(network):
    everywhere, somewhere = evidence(1.6, target=None), evidence(2.0, "other", target=2)  # 1.2 and 1.0 deviations
    found = judging.judge(network, [], [everywhere, somewhere], [ran()], calibration=CALIBRATION)
    assert [BOTH.alone(Trait(s, None, v)) < 0.6 for s, v in ((SOURCE, 1.6), (OTHER, 2.0))] == [True, True]
    assert (found.status, found.target, found.targets) == ("backdoored", 2, (2,))


def test_findings_of_different_classes_do_not_count_together(network):
    weak, strong = evidence(1.2), evidence(6.0, "other", target=2)  # 0.4 and 3 deviations
    found = judging.judge(network, [], [weak, strong], [ran()], calibration=CALIBRATION)
    assert found.probability == pytest.approx(1 / (1 + math.exp(2.0 - 3.0 * math.log1p(3))))
    assert (found.target, found.targets) == (2, (2,))
    assert [reason.partition(" for ")[0] for reason in found.reasons] == [OTHER, SOURCE]


def test_all_findings_that_would_convict_alone_name_their_targets(network):
    both = [evidence(3.0), evidence(6.0, "other", target=2)]  # 4 and 3 deviations
    found = judging.judge(network, [], both, [ran()], calibration=CALIBRATION)
    assert found.targets == (0, 2)


def test_findings_that_convict_together_alone_name_the_class_they_agree_on(network):
    both = [evidence(1.45, target=2), Evidence("index", 1.9, 9.0, target=2, method="other")]  # 0.9, 0.95 deviations
    clean = {SOURCE: (1.0, 0.5), "other: index": (0.0, 2.0)}
    weighing = replace(BOTH, clean=clean)
    calibration = Calibration({frozenset(clean): weighing}, {"score": {"depth": 3}})
    found = judging.judge(network, [], both, [ran()], calibration=calibration)
    assert all(weighing.alone(Trait(e.method + ": " + e.name, e.target, e.score)) < weighing.threshold for e in both)
    assert (found.status, found.target, found.targets) == ("backdoored", 2, (2,))


class Pointing(NamedTuple):
    """What a method says of classes, in deviations above clean networks."""

    method: str
    by_class: dict[int, float]

    def trait(self):
        first = max(self.by_class, key=lambda each: self.by_class[each])
        return Trait(f"{self.method}: x", first, self.by_class[first], self.by_class)


def verdict_on(monkeypatch, network, said, of_none=(), triggers=()):
    """The verdict where methods say this of classes, and this of none."""
    found = [each.trait() for each in said] + [Trait(f"none{n}: x", None, value) for n, value in enumerate(of_none)]
    monkeypatch.setattr(judging, "traits", lambda *_: found)
    weighing = Weighing({t.source: (0.0, 1.0) for t in found}, -4.0, 2.5, threshold=0.5, doubt=0.2)  # convicts at 3.95
    calibration = Calibration({frozenset(weighing.clean): weighing}, {})
    return judging.judge(network, triggers, [], [ran()], calibration=calibration)


@pytest.mark.parametrize(
    ("said", "of_none", "targets"),
    [
        pytest.param([{1: 3.4, 2: 3.0}, {2: 3.0}, {2: 3.0}], (), (2,), id="most agree on another class"),
        pytest.param([{1: 5.0, 2: 4.5}, {2: 4.5}], (), (2, 1), id="the class agreed on, then who convicts alone"),
        pytest.param([{1: 1.0}], (6.0,), (), id="what is said of no class convicts"),
        pytest.param([{1: 1.0}], (3.5, 3.5), (), id="so does it together"),
        pytest.param([{1: 7.0}], (6.0,), (1,), id="a class says more"),
        pytest.param([{1: 5.0}], (6.0,), (1,), id="a class convicts alone too"),
        pytest.param([{1: 2.0}], (3.6,), (1,), id="both are needed"),
        pytest.param([{1: -1.0}], (6.0,), (), id="no class stands out"),
    ],
)
def test_the_class_that_methods_speak_for_together_is_named(monkeypatch, network, said, of_none, targets):
    found = verdict_on(monkeypatch, network, [Pointing(f"m{n}", each) for n, each in enumerate(said)], of_none)
    assert (found.status, found.targets) == ("backdoored", targets)
    assert found.target == (targets[0] if targets else None)


@pytest.mark.parametrize(
    ("said", "of_none", "small", "status"),
    [
        pytest.param([{1: 2.2, 2: 2.0}, {2: 2.0}], (), 2, "backdoored", id="to the class agreed on"),
        pytest.param([{1: 2.2, 2: 2.0}, {2: 2.0}], (), 1, "inconclusive", id="to the strongest of one method"),
        pytest.param([{1: 0.01}], (3.0,), 1, "inconclusive", id="what is said of no class made the doubt"),
        pytest.param([{1: 2.5}], (2.0,), 1, "backdoored", id="the class says more"),
    ],
)
def test_in_doubt_a_trigger_decides_that_leads_to_the_class_methods_agree_on(
    monkeypatch, network, said, of_none, small, status
):
    pointing = [Pointing(f"m{n}", each) for n, each in enumerate(said)]
    assert verdict_on(monkeypatch, network, pointing, of_none).status == "inconclusive"
    found = verdict_on(monkeypatch, network, pointing, of_none, searched(small))
    assert (found.status, found.target) == (status, small if status == "backdoored" else None)


def test_the_reasons_say_what_each_method_says_of_the_class_that_is_named(monkeypatch, network):
    said = [Pointing("m0", {1: 3.4, 2: 3.0}), Pointing("m1", {3: 3.3, 2: 3.0}), Pointing("m2", {4: 1.0, 2: -1.0})]
    assert verdict_on(monkeypatch, network, said).reasons == (
        "m0: x for class 1: 3.40, 3.4 deviations above the mean of clean networks",
        "m0: x for class 2: 3.00, 3.0 deviations above the mean of clean networks",
        "m1: x for class 3: 3.30, 3.3 deviations above the mean of clean networks",
        "m1: x for class 2: 3.00, 3.0 deviations above the mean of clean networks",
        "m2: x for class 4: 1.00, 1.0 deviations above the mean of clean networks",
    )


def test_a_network_like_clean_ones_passes(network):
    found = judged(network, 0.0)
    assert (found.status, found.calibrated) == ("clean", True)
    assert found.probability == pytest.approx(1 / (1 + math.exp(2)))


def test_between_the_bounds_nothing_is_decided(network):
    found = judged(network, 1.45)  # log odds -2 + 3 ln 1.9
    assert 0.3 <= found.probability < 0.6
    assert found.status == "inconclusive"


@pytest.mark.parametrize(
    ("runs", "benign"),
    [
        pytest.param([ran(), MethodRun("other", "inversion", "d", "1", {}, "failed", "late")], None, id="failed"),
        pytest.param([ran()], Benign(0.2, 40), id="benign images wrong"),
    ],
)
def test_doubts_keep_a_network_from_passing_but_not_from_being_convicted(network, runs, benign):
    assert judged(network, 0.0, runs, benign=benign).status == "inconclusive"
    assert judged(network, 2.0, runs=runs, benign=benign).status == "backdoored"


def searched(small, method="search"):
    """Triggers to eight classes of which one is far smaller than the others."""
    sizes = [2.0 if target == small else 24.0 + target for target in range(8)]
    deltas = [torch.zeros(3, 8, 8) for _ in sizes]
    for delta, size in zip(deltas, sizes, strict=True):
        delta.flatten(1)[:, : int(size)] = 1.0
    return [AdditiveTrigger(target=c, asr=1.0, held_out=20, delta=d, method=method) for c, d in enumerate(deltas)]


@pytest.mark.parametrize(
    ("score", "small", "status"),
    [
        (1.45, 0, "backdoored"),  # in doubt, and the search points to the same class
        (1.45, 5, "inconclusive"),  # to another one
        (0.0, 0, "inconclusive"),  # the calibration acquits, and the search does not
        (2.0, 5, "backdoored"),  # the calibration needs no help
    ],
)
def test_in_doubt_a_convicting_trigger_to_the_same_class_decides_and_one_to_another_leaves_it_open(
    network, score, small, status
):
    found = judging.judge(network, searched(small), [evidence(score)], [ran()], calibration=CALIBRATION)
    alone = judging.judge(network, [], [evidence(score)], [ran()], calibration=CALIBRATION)
    assert (found.status, found.probability, found.calibrated) == (status, alone.probability, True)
    assert found.target == (0 if status == "backdoored" else None)
    assert any(reason.startswith("search: a trigger of size 2.0") for reason in found.reasons) == (score < 2)


@pytest.mark.parametrize(("score", "status"), [(0.0, "clean"), (1.45, "inconclusive"), (2.0, "backdoored")])
def test_a_score_above_its_threshold_that_the_calibration_does_not_know_is_told_of_and_does_not_count(
    network, score, status
):
    unknown = [Evidence("margin", 5.0, 1.3, method="other"), Evidence("margin", 1.0, 1.3, method="quiet")]
    found = judging.judge(network, [], [evidence(score), *unknown], [ran()], calibration=CALIBRATION)
    alone = judged(network, score)
    assert (found.status, found.probability, found.target) == (status, alone.probability, alone.target)
    told = [reason for reason in found.reasons if reason not in alone.reasons]
    assert told == ["other: margin is 5, above 1.3; the calibration does not know it"]


def test_other_settings_than_those_of_the_calibration_are_not_weighed(network):
    found = judged(network, 2.0, runs=[ran(depth=4)])
    assert found.calibrated is False


def test_other_methods_than_those_of_the_calibration_are_not_weighed():
    assert CALIBRATION.of([], []) is None
    assert CALIBRATION.of([Trait("unknown", 0, 1.0)], []) is None


def test_a_method_that_the_calibration_does_not_know_does_not_disturb_it():
    known = Trait(SOURCE, 0, 2.0)
    weighing = CALIBRATION.of([known, Trait("unknown", 0, 1.0)], [ran()])
    assert weighing is WEIGHING
    assert weighing.probability([known]) == weighing.probability([known, Trait("unknown", 0, 9.0)])


def test_the_shipped_calibration_weighs_what_runs_by_default_and_never_against_a_backdoor():
    calibration = shipped()
    assert set(calibration.settings) == {"haze", "pieces", "stamps", "tints", "waves"}
    for weighing in calibration.weighings.values():
        assert 1 > weighing.threshold >= 0.5
        assert weighing.doubt < weighing.threshold
        assert weighing.weight >= 0
        assert all(spread > 0 for _, spread in weighing.clean.values())


def test_a_file_is_read_as_it_was_written():
    numbers = {"intercept": -2.0, "weight": 3.0, "threshold": 0.6, "doubt": 0.3}
    said = {
        "schema_version": SCHEMA_VERSION,
        "settings": {"score": {"depth": 3}},
        "weighings": [
            {"clean": {SOURCE: [1.0, 0.5]}, **numbers},
            {"clean": {SOURCE: [1.0, 0.5], OTHER: [0.0, 2.0]}, **numbers},
        ],
    }
    assert parse(json.dumps(said)) == CALIBRATION
    with pytest.raises(Refused, match=r"calibration.json is of version '3\.0'; make it anew"):
        parse(json.dumps({**said, "schema_version": "3.0"}))
