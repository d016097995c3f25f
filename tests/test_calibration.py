"""Weights become probabilities as they say; other methods or settings than theirs are not weighed."""

import json
import math

import fakes
import pytest

from agnes import judging
from agnes.calibration import Calibration, Weighing, lifted, parse, shipped
from agnes.results import Benign, Evidence, MethodRun
from agnes.traits import Trait

SOURCE = "score: index"
WEIGHING = Weighing(-2.0, {SOURCE: {"apart": (3.0, 1.0, 0.5), "outlying": (1.0, 0.0, 1.0)}}, threshold=0.6, doubt=0.3)
CALIBRATION = Calibration({frozenset({SOURCE}): WEIGHING}, {"score": {"depth": 3}})


@pytest.fixture(scope="module")
def network():
    return fakes.tiny_network()


def ran(status="ok", reason="", **settings):
    return MethodRun("score", "diagnosis", "d", "1", settings or {"depth": 3}, status, reason)


def evidence(apart):
    """A first class so far above four others that are all alike but for the second: outlying by ten times as much."""
    by_class = (apart, 0.0, -SPREAD_OF_ONE, -SPREAD_OF_ONE, 0.0)
    return Evidence("index", apart, 9.0, by_class=by_class, target=0, method="score")


SPREAD_OF_ONE = 0.1  # half of the others lie so much lower: a spread of 0.05, to which 0.05 is added


def judged(network, apart, runs=None, **options):
    runs = [ran()] if runs is None else runs
    return judging.judge(network, [], [evidence(apart)], runs, calibration=CALIBRATION, **options)


def test_what_is_below_the_clean_mean_speaks_for_nothing():
    assert lifted(0.0, mean=1.0, spread=0.5) == 0
    assert lifted(2.0, mean=1.0, spread=0.5) == pytest.approx(math.log(3))


def test_the_probability_is_the_logistic_of_the_weighed_sum(network):
    found = judged(network, 2.0)
    odds = -2.0 + 3.0 * math.log(3) + 1.0 * math.log(21)
    assert found.probability == pytest.approx(1 / (1 + math.exp(-odds)))
    assert (found.status, found.target, found.targets, found.calibrated) == ("backdoored", 0, (0,), True)
    assert "score: index for class 0" in found.reasons[0]


def test_a_network_like_clean_ones_passes(network):
    found = judged(network, 0.0)
    assert (found.status, found.calibrated) == ("clean", True)
    assert found.probability == pytest.approx(1 / (1 + math.exp(2)))


def test_between_the_bounds_nothing_is_decided(network):
    found = judged(network, 0.5)  # log odds -2 + ln 6
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


def test_other_settings_than_those_of_the_calibration_are_not_weighed(network):
    found = judged(network, 2.0, runs=[ran(depth=4)])
    assert found.calibrated is False


def test_other_methods_than_those_of_the_calibration_are_not_weighed():
    assert CALIBRATION.of([], []) is None
    assert CALIBRATION.of([Trait("unknown", 0, {"score": 1.0})], []) is None


def test_a_method_that_the_calibration_does_not_know_does_not_disturb_it():
    known = Trait(SOURCE, 0, {"apart": 2.0, "outlying": 2.0})
    weighing = CALIBRATION.of([known, Trait("unknown", 0, {"score": 1.0})], [ran()])
    assert weighing is WEIGHING
    assert weighing.probability([known]) == weighing.probability([known, Trait("unknown", 0, {"score": 9.0})])


def test_the_shipped_calibration_weighs_what_runs_by_default_and_never_against_a_backdoor():
    calibration = shipped()
    assert set(calibration.settings) == {"haze", "stamps", "tints"}
    for weighing in calibration.weighings.values():
        assert weighing.threshold >= 0.5 > 0
        assert weighing.doubt < weighing.threshold
        assert all(weight >= 0 for values in weighing.weights.values() for weight, _, _ in values.values())


def test_a_file_is_read_as_it_was_written():
    said = {
        "schema_version": "1.0",
        "settings": {"score": {"depth": 3}},
        "weighings": [
            {
                "sources": [SOURCE],
                "intercept": -2.0,
                "weights": {SOURCE: {"apart": [3.0, 1.0, 0.5], "outlying": [1.0, 0.0, 1.0]}},
                "threshold": 0.6,
                "doubt": 0.3,
            }
        ],
    }
    assert parse(json.dumps(said)) == CALIBRATION
