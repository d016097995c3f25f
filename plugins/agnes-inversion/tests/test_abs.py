"""Promises of abs-mask and abs-feature: what excites a planted neuron is found; random neurons are compared with."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from agnes_inversion.abs import AbsFeature, AbsMask
from agnes_inversion.neurons import candidate_arms, excited, random_arms
from agnes_inversion.two_stage import TwoStage
from planted_corner import backend
from planted_tint import TARGET, Tinted, tint, tinted_samples
from torch import nn

from agnes.errors import OutOfTime, UsageError
from agnes.network import Network
from agnes.results import Candidate
from agnes.samples import Samples
from agnes.testing import plant

PLANTED = plant(each=6)


def wide_network() -> nn.Module:
    """With more neurons than are compared with at once."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.MaxPool2d(6), nn.Flatten(), nn.Linear(64, 4))


def candidate(channel: int, target: int | None, layer: str = "first", score: float = 1.0) -> Candidate:
    return Candidate(layer, channel, target, score, 0.0, 1.0)


TRUE = candidate(PLANTED.channel, PLANTED.target)
QUICK = AbsMask(steps=10, null=0, restarts=1)


@pytest.fixture(scope="module")
def mask_triggers():
    return AbsMask(steps=200, null=6, restarts=3, logit=0.0).invert(PLANTED.network, PLANTED.samples, [TRUE], backend())


@pytest.mark.parametrize("logit", [0.0, 1.0])
def test_the_planted_trigger_is_found_and_no_larger_than_it_is(logit):
    method = AbsMask(steps=200, null=0, restarts=3, logit=logit)
    (found,) = method.invert(PLANTED.network, PLANTED.samples, [TRUE], backend())
    assert found.asr == 1
    assert found.target == PLANTED.target
    assert (found.layer, found.channel, found.purpose) == ("first", PLANTED.channel, "candidate")
    assert found.l1 <= 0.06 * 16 * 16  # the largest mask that is allowed; the planted one has nine pixels


def test_random_neurons_are_compared_with_and_do_worse(mask_triggers):
    null = [t for t in mask_triggers if t.purpose == "null"]
    (found,) = (t for t in mask_triggers if t.purpose == "candidate")
    assert len(null) == 6
    assert len({(t.layer, t.channel) for t in mask_triggers}) == 7
    assert sorted(t.asr for t in null)[3] < 0.5 < found.asr


def test_a_mask_does_not_outgrow_its_bound(mask_triggers):
    assert max(t.l1 for t in mask_triggers) < 1.5 * 0.06 * 16 * 16


def test_neurons_of_a_class_are_excited_together():
    candidates = [
        candidate(5, 3, score=3.0),
        candidate(4, 3, "second", score=2.0),
        candidate(2, 1, score=1.0),
        candidate(7, 3, "second", score=0.5),
    ]
    images = PLANTED.samples.images
    arms = candidate_arms(PLANTED.network, candidates, 3, True, images, backend())
    assert [(arm.target, arm.neurons) for arm in arms] == [(3, (("first", 5), ("second", 4))), (1, (("first", 2),))]
    alone = candidate_arms(PLANTED.network, candidates, 3, False, images, backend())
    assert [arm.neurons for arm in alone] == [(("first", 5),), (("second", 4),), (("first", 2),)]
    found = replace(QUICK, neurons="all").invert(PLANTED.network, PLANTED.samples, candidates, backend())
    assert [(t.target, t.layer, t.channel) for t in found] == [(3, "first", 5), (1, "first", 2)]


def test_a_neuron_that_several_methods_point_to_counts_once_and_by_its_best_score():
    candidates = [candidate(5, 3, score=1.0), candidate(2, 1, score=2.0), candidate(5, 0, score=9.0)]
    for count in (1, 2):
        arms = candidate_arms(PLANTED.network, candidates, count, False, PLANTED.samples.images, backend())
        assert [(arm.channel, arm.target) for arm in arms] == [(5, 0), (2, 1)][:count]


@pytest.mark.parametrize("method", [AbsMask(share=0.5, null=0), TwoStage(share=0.5, null=0)])
def test_of_many_images_triggers_are_made_on_some_of_every_class(method, monkeypatch):
    """In a folder images lie class by class, and the first hundred are of a few classes."""
    many, made_on = plant(each=60), []

    def stop(parts):
        made_on.extend(parts.made_on.labels.bincount().tolist())
        raise KeyboardInterrupt

    monkeypatch.setattr("agnes_inversion.abs.Hunt", lambda network, logits, parts, *rest: stop(parts))
    monkeypatch.setattr("agnes_inversion.two_stage._Run", lambda method, network, fast, parts, backend: stop(parts))
    class_by_class = many.samples.subset(many.samples.labels.argsort(stable=True))
    with pytest.raises(KeyboardInterrupt):
        method.invert(many.network, class_by_class, [TRUE], backend())
    assert made_on == [17, 17, 17, 17, 16, 16]


