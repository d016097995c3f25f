"""Promises of two-stage: hopeless channels stop early, linked ones need no inversion, and the planted one is found."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from agnes_inversion.arms import divide
from agnes_inversion.two_stage import TwoStage
from planted_corner import TARGET, backend

from agnes import measuring
from agnes.errors import OutOfTime, UsageError
from agnes.results import Candidate
from agnes.testing import plant

PLANTED = plant(each=4)
METHOD = TwoStage(steps=250, null=0, linked=1.0)  # of eight channels, two carry the trigger


def candidate(layer: str, channel: int, target: int | None = None) -> Candidate:
    return Candidate(layer, channel, target, 1.0, 1.0, 0.0)


SUSPECTS = [candidate("first", 2), candidate("first", PLANTED.channel), candidate("second", PLANTED.channel)]


@pytest.fixture(scope="module")
def corner(network, samples):
    return TwoStage(steps=300, null=0).invert(network, samples, [candidate("corner", 0)], backend())


def test_the_planted_trigger_is_found_where_it_is(corner):
    (trigger,) = corner
    assert trigger.target == TARGET
    assert (trigger.layer, trigger.channel, trigger.purpose) == ("corner", 0, "candidate")
    assert trigger.asr >= 0.75  # no larger than its own images need: one in five of the others stays
    assert float(trigger.delta[:, :3, :3].abs().sum()) > 0.8 * float(trigger.delta.abs().sum())
    least = (18 - 3) / 3.7  # pixels that must turn yellow
    assert 0.85 * least < trigger.l1 < 9


@pytest.fixture(scope="module")
def linked():
    """With the true trigger in place of the search for it."""
    searched = []

    def triggers(self, arms, starts, backend):
        searched.extend((arm.layer, arm.channel) for arm in arms)
        return [
            replace(
                PLANTED.trigger,
                asr=1.0,
                held_out=4,
                target=a.target,
                layer=a.layer,
                channel=a.channel,
                purpose=a.purpose,
            )
            for a in arms
        ]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("agnes_inversion.two_stage.Hunt.triggers", triggers)
        found = METHOD.invert(PLANTED.network, PLANTED.samples, SUSPECTS, backend())
    return found, searched


def test_the_deepest_layer_comes_first_and_channels_linked_to_its_trigger_need_none(linked):
    found, searched = linked
    assert searched == [("second", PLANTED.channel)]
    assert [(t.layer, t.channel) for t in found] == searched
    assert "1 linked channels were not inverted" in found.notes


def test_linked_channels_are_those_of_the_activated_change(linked):
    found, _ = linked
    images = divide(PLANTED.samples, PLANTED.network, METHOD.share, METHOD.test_images, backend()).made_on.images
    change = measuring.trigger_activated_change(PLANTED.network, found[0], images, PLANTED.network.layers, backend())
    marked = {f"{layer}:{channel}" for layer, channel in measuring.outstanding(change, METHOD.linked)}
    assert f"first:{PLANTED.channel}" in marked
    (note,) = (note for note in found.notes if note.startswith("channels linked"))
    assert set(note.removeprefix("channels linked to a valid trigger: ").split(", ")) == marked


def test_a_hopeless_channel_stops_after_the_first_stage(linked):
    found, searched = linked
    assert "1 channels were given up after the first stage" in found.notes
    assert ("first", 2) not in searched


def test_random_channels_are_compared_with():
    found = replace(METHOD, steps=5, null=40).invert(PLANTED.network, PLANTED.samples, SUSPECTS[:1], backend())
    tried = {(t.layer, t.channel) for t in found}
    assert {t.purpose for t in found} == {"null"}
    assert ("first", PLANTED.channel) in tried


def test_no_candidates_give_no_triggers():
    assert list(METHOD.invert(PLANTED.network, PLANTED.samples, [], backend())) == []


def test_the_same_seed_gives_the_same_trigger_and_another_seed_another(network, samples, corner):
    quick = TwoStage(steps=300, null=0)
    again, other = (quick.invert(network, samples, [candidate("corner", 0)], backend(seed=seed))[0] for seed in (0, 1))
    assert torch.equal(corner[0].delta, again.delta)
    assert not torch.equal(again.delta, other.delta)


def test_time_that_runs_out_leaves_the_triggers_found_so_far(network, samples):
    hurried = replace(backend(), deadline=time.monotonic() + 3.0)
    with pytest.raises(OutOfTime) as error:
        TwoStage(steps=1_000_000, success=2.0).invert(network, samples, [candidate("corner", 0)], hurried)
    assert [(t.layer, t.channel) for t in error.value.partial] == [("corner", 0)]


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("share", 1.5), ("null", -1)])
def test_a_setting_out_of_range_is_refused(name, value):
    with pytest.raises(UsageError, match=name):
        TwoStage(**{name: value})
