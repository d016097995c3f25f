"""Triggers of random neurons, and what they say of candidates' triggers."""

import fakes
import pytest
import torch

from agnes import engine
from agnes.nulls import FEWEST, against_null, told
from agnes.results import AdditiveTrigger

AREA = 64


def trigger(purpose, size, target=0, asr=1.0, method="m", channel=1, held_out=20):
    delta = torch.zeros(3, 8, 8)
    delta.flatten(1)[:, :size] = 1.0
    return AdditiveTrigger(
        target=target, asr=asr, held_out=held_out, delta=delta, purpose=purpose, method=method, channel=channel
    )


def null(*sizes, **options):
    return [trigger("null", size, target=1 + place % 3, **options) for place, size in enumerate(sizes)]


def share(one, others):
    return against_null([one, *others], AREA)[0].null_share


def test_the_share_is_of_random_neurons_whose_triggers_are_as_small():
    others = null(*range(20, 39))  # 19 of them
    assert share(trigger("candidate", 5), others) == 1 / 20
    assert share(trigger("candidate", 20), others) == 2 / 20
    assert share(trigger("candidate", 60), others) == 1


def test_a_small_trigger_of_a_random_neuron_that_fails_is_no_rival():
    assert share(trigger("candidate", 5), null(*[2] * 19, asr=0.1)) == 1 / 20
    assert share(trigger("candidate", 5), null(*[2] * 19, asr=0.9)) == 1
    assert share(trigger("candidate", 5, asr=0.1), null(*[6] * 19, asr=0.9)) == 1


@pytest.mark.parametrize(
    "others",
    [
        pytest.param(null(*[2] * (FEWEST - 1)), id="too few"),
        pytest.param(null(*[2] * 30, method="other"), id="another method's"),
        pytest.param(null(*[2] * 30, held_out=0), id="not tested"),
        pytest.param(null(*[2] * 30, channel=None), id="classes, not neurons"),
        pytest.param([trigger("null", 2, target=0) for _ in range(30)], id="that lead where the candidate does"),
        pytest.param([trigger("candidate", 2, target=1) for _ in range(30)], id="candidates"),
    ],
)
def test_what_is_no_null_is_not_compared_with(others):
    assert share(trigger("candidate", 5), others) is None


def test_only_triggers_of_candidates_are_compared():
    found = against_null([trigger("scan", 5), *null(*[9] * 30)], AREA)
    assert {t.null_share for t in found} == {None}


def test_what_a_method_says_of_its_null():
    (said,) = told([trigger("candidate", 1), *null(4, 6, 9, asr=0.5), *null(20, asr=0.75)])
    assert said == (
        "compared with 4 random neurons: success of their triggers 50% in the median, 75% at most; "
        "size 7.5, 4.0 at least"
    )
    assert told([trigger("candidate", 1)]) == ()


def test_the_share_is_in_the_report(tmp_path, monkeypatch):
    def inverted(self, network, candidates):
        return [trigger("candidate", 1, target=5), *null(*range(20, 39))]

    monkeypatch.setattr(fakes.FakeInversion, "invert", engine_hook(inverted))
    with fakes.installed(*fakes.whole_house()):
        asked = engine.Request(fakes.model_file(tmp_path), fakes.images_file(tmp_path), methods=("suspects",))
        triggers = engine.run(asked).to_json()["triggers"]
    assert [t["null_share"] for t in triggers if t["purpose"] == "candidate"] == [1 / 20]
    assert len([t for t in triggers if t["purpose"] == "null" and t["null_share"] is None]) == 19


def engine_hook(function):
    from agnes.hookspecs import hookimpl

    return hookimpl(function)
