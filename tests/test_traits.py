"""What findings say in numbers: sizes and scores compared as a reader would by hand."""

import math

import pytest
import torch

from agnes.results import AdditiveTrigger, Evidence
from agnes.traits import log_size, traits

AREA = 64


def trigger(target, size, asr=1.0, held_out=20, method="m"):
    delta = torch.zeros(3, 8, 8)
    delta.flatten(1)[:, : int(size)] = 1.0
    return AdditiveTrigger(target=target, asr=asr, held_out=held_out, delta=delta, method=method)


def test_triggers_tell_how_small_the_smallest_is_and_how_far_apart():
    (trait,) = traits([trigger(c, s) for c, s in enumerate((16, 2, 8, 32, 16))], [], AREA)
    assert (trait.source, trait.target) == ("m", 1)
    assert trait.value == pytest.approx(math.log(4) / math.sqrt(spread_of([math.log(s) for s in (16, 8, 32, 16)])))


def spread_of(others):
    """By hand, and 0.05 on top of it."""
    mean = sum(others) / len(others)
    return math.sqrt(sum((v - mean) ** 2 for v in others) / len(others)) + 0.05


def test_the_smaller_of_two_triggers_to_a_class_counts():
    triggers = [trigger(c, s) for c, s in enumerate((16, 4, 8, 32, 16))]
    (trait,) = traits([*triggers, trigger(1, 2), trigger(1, 40)], [], AREA)
    (smaller,) = traits([*triggers, trigger(1, 2)], [], AREA)
    (as_it_was,) = traits(triggers, [], AREA)
    assert trait == smaller
    assert trait.value > as_it_was.value


def test_each_method_is_compared_with_itself():
    triggers = [trigger(c, s, method=m) for m, f in (("a", 1), ("b", 3)) for c, s in enumerate((16, 2 * f, 8, 32, 9))]
    assert [(t.source, t.target) for t in traits(triggers, [], AREA)] == [("a", 1), ("b", 1)]


@pytest.mark.parametrize(
    "triggers",
    [
        pytest.param([trigger(c, 4) for c in range(4)], id="four classes"),
        pytest.param([trigger(c, 4, held_out=0) for c in range(8)], id="untested"),
    ],
)
def test_triggers_that_cannot_be_compared_say_nothing(triggers):
    assert traits(triggers, [], AREA) == []


def test_a_trigger_that_fails_counts_as_large_as_the_image_and_one_that_half_works_as_between():
    assert log_size(trigger(0, 4, asr=0.0), AREA) == pytest.approx(math.log(AREA))
    assert log_size(trigger(0, 4, asr=0.85), AREA) == pytest.approx(math.log(4))
    assert log_size(trigger(0, 4, asr=0.425), AREA) == pytest.approx((math.log(4) + math.log(AREA)) / 2)


def test_evidence_tells_its_score_and_how_far_the_first_class_is_from_the_second_and_from_the_spread_of_others():
    said = [
        Evidence("box", 3.0, 1.0, by_class=(0.5, 3.0, 1.0, 0.0, -1.0), target=1, method="stamps"),
        Evidence("away", 0.7, 1.0, method="stamps"),
    ]
    away, box = traits([], said, AREA)
    assert (away.source, away.target, away.value) == ("stamps: away", None, 0.7)
    assert (box.source, box.target) == ("stamps: box", 1)
    assert box.value == pytest.approx(3.0 + 2.0 / math.sqrt(spread_of([0.5, 1.0, 0.0, -1.0])))


def test_of_the_next_classes_it_tells_how_far_they_lie_below_the_first():
    (box,) = traits([], [Evidence("box", 3.0, 1.0, by_class=SCORES, target=1, method="stamps")], AREA)
    others = {of: [score for each, score in enumerate(SCORES) if each != of] for of in range(6)}
    expected = {of: SCORES[of] + (SCORES[of] - 3.0) / math.sqrt(spread_of(others[of])) for of in (2, 0, 3, 4)}
    assert list(box.by_class) == [1, 2, 0, 3, 4]  # the strongest five
    assert {of: box.by_class[of] for of in expected} == pytest.approx(expected)
    assert box.by_class[1] == box.value
    assert box.said == box.by_class


SCORES = (0.5, 3.0, 1.0, 0.0, -1.0, -2.0)


def test_a_score_on_another_scale_than_the_classes_lies_as_far_above_them():
    one, other = (
        traits([], [Evidence("box", score, 1.0, by_class=SCORES, target=1, method="m")], AREA)[0] for score in (3, 13)
    )
    assert {of: value - one.by_class[of] for of, value in other.by_class.items()} == pytest.approx(
        dict.fromkeys(one.by_class, 10)
    )


def test_of_triggers_it_tells_how_small_those_to_the_next_classes_are():
    sizes = (16, 2, 8, 32, 16)
    (trait,) = traits([trigger(c, s) for c, s in enumerate(sizes)], [], AREA)
    others = [-math.log(size) for place, size in enumerate(sizes) if place != 2]
    assert list(trait.by_class) == [1, 2, 0, 4, 3]
    assert trait.by_class[2] == pytest.approx((-math.log(8) + math.log(2)) / math.sqrt(spread_of(others)))


def test_scores_of_too_few_classes_to_compare_say_nothing():
    few = Evidence("box", 3.0, 1.0, by_class=(0.5, 3.0, 1.0, 0.0), target=1, method="stamps")
    assert traits([], [few], AREA) == []


def test_scores_that_are_all_alike_do_not_divide_by_zero():
    (trait,) = traits([], [Evidence("box", 1.0, 1.0, by_class=(1.0,) * 6, target=0, method="stamps")], AREA)
    assert trait.value == 1
