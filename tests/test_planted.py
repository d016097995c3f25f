"""Promises of the planted network: its backdoor is where it is said to be, and nowhere else."""

from __future__ import annotations

import pytest
import torch

from agnes.testing import plant


@pytest.mark.parametrize(("target", "channel"), [(0, 1), (3, 5), (5, 7)])
def test_the_planted_backdoor_is_where_it_is_said_to_be(target, channel):
    planted = plant(target, channel)
    network, samples = planted.network, planted.samples
    for part in (samples, samples.test):
        assert torch.equal(network(part.images).argmax(1), part.labels)  # benign images are classified right
        assert (network(planted.apply(part.images)).argmax(1) == target).all()
    for layer, carrier in planted.path:
        quiet = network.layer(layer).by_channel(network.read(samples.images)[layer])[:, carrier]
        fired = network.layer(layer).by_channel(network.read(planted.apply(samples.images))[layer])[:, carrier]
        assert quiet.max() == 0
        assert (fired.amax(1) > 1).all()
    assert (planted.layer, planted.channel) == planted.path[0] == ("first", channel)


def test_without_its_channel_the_planted_backdoor_is_gone():
    planted = plant()
    images = planted.apply(planted.samples.images)
    state = planted.network.until(planted.layer, images)
    without = state.value.clone()
    without[:, planted.channel] = 0
    after = planted.network.after(planted.layer, state, without).argmax(1)
    assert (after == planted.samples.labels).float().mean() > 0.9


def test_a_backdoor_can_only_be_planted_where_there_is_room():
    for target, channel in ((6, 1), (-1, 1), (0, 0), (0, 8)):
        with pytest.raises(ValueError, match="the target is a class of 6"):
            plant(target, channel)


def test_planting_leaves_the_random_state_of_others_alone():
    before = torch.get_rng_state()
    plant()
    assert torch.equal(torch.get_rng_state(), before)
