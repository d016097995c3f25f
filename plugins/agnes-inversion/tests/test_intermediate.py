"""Promises of intermediate triggers: added to one channel's map alone, they move the class they are made for."""

from __future__ import annotations

import pytest
import torch
from agnes_inversion.intermediate import Channels, Intermediate, Making, _away, _towards, intermediate_triggers
from planted_corner import backend
from tiny import tiny_images, tiny_network

from agnes.differentiating import quick
from agnes.testing import plant

PLANTED = plant(each=2)
FAST = quick(PLANTED.network)
MAKING = Making(rate=0.1, output="probabilities")


def made(channels: list[int], targets: list[int | None], **options) -> list[Intermediate]:
    return intermediate_triggers(
        FAST, FAST.layer("first"), channels, targets, PLANTED.samples, MAKING, options.get("backend", backend())
    )


def test_the_planted_channel_has_a_valid_trigger_to_the_planted_class_and_others_have_none():
    found = made([PLANTED.channel, 2, 6], [None, None, None])
    assert [trigger.valid for trigger in found] == [True, False, False]
    assert found[0].target == PLANTED.target
    assert [trigger.channel for trigger in found] == [PLANTED.channel, 2, 6]


def test_a_class_that_is_known_is_kept():
    (found,) = made([PLANTED.channel], [1])
    assert found.target == 1
    assert not found.valid


@pytest.mark.parametrize(
    ("rises", "valid"),
    [([0.4, 0.1, 0.0], True), ([0.29, 0.0, 0.0], False), ([0.4, 0.35, 0.0], False), ([0.1, 0.5, 0.0], False)],
)
def test_valid_means_one_class_rises_enough_and_no_other_nearly_as_much(rises, valid):
    assert Intermediate(0, torch.zeros(4), 0, torch.tensor(rises)).valid is valid


def test_many_channels_at_once_are_as_one_at_a_time():
    together = made([PLANTED.channel, 2], [None, None])
    alone = [made([channel], [None])[0] for channel in (PLANTED.channel, 2)]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.map, other.map, rtol=1e-3, atol=1e-4)
        assert one.target == other.target


def test_logits_are_those_of_the_whole_network_with_the_map_added_before_the_relu():
    network = tiny_network()
    images, _ = tiny_images()
    cut = Channels(network, network.layers[0], images)
    channels = torch.tensor([1, 3])
    maps = torch.randn(2, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = cut.logits(channels, maps)
    module = network.module
    for row, channel in enumerate(channels.tolist()):
        before = module.get_submodule("0")(images).clone()
        before[:, channel] += maps[row].view(6, 6)
        hidden = module.get_submodule("2")(before.relu()).tanh()
        torch.testing.assert_close(found[row], module.get_submodule("5")(hidden.flatten(1)))
    rises = cut.rises(channels, maps, "logits")
    torch.testing.assert_close(rises, (found - network(images)).mean(1))
    probable = cut.rises(channels, maps, "probabilities")
    torch.testing.assert_close(probable, (found.softmax(2) - network(images).softmax(1)).mean(1))


@pytest.mark.parametrize("stage", ["away", "towards"])
def test_the_gradient_of_each_loss_is_that_of_finite_differences(stage):
    network = tiny_network()
    images, labels = tiny_images()
    cut = Channels(network, network.layers[0], images)
    channels, aims = torch.tensor([1, 3]), torch.tensor([2, 0])

    def loss(maps: torch.Tensor) -> torch.Tensor:
        logits = cut.logits(channels, maps)
        return _away(logits, labels) if stage == "away" else _towards(logits, aims)

    maps = torch.randn(2, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(loss, maps.requires_grad_(), eps=1e-6, atol=1e-6, nondet_tol=0.0)


def test_a_channel_at_rest_is_woken():
    resting = PLANTED.network.read(PLANTED.samples.images)["first"][:, PLANTED.channel]
    assert not resting.any()
    (found,) = made([PLANTED.channel], [None])
    assert float(found.map.max()) > 0