def test_a_candidate_without_a_class_gets_the_one_it_raises_most():
    images = PLANTED.samples.images
    (arm,) = candidate_arms(PLANTED.network, [candidate(PLANTED.channel, None)], 10, False, images, backend())
    assert arm.target == PLANTED.target
    (rise,) = excited(PLANTED.network, [("second", 2)], images, backend())
    state = PLANTED.network.until("second", images)
    value = state.value.clone()
    value[:, 2] = 2 * state.value.max()
    expected = (PLANTED.network.after("second", state, value) - PLANTED.network(images)).mean(0)
    torch.testing.assert_close(rise, expected, rtol=1e-3, atol=1e-3)


def test_of_many_images_those_that_tell_what_a_neuron_raises_are_of_every_class(monkeypatch):
    images = torch.arange(100.0).view(-1, 1, 1, 1).expand(-1, 3, 16, 16)
    seen = []
    monkeypatch.setattr(type(PLANTED.network), "until", lambda self, layer, images: seen.append(images) or stop())

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        excited(PLANTED.network, [("second", 2)], images, backend())
    numbers = seen[0][:, 0, 0, 0].tolist()
    assert len(numbers) <= 32
    assert max(numbers) >= 96


def test_random_neurons_are_none_of_the_candidates():
    images = PLANTED.samples.images
    arms = candidate_arms(PLANTED.network, [TRUE], 10, False, images, backend())
    null = random_arms(PLANTED.network, arms, 100, images, backend())
    every = {(layer.name, channel) for layer in PLANTED.network.layers for channel in range(layer.channels)}
    assert {arm.neurons[0] for arm in null} == every - {("first", PLANTED.channel)}


def test_the_same_seed_gives_the_same_trigger_and_another_seed_another():
    first, second, other = (
        QUICK.invert(PLANTED.network, PLANTED.samples, [TRUE], backend(seed=seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first.mask, second.mask)
    assert not torch.equal(first.mask, other.mask)


def test_where_time_is_short_fewer_neurons_are_compared_with_and_none_half_done():
    slow = AbsMask(steps=1_000_000, null=8, restarts=1, success=2.0)  # nothing is ever good enough to end early
    hurried = replace(backend(), deadline=time.monotonic() + 3.0)
    with pytest.raises(OutOfTime) as error:
        slow.invert(PLANTED.network, PLANTED.samples, [TRUE], hurried)
    assert [t.purpose for t in error.value.partial] == ["candidate"]


def test_how_well_random_neurons_did_is_told_with_their_number():
    found = replace(QUICK, steps=2, null=99).invert(PLANTED.network, PLANTED.samples, [TRUE], backend())
    null = [t for t in found if t.purpose == "null"]
    assert len(null) == 15  # all that there are
    assert found.notes[0].startswith("compared with 15 random neurons: success of their triggers")
    assert f"{max(t.asr for t in null):.0%} at most" in found.notes[0]
    assert f"{min(t.l1 for t in null):.1f} at least" in found.notes[0]


def test_time_that_runs_out_among_the_random_neurons_leaves_the_note_of_those_there_were():
    class Late(AbsMask):
        def _searched(self, hunt, arms, seeds, backend, offset=0):
            if offset:
                raise OutOfTime("the time is up")
            return super()._searched(hunt, arms, seeds, backend, offset)

    wide = Network.of(wide_network().eval(), (3, 8, 8))
    samples = Samples(torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4)
    late = Late(steps=2, null=60, restarts=1)
    with pytest.raises(OutOfTime) as error:
        late.invert(wide, samples, [candidate(0, 1, wide.layers[0].name)], backend())
    assert [t.purpose for t in error.value.partial] == ["candidate"] + ["null"] * 25
    assert "compared with 25 random neurons" in error.value.partial.notes[0]


def test_the_planted_filter_is_found():
    network = Network.of(Tinted().eval(), (3, 12, 12))
    samples = tinted_samples()
    method = AbsFeature(steps=150, null=3)
    found = method.invert(network, samples, [candidate(0, TARGET, "tint")], backend())
    (trigger,) = (t for t in found if t.purpose == "candidate")
    assert trigger.asr == 1
    before, after = samples.images, trigger.apply(samples.images)
    bluer = tint(after) - tint(before)
    assert float(bluer.mean()) > 0.5 * float((tint(Tinted.filtered(before)) - tint(before)).mean())
    assert 0 < trigger.l1 < 0.5 * 12 * 12


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(AbsMask, "restarts", 0), (AbsMask, "null", -1), (AbsFeature, "share", 0.0), (AbsFeature, "window", 4)],
)
def test_a_setting_out_of_range_is_refused(kind, name, value):
    with pytest.raises(UsageError, match=name):
        kind(**{name: value})
