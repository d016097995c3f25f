"""From triggers and evidence to a verdict."""

import dataclasses

import fakes
import pytest
import torch

from agnes import judging
from agnes.detecting import _of_evidence
from agnes.results import AdditiveTrigger, Benign, Evidence, MethodRun, TriggerOutcome, Verdict


@pytest.fixture(scope="module")
def network():
    return fakes.tiny_network()


def trigger(target, size, asr=1.0, held_out=20, method="m"):
    delta = torch.zeros(3, 8, 8)
    whole = int(size)
    delta.flatten(1)[:, :whole] = 1.0
    if size > whole:
        delta.flatten(1)[:, whole] = size - whole
    return AdditiveTrigger(target=target, asr=asr, held_out=held_out, delta=delta, method=method)


def ran(name="m", stage="inversion", status="ok", reason=""):
    return MethodRun(name, stage, "d", "1", {}, status, reason)


def verdict(network, triggers, evidence=(), runs=None):
    return judging.judge(network, triggers, evidence, [ran()] if runs is None else runs)


OTHERS = [20, 26, 22, 30, 24, 28, 21]


def with_one(size, **options):
    return [trigger(c, s) for c, s in enumerate(OTHERS)] + [trigger(7, size, **options)]


def test_a_small_working_trigger_among_large_ones_convicts(network):
    found = verdict(network, with_one(1))
    assert (found.status, found.target, found.target_name) == ("backdoored", 7, "class 7")
    assert found.probability > 0.95
    assert "m:" in found.reasons[0]


@pytest.mark.parametrize(
    "triggers",
    [
        pytest.param(with_one(19), id="size as that of the others"),
        pytest.param(with_one(1, asr=0.5), id="works on half of the images"),
        pytest.param([trigger(c, s * 2) for c, s in enumerate(OTHERS)] + [trigger(7, 17)], id="a quarter of the image"),
        pytest.param([trigger(c, 5 + c / 10) for c in range(8)], id="all alike, all small"),
    ],
)
def test_a_trigger_that_is_no_exception_does_not_convict(network, triggers):
    assert verdict(network, triggers).status == "clean"


@pytest.mark.parametrize(
    ("benign", "status"),
    [
        pytest.param(Benign(0.2, 40), "inconclusive", id="most benign images wrong"),
        pytest.param(Benign(0.5, 40), "clean", id="half of them right"),
        pytest.param(Benign(0.2, 9), "clean", id="too few to tell"),
        pytest.param(Benign(None, 0), "clean", id="no labels"),
    ],
)
def test_a_network_that_errs_on_its_benign_images_does_not_pass(network, benign, status):
    found = judging.judge(network, [trigger(c, s) for c, s in enumerate(OTHERS)], (), [ran()], benign=benign)
    assert found.status == status
    assert any("--mean" in reason for reason in found.reasons) == (status == "inconclusive")


def test_a_conviction_of_a_network_that_errs_on_its_benign_images_says_so(network):
    found = judging.judge(network, with_one(1), (), [ran()], benign=Benign(0.2, 40))
    assert found.status == "backdoored"
    assert any("20% of 40 benign images right" in reason for reason in found.reasons)


def test_few_classes_to_compare_with_leave_a_working_trigger_undecided(network):
    found = verdict(network, [trigger(0, 1), trigger(1, 20), trigger(2, 22)])
    assert found.status == "inconclusive"
    assert "too few" in found.reasons[0]


def test_a_failed_method_is_named_as_the_reason(network):
    found = verdict(network, [], runs=[ran("slow", status="failed", reason="out of time"), ran()])
    assert found.status == "inconclusive"
    assert found.reasons[0] == "slow failed: out of time"


def test_a_failed_repair_does_not_cloud_a_clean_verdict(network):
    runs = [ran(), ran("prune", "mitigation", "failed", "no")]
    assert verdict(network, with_one(19), runs=runs).status == "clean"


def test_a_failed_method_does_not_hide_a_backdoor(network):
    found = verdict(network, with_one(1), runs=[ran("other", status="failed"), ran()])
    assert found.status == "backdoored"


def test_skipped_methods_alone_are_inconclusive_and_say_why(network):
    found = verdict(network, [], runs=[ran(status="skipped", reason="needs candidates")])
    assert found.status == "inconclusive"
    assert "m was skipped: needs candidates" in found.reasons


def test_nothing_run_is_never_clean(network):
    assert verdict(network, [], runs=[]).status == "inconclusive"


def test_stimulation_alone_cannot_acquit(network):
    assert verdict(network, [], runs=[ran("abs", "stimulation")]).status == "inconclusive"


def test_evidence_within_its_threshold_lets_a_network_pass(network):
    evidence = [Evidence("index", 0.5, 1.0, method="score")]
    found = verdict(network, [], evidence, [ran("score", "diagnosis")])
    assert found.status == "clean"
    assert "score: index is 0.5, within 1" in found.reasons


