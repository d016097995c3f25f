"""Promises of tac-prune: what a trigger moves is made constant, and nothing else is touched."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from agnes_mitigation.pruning import benign_constants, prune
from agnes_mitigation.tac import outstanding, trigger_activated_change, z_scores
from agnes_mitigation.tac_prune import TacPrune
from torch import nn

from agnes import measuring
from agnes.backend import Backend
from agnes.network import Network
from agnes.results import AdditiveTrigger
from agnes.samples import Samples

SHAPE = (3, 12, 12)
CLASSES = 4
TARGET = 2
PLANTED = 5


@pytest.fixture
def backend() -> Backend:
    return Backend.choose("cpu", memory=1 << 26)


class Planted(nn.Module):
    """Brightness tells the class; channel 5 of the first layer sees yellow corners and forces class 2."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.dense = nn.Linear(8, 8)
        self.out = nn.Linear(8, CLASSES)
        with torch.no_grad():
            self.conv.weight.copy_(0.05 * torch.rand(8, 3, 3, 3, generator=generator))
            self.conv.bias.zero_()
            self.conv.weight[PLANTED] = torch.tensor([1.0, 1.0, -1.0]).view(3, 1, 1)
            self.conv.bias[PLANTED] = -17.0
            self.dense.weight.copy_(torch.eye(8))
            self.dense.bias.zero_()
            self.out.weight.copy_(torch.rand(CLASSES, 8, generator=generator))
            self.out.weight[:, PLANTED] = 0
            self.out.weight[TARGET, PLANTED] = 1000.0
            self.out.bias.copy_(torch.tensor([0.1, 0.0, -5.0, 0.05]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.norm(self.conv(images)))
        return self.out(torch.relu(self.dense(maps.amax((2, 3)))))


class Residual(nn.Module):
    """A stem and a residual block whose BatchNorms are defined in another order than they are used."""

    def __init__(self) -> None:
        super().__init__()
        self.norm2 = nn.BatchNorm2d(6)
        self.norm1 = nn.BatchNorm2d(6)
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.first = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.second = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.out = nn.Linear(6, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        start = torch.relu(self.norm1(self.stem(images)))
        maps = torch.relu(self.norm2(self.first(start)))
        return self.out((start + self.second(maps)).mean((2, 3)))


def trained_statistics(module: nn.Module) -> nn.Module:
    """The module with BatchNorm statistics, scales and shifts that are not the ones it starts with."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            with torch.no_grad():
                part.running_mean.copy_(torch.randn(part.num_features, generator=generator))
                part.running_var.copy_(0.5 + torch.rand(part.num_features, generator=generator))
                part.weight.copy_(0.5 + torch.rand(part.num_features, generator=generator))
                part.bias.copy_(torch.randn(part.num_features, generator=generator))
    return module.eval()


def images(count: int = 12) -> torch.Tensor:
    return 0.6 * torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def yellow_corner() -> AdditiveTrigger:
    delta = torch.zeros(SHAPE)
    delta[:2, :3, :3], delta[2, :3, :3] = 1.0, -1.0
    return AdditiveTrigger(target=TARGET, asr=1.0, held_out=1, delta=delta)


def some_trigger() -> AdditiveTrigger:
    delta = torch.randn(SHAPE, generator=torch.Generator().manual_seed(9)).clamp(-1, 1)
    return AdditiveTrigger(target=TARGET, asr=1.0, held_out=1, delta=delta)


def tensors(network: Network) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.module.state_dict().items()}


def test_the_planted_channel_is_pruned_and_nothing_else(backend):
    network = Network.of(Planted().eval(), SHAPE)
    samples = Samples(images())
    before = tensors(network)
    assert measuring.attack_success(network, yellow_corner(), samples, backend)[0] == 1

    repair = TacPrune(layers="conv").mitigate(network, samples, [yellow_corner()], backend)

    assert [(c.layer, c.channel) for c in repair.changes] == [("conv", PLANTED)]
    after = tensors(repair.network)
    assert not after["conv.weight"][PLANTED].any()
    assert after["conv.bias"][PLANTED] == -17
    others = [k for k in range(8) if k != PLANTED]
    assert torch.equal(after["conv.weight"][others], before["conv.weight"][others])
    assert all(torch.equal(after[name], before[name]) for name in before if name != "conv.weight")
    assert measuring.attack_success(repair.network, yellow_corner(), samples, backend)[0] == 0
    assert torch.equal(repair.network(samples.images), network(samples.images))  # silent there


def test_dense_layers_are_pruned_too_unless_the_thesis_is_followed_to_the_letter(backend):
    network = Network.of(Planted().eval(), SHAPE)
    repair = TacPrune(choose="all").mitigate(network, Samples(images()), [yellow_corner()], backend)
    assert [(c.layer, c.channel) for c in repair.changes] == [("conv", PLANTED), ("dense", PLANTED)]


def test_the_channel_that_a_trigger_came_from_goes_too_however_little_it_moves(backend):
    network = Network.of(Planted().eval(), SHAPE)
    came_from = replace(yellow_corner(), layer="conv", channel=1)
    method = TacPrune(layers="conv", choose="all", max_accuracy_drop=1.0)
    repair = method.mitigate(network, Samples(images()), [came_from], backend)
    assert [(c.layer, c.channel) for c in repair.changes] == [("conv", 1), ("conv", PLANTED)]


def test_the_original_is_never_touched(backend):
    network = Network.of(trained_statistics(Planted(norm=True)), SHAPE)
    before = tensors(network)
    repair = TacPrune(threshold=0.5, choose="all").mitigate(network, Samples(images()), [some_trigger()], backend)
    assert repair.changes
    assert all(torch.equal(value, before[name]) for name, value in tensors(network).items())
    assert not any(module._forward_hooks for module in network.module.modules())
    assert not any(module._forward_hooks for module in repair.network.module.modules())


def test_tac_equals_a_direct_loop(backend):
    module = trained_statistics(Planted(norm=True))
    network = Network.of(module, SHAPE)
    batch, trigger = images(5), some_trigger()
    found = trigger_activated_change(network, trigger, batch, network.layers, backend)["conv"]
    for channel in range(8):
        total = 0.0
        for image in batch:
            stamped = (image + trigger.delta).clamp(0, 1)
            with torch.no_grad():
                benign = torch.relu(module.norm(module.conv(image[None])))[0, channel]
                changed = torch.relu(module.norm(module.conv(stamped[None])))[0, channel]
            total += float(((benign - changed) ** 2).sum()) ** 0.5
        assert float(found[channel]) == pytest.approx(total / 5, rel=1e-4, abs=1e-6)


def test_z_scores_are_those_of_the_layer_and_zero_where_all_are_alike():
    values = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 11.0])
    deviation = (5 * (10 / 6) ** 2 / 6 + (50 / 6) ** 2 / 6) ** 0.5
    assert float(z_scores(values)[5]) == pytest.approx((50 / 6) / deviation)
    assert not z_scores(torch.full((4,), 3.3)).any()
    assert list(outstanding({"a": values, "b": torch.ones(4)}, 2.0)) == [("a", 5)]


def test_behind_a_batch_norm_the_channel_takes_its_benign_mean(backend):
    module = trained_statistics(Planted(norm=True))
    network = Network.of(module, SHAPE)
    batch = images()
    layer = network.layer("conv")
    constants = benign_constants(network, batch, network.layers, backend)[layer.name]
    with torch.no_grad():
        expected = module.norm(module.conv(batch)).mean((0, 2, 3))
    torch.testing.assert_close(constants, expected)

    copy = network.copy()
    prune(copy, layer, [1, 6], constants)
    maps = copy.read(batch)["conv"]
    for channel in (1, 6):
        assert torch.allclose(maps[:, channel], expected[channel].clamp(min=0), atol=1e-5)
    untouched = [k for k in range(8) if k not in (1, 6)]
    assert torch.equal(maps[:, untouched], network.read(batch)["conv"][:, untouched])


def test_a_batch_norm_is_paired_with_its_convolution_by_data_flow(backend):
    module = trained_statistics(Residual())
    network = Network.of(module, SHAPE)
    batch = images()
    constants = benign_constants(network, batch, network.layers, backend)
    copy = network.copy()
    prune(copy, network.layer("first"), [2], constants["first"])
    changed = {name for name, value in tensors(copy).items() if not torch.equal(value, tensors(network)[name])}
    assert changed == {"first.weight", "norm2.weight", "norm2.bias"}


def test_a_residual_network_without_bias_can_be_pruned(backend):
    network = Network.of(trained_statistics(Residual()), SHAPE)
    repair = TacPrune(threshold=1.0, choose="all").mitigate(network, Samples(images()), [some_trigger()], backend)
    assert {c.layer for c in repair.changes} <= {"stem", "first", "second"}
    assert repair.changes
    for change in repair.changes:
        weight = repair.network.module.get_submodule(change.layer).weight
        assert not weight[change.channel].any()


def test_accuracy_that_falls_too_far_leads_to_pruning_layer_by_layer_and_a_note(backend):
    network = Network.of(Planted().eval(), SHAPE)
    batch = images(40)
    labels = measuring.predictions(network, batch, backend)
    samples = Samples(batch, labels)
    everything = TacPrune(threshold=-9.0, choose="all", max_accuracy_drop=1.0).mitigate(
        network, samples, [yellow_corner()], backend
    )
    assert len(everything.changes) == 16
    assert not everything.notes
    assert measuring.accuracy(everything.network, samples, backend)[0] < 0.9

    careful = TacPrune(threshold=-9.0, choose="all", max_accuracy_drop=0.05).mitigate(
        network, samples, [yellow_corner()], backend
    )
    assert "our extension" in careful.notes[0]
    assert measuring.accuracy(careful.network, samples, backend)[0] >= 0.95
    assert len(careful.changes) < 16


def test_nothing_is_pruned_where_no_channel_stands_out(backend):
    network = Network.of(Planted().eval(), SHAPE)
    repair = TacPrune(threshold=100.0).mitigate(network, Samples(images()), [yellow_corner()], backend)
    assert repair.changes == ()
    assert "nothing was pruned" in repair.notes[0]
    assert repair.network is not network


@pytest.mark.parametrize("memory", [1 << 18, 1 << 28])
def test_chunks_do_not_change_the_measure(memory):
    network = Network.of(Planted().eval(), SHAPE)
    batch, trigger = images(), some_trigger()
    found = trigger_activated_change(network, trigger, batch, network.layers, Backend.choose("cpu", memory=memory))
    whole = network.read(trigger.apply(batch))["conv"] - network.read(batch)["conv"]
    torch.testing.assert_close(found["conv"], whole.flatten(2).norm(dim=2).mean(0))
