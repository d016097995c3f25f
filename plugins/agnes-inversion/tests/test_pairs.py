"""Promises of the pair-wise search: a backdoor that works for one class alone is found for what it is."""

from __future__ import annotations

import pytest
import torch
from agnes_inversion.arms import Arm, divide
from agnes_inversion.hunting import dropping
from agnes_inversion.search import Found
from agnes_inversion.tao import TaoInversion
from planted_corner import backend
from planted_specific import CLASSES, SHAPE, SOURCE, TARGET, Specific

from agnes.differentiating import logits_of
from agnes.errors import AgnesError
from agnes.network import Network
from agnes.samples import Samples

METHOD = TaoInversion(pairs=True, steps=120, warm_up=40, views=0)  # a row moved by a pixel means another class


@pytest.fixture(scope="module")
def specific() -> Network:
    return Network.of(Specific().eval(), SHAPE)


@pytest.fixture(scope="module")
def found(specific, samples):
    return METHOD.invert(specific, samples, [], backend())


@pytest.fixture(scope="module")
def triggers(found):
    return {(t.source, t.target): t for t in found}


def test_every_target_has_a_trigger_and_pairs_that_came_to_nothing_are_told_of(found, triggers):
    pairs = {(s, t) for s in range(CLASSES) for t in range(CLASSES) if s != t}
    assert set(triggers) <= pairs
    assert len(found) == len(triggers)
    assert {target for _, target in triggers} == set(range(CLASSES))
    left = len(pairs) - len(found)
    assert left > 0
    assert found.notes == (f"{left} pairs stopped early, without a trigger that works",)


def test_of_every_target_the_pairs_that_have_come_furthest_go_on():
    arms = [Arm(target, "scan", source=source) for target in (0, 1) for source in range(2, 10)]
    made = Found.none(torch.zeros(16, 1, 1, 1))
    made.success[:] = torch.arange(16) / 32
    made.passed[3], made.sizes[3] = True, 50.0
    made.passed[9], made.sizes[9] = True, 50.0
    made.passed[10], made.sizes[10] = True, 9.0
    drop = dropping(arms, warm_up=5, keep=0.6)
    assert not drop(4, made).any()
    assert (~drop(5, made)).nonzero().flatten().tolist() == [3, 7, 9, 10]  # a quarter of eight for each


def test_a_pair_that_was_given_up_without_a_trigger_gives_none(specific, samples):
    parts = divide(samples, specific, 0.5, 500, backend())
    hunt = METHOD._hunt(specific, logits_of(specific), parts)
    arms = [Arm(TARGET, "scan", source=source) for source in range(3)]
    made = Found.none(torch.zeros(3, *SHAPE))
    made.success[:] = torch.tensor([0.5, 0.5, 1.0])
    made.dropped[:] = torch.tensor([True, False, True])
    made.passed[2] = True
    assert [t.source for t in hunt._measured(arms, made, backend())] == [1, 2]


def test_the_planted_pair_has_the_smallest_trigger_and_it_lies_on_the_corner(triggers):
    planted = triggers[SOURCE, TARGET]
    assert planted.asr == 1
    corner = planted.delta[:, :3, :3]
    assert float(corner.abs().sum()) > 0.8 * float(planted.delta.abs().sum())
    others = [t.l1 for pair, t in triggers.items() if pair != (SOURCE, TARGET)]
    assert min(others) > 1.5 * planted.l1


def test_a_search_over_classes_finds_nothing_unusual_there(specific, samples):
    found = {
        t.target: t.l1 for t in TaoInversion(steps=120, warm_up=40, views=0).invert(specific, samples, [], backend())
    }
    assert found[TARGET] > 0.6 * sorted(found.values())[CLASSES // 2]


def test_success_is_counted_on_held_out_images_of_the_source(specific, samples, triggers):
    parts = divide(samples, specific, METHOD.share, 500, backend())
    for (source, _), trigger in triggers.items():
        assert trigger.held_out == int((parts.held_out.labels == source).sum()) > 0


def test_an_arm_with_a_source_is_made_on_its_images_alone(specific, samples):
    parts = divide(samples, specific, 0.5, 500, backend())
    eligible = parts.eligible([Arm(TARGET, "scan", source=SOURCE), Arm(TARGET, "scan")])
    assert torch.equal(eligible[0], parts.labels == SOURCE)
    assert torch.equal(eligible[1], parts.labels != TARGET)


def test_one_image_a_class_is_too_few_for_pairs(specific, samples):
    single = Samples(samples.images[:CLASSES], torch.arange(CLASSES))
    with pytest.raises(AgnesError, match="several of each"):
        METHOD.invert(specific, single, [], backend())