def test_evidence_above_its_threshold_is_inconclusive_without_a_trigger(network):
    evidence = [Evidence("index", 2.0, 1.0, method="score")]
    assert verdict(network, [], evidence, [ran("score", "diagnosis")]).status == "inconclusive"


def test_the_strongest_of_two_backdoors_is_the_target_and_both_are_told(network):
    others = [trigger(c, s) for c, s in enumerate(OTHERS[:6])]
    found = verdict(network, [*others, trigger(6, 2), trigger(7, 1)])
    assert found.targets == (7, 6)


def test_triggers_are_compared_within_their_own_method_only(network):
    small = [trigger(c, 1 + c / 20, method="fine") for c in range(8)]
    large = [trigger(c, s, method="coarse") for c, s in enumerate(OTHERS)]
    assert verdict(network, small + large, runs=[ran("fine"), ran("coarse")]).status == "clean"


def test_an_even_count_uses_the_true_median(network):
    weighed = judging.weigh(network, [trigger(c, s) for c, s in enumerate([4, 8, 16, 32])])
    index = {w.trigger.target: w.index for w in weighed}
    # log sizes are equally spaced: the median lies in the middle, the spread is one step
    assert index[0] == pytest.approx(1.5 / 1.4826)
    assert index[3] == pytest.approx(-1.5 / 1.4826)


def test_sizes_without_any_spread_do_not_divide_by_zero(network):
    assert all(w.index == 0 for w in judging.weigh(network, [trigger(c, 9) for c in range(8)]))


@pytest.mark.parametrize(("left", "status"), [(0.02, "clean"), (0.6, "clean"), (0.97, "backdoored")])
def test_a_repair_under_which_the_trigger_still_works_is_never_clean(left, status):
    rescan = Verdict("clean", 0.1, reasons=("m: no trigger was found",))
    outcomes = [TriggerOutcome(1, 1.0, 0.0, 40), TriggerOutcome(2, 1.0, left, 40)]
    found = judging.after_repair(rescan, outcomes, ["a", "b", "c"])
    assert found.status == status
    assert (found.target_name == "c") == (status == "backdoored")


@pytest.mark.parametrize(
    ("before", "left", "status"),
    [(0.8, 0.75, "backdoored"), (0.8, 0.5, "clean"), (0, 0, "clean")],
)
def test_a_weak_trigger_still_works_where_it_does_about_what_it_did(before, left, status):
    found = judging.after_repair(Verdict("clean", 0.1), [TriggerOutcome(2, before, left, 40)], ["a", "b", "c"])
    assert found.status == status


def test_a_trigger_that_still_works_is_named_though_the_re_scan_convicts_another_class():
    rescan = Verdict("backdoored", 0.8, 0, "a", ("m: box for a",), (0,))
    outcomes = [TriggerOutcome(1, 1.0, 0.0, 40), TriggerOutcome(2, 1.0, 1.0, 40)]
    found = judging.after_repair(rescan, outcomes, ["a", "b", "c"])
    assert (found.status, found.target, found.target_name, found.targets) == ("backdoored", 2, "c", (2, 0))
    assert found.reasons == (
        "the trigger to c that convicted the original still sends 100% of images there",
        "m: box for a",
    )
    assert judging.after_repair(rescan, outcomes[:1], ["a", "b", "c"]) == rescan


def test_a_trigger_that_almost_convicts_does_not_let_the_network_pass(network):
    sizes = (s / 10 for s in range(100, 200))
    probabilities = {size: judging.weigh(network, with_one(size))[0].probability for size in sizes}
    between = [size for size, probability in probabilities.items() if 0.9 <= probability < 0.95]
    assert between
    found = verdict(network, with_one(between[0]))
    assert found.status == "inconclusive"
    assert "deviations below" in found.reasons[0]


def test_a_class_that_was_never_tested_leaves_the_verdict_open(network):
    assert verdict(network, with_one(1, held_out=0)).status == "inconclusive"
    assert verdict(network, [trigger(c, s, held_out=0) for c, s in enumerate(OTHERS)]).status == "inconclusive"


def test_an_inversion_that_made_nothing_lets_no_network_pass(network):
    found = verdict(network, [])
    assert (found.status, found.reasons) == ("inconclusive", ("m made no trigger that could be tested",))


def test_searches_that_mostly_failed_are_nothing_to_compare_with(network):
    failed = [trigger(c, 40, asr=0.0) for c in range(4, 8)]
    found = verdict(network, [*(trigger(c, 9 + c) for c in range(4)), *failed])
    assert found.status == "inconclusive"
    assert "most searches ended" in found.reasons[0]


