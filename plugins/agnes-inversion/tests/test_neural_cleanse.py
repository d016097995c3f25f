"""Promises of neural-cleanse: for every class the smallest mask that works, and the planted one is the smallest."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from agnes_inversion.neural_cleanse import NeuralCleanse
from planted_corner import CLASSES, TARGET, backend

from agnes.errors import UsageError
from agnes.outliers import Low

METHOD = NeuralCleanse(steps=400)


@pytest.fixture(scope="module")
def triggers(network, samples):
    return {t.target: t for t in METHOD.invert(network, samples, [], backend())}


def test_the_planted_trigger_is_found_where_it_is_and_as_large_as_it_is(triggers):
    planted = triggers[TARGET]
    assert planted.asr >= 0.75  # no larger than its own images need: one in five of the others stays
    assert float(planted.mask[0, :3, :3].sum()) > 0.9 * planted.l1
    least = (18 - 3) / 3.7  # from the row's 18 to a tie
    assert 0.85 * least < planted.l1 < 1.4 * least
    yellow = planted.pattern[:, :3, :3][:, planted.mask[0, :3, :3] > 0.5]
    assert bool((yellow[:2] > 0.9).all() & (yellow[2] < 0.1).all())


def test_the_anomaly_index_of_the_planted_class_is_above_two_and_no_other_is(triggers):
    sizes = Low([t.l1 for t in triggers.values()])
    assert {target for target, t in triggers.items() if sizes.index(t.l1) > 2} == {TARGET}


def test_every_class_is_compared(triggers):
    assert set(triggers) == set(range(CLASSES))
    assert {t.purpose for t in triggers.values()} == {"scan"}


def test_the_same_seed_gives_the_same_trigger_and_another_seed_another(network, samples):
    quick = NeuralCleanse(steps=8)
    first, second = (quick.invert(network, samples, [], backend(seed=1)) for _ in range(2))
    other = quick.invert(network, samples, [], backend(seed=2))
    assert all(torch.equal(a.mask, b.mask) for a, b in zip(first, second, strict=True))
    assert any(not torch.equal(a.mask, b.mask) for a, b in zip(first, other, strict=True))


def test_restarts_leave_one_trigger_a_class(network, samples):
    found = replace(METHOD, steps=12, restarts=3).invert(network, samples, [], backend())
    assert sorted(t.target for t in found) == list(range(CLASSES))


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("share", 1.0), ("multiplier", 1.0)])
def test_a_setting_out_of_range_is_refused(name, value):
    with pytest.raises(UsageError, match=name):
        NeuralCleanse(**{name: value})