def test_too_few_classes_of_one_method_are_not_made_up_for_by_another(network):
    few = [trigger(c, s, method="few") for c, s in enumerate([1, 20, 22])]
    many = [trigger(c, s, method="many") for c, s in enumerate(OTHERS)]
    assert verdict(network, few + many, runs=[ran("few"), ran("many")]).status == "inconclusive"


# Random neurons


def of_neuron(found, share, purpose="candidate"):
    return dataclasses.replace(found, channel=1, null_share=share, purpose=purpose)


@pytest.mark.parametrize(
    ("share", "purpose", "status"),
    [
        (None, "candidate", "backdoored"),
        (0.05, "candidate", "backdoored"),
        (0.06, "candidate", "inconclusive"),  # unusual among classes, and random neurons do as well
        (None, "null", "inconclusive"),
    ],
)
def test_a_trigger_that_random_neurons_match_does_not_convict(network, share, purpose, status):
    *others, small = with_one(1)
    found = verdict(network, [*others, of_neuron(small, share, purpose)])
    assert found.status == status
    assert (f"do as well in {share or 0:.0%} of cases" in " ".join(found.reasons)) == (share is not None)


# The class's own features


@pytest.mark.parametrize(("share", "status"), [(None, "backdoored"), (0.1, "backdoored"), (0.11, "inconclusive")])
def test_a_trigger_that_is_the_classs_own_feature_does_not_convict(network, share, status):
    *others, small = with_one(1)
    found = verdict(network, [*others, dataclasses.replace(small, natural_share=share)])
    assert found.status == status
    told = f"the class's own content in its place moves {share or 0:.0%}" in " ".join(found.reasons)
    assert told == (share is not None)


# What is told of each trigger


def test_a_trigger_that_is_compared_with_no_other_class_has_no_anomaly_index(network):
    triggers = [*with_one(1), trigger(3, 5, method="alone"), trigger(3, 9, method="alone")]
    for calibrated in (True, False):
        found = judging.marked(network, triggers, Verdict("backdoored", 0.9, 7, targets=(7,), calibrated=calibrated))
        assert {t.method: t.anomaly_index is None for t in found} == {"m": False, "alone": True}
        assert [t.target for t in found if t.convicts] == [7]


def test_of_triggers_of_one_method_to_one_class_the_smallest_that_works_convicts(network):
    small, large, weak = trigger(7, 9, method="boxes"), trigger(7, 30, method="boxes"), trigger(7, 2, method="boxes")
    triggers = [large, dataclasses.replace(weak, asr=0.5), small, trigger(7, 40, method="others")]
    found = judging.marked(network, triggers, Verdict("backdoored", 0.9, 7, targets=(7,), calibrated=True))
    assert sorted((t.method, t.l1) for t in found if t.convicts) == [("boxes", small.l1), ("others", triggers[3].l1)]


def test_where_no_trigger_to_the_convicted_class_works_the_nearest_to_it_convicts(network):
    weaker, nearest, other, hardly = (
        dataclasses.replace(trigger(c, 9), asr=asr) for c, asr in ((7, 0.7), (7, 0.8), (3, 0.8), (5, 0.5))
    )
    said = Verdict("backdoored", 0.9, 7, targets=(7, 5), calibrated=True)

    def convicting(*more):
        return [t for t in judging.marked(network, [weaker, nearest, other, hardly, *more], said) if t.convicts]

    assert [(t.target, t.asr) for t in convicting()] == [(7, 0.8)]
    works = trigger(7, 30, method="others")
    assert [t.method for t in convicting(works)] == ["others"]
    neurons = dataclasses.replace(of_neuron(trigger(7, 9), None, "null"), asr=0.84)
    assert [t.asr for t in convicting(neurons)] == [0.8]


def test_a_random_neurons_trigger_neither_convicts_nor_takes_the_place_of_one_that_does(network):
    candidate, of_null = of_neuron(trigger(7, 36), None), of_neuron(trigger(7, 9), None, "null")
    found = judging.marked(network, [candidate, of_null], Verdict("backdoored", 0.9, 7, targets=(7,), calibrated=True))
    assert [(t.purpose, t.convicts) for t in found] == [("candidate", True), ("null", False)]


@pytest.mark.parametrize(("classes", "compared"), [(4, False), (5, True)])
def test_an_anomaly_index_takes_five_classes(network, classes, compared):
    triggers = [trigger(c, 4 + c) for c in range(classes)]
    found = judging.marked(network, triggers, Verdict("clean", 0.1, calibrated=True))
    assert all((t.anomaly_index is not None) == compared for t in found)


def test_a_trigger_of_a_diagnosis_was_tried_on_all_classes_unless_it_comes_from_a_neuron():
    assert _of_evidence(trigger(3, 5, method=""), "score").purpose == "scan"
    pointed = dataclasses.replace(trigger(3, 5), layer="first", channel=1)
    assert (_of_evidence(pointed, "score").purpose, _of_evidence(pointed, "score").method) == ("candidate", "score")
