"""Promises of the methods that prune: the bound of CLP, shrinking, orders that end in time, and masks."""

from __future__ import annotations

import pytest
import torch
from agnes_mitigation.anp import Anp, Masked
from agnes_mitigation.clp import STEPS, Clp, lipschitz_bounds
from agnes_mitigation.fewest import Scales, fewest
from agnes_mitigation.fine_prune import FinePrune, last_convolution, mean_activations
from agnes_mitigation.pruning import longest, prune
from agnes_mitigation.tac_prune import TacPrune
from agnes_mitigation.weight_prune import WeightPrune, shrink
from torch import nn

from agnes import measuring
from agnes.network import Network
from agnes.results import Candidate
from agnes.testing import tiny_network, tiny_samples


def tensors(network: Network) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.module.state_dict().items()}


def differing(one: Network, other: Network) -> set[str]:
    before, after = tensors(one), tensors(other)
    return {name for name in before if not torch.equal(before[name], after[name])}


def largest_singular_value(matrix: torch.Tensor) -> float:
    """By power iteration in double precision."""
    matrix = matrix.double()
    vector = torch.ones(matrix.shape[1], dtype=torch.float64) + 0.01 * torch.arange(matrix.shape[1])
    for _ in range(500):
        vector = matrix.T @ (matrix @ vector)
        vector = vector / vector.norm()
    return float((matrix @ vector).norm())


def preactivation() -> Network:
    return tiny_network("pre_activation")


@pytest.mark.parametrize("name", ["plain", "residual", "pre_activation", "depthwise"])
def test_the_bound_equals_a_direct_formula(name):
    network = tiny_network(name)
    modules = dict(network.module.named_modules())
    for layer in (layer for layer in network.layers if layer.kind == "conv"):
        weight = modules[layer.module].weight.detach()
        found = lipschitz_bounds(network, layer)
        for channel in range(layer.channels):
            value = largest_singular_value(weight[channel].flatten(1))
            if layer.norm is not None:
                norm = modules[layer.norm]
                value *= abs(float(norm.weight[channel])) / (float(norm.running_var[channel]) + norm.eps) ** 0.5
            assert float(found[channel]) == pytest.approx(value, rel=1e-4), (layer.name, channel)


def test_a_batch_norm_belongs_to_the_convolution_that_flows_into_it_alone():
    network = preactivation()
    pairs = {layer.name: layer.norm for layer in network.layers}
    first = [name for name in pairs if name.endswith("conv1")]
    second = [name for name in pairs if name.endswith("conv2")]
    assert first
    assert all(pairs[name] == name.replace("conv1", "bn2") for name in first)
    assert all(pairs[name] is None for name in second)  # what follows is a sum


def test_a_channel_that_amplifies_is_pruned_with_its_bias_and_nothing_else(backend):
    network = tiny_network("batch_norm")
    layer = network.layers[1]
    with torch.no_grad():
        network.module.get_submodule(str(layer.norm)).weight[5] *= 30
    repair = Clp(u=2.0).mitigate(network, tiny_samples(network), (), backend)
    assert [(c.layer, c.channel) for c in repair.changes] == [(layer.name, 5)]
    assert differing(network, repair.network) == {layer.weight, f"{layer.norm}.weight", f"{layer.norm}.bias"}
    assert not repair.network.read(tiny_samples(network).images, [layer])[layer.name][:, 5].any()
    assert repair.network.parameter_count == network.parameter_count


def test_without_a_batch_norm_the_kernel_alone_counts(planted, backend):
    network = planted.network
    with torch.no_grad():
        network.module.second.weight[6] *= 500
    repair = Clp(u=2.0).mitigate(network, planted.samples, (), backend)
    assert ("second", 6) in {(c.layer, c.channel) for c in repair.changes}


def test_auto_takes_the_threshold_with_the_least_success_and_accuracy_lost(planted, backend):
    samples, triggers = planted.samples, (planted.trigger,)
    costs = {}
    for u in STEPS:
        copy = Clp(u=u).mitigate(planted.network, samples, triggers, backend).network
        lost = 1 - measuring.accuracy(copy, samples, backend)[0]
        if lost <= 0.02:
            costs[u] = (measuring.attack_success(copy, planted.trigger, samples, backend)[0] + lost) / 2
    repair = Clp(u="auto").mitigate(planted.network, samples, triggers, backend)
    best = min(costs, key=lambda u: (costs[u], -u))
    assert repair.notes[-1].startswith(f"u={best:g} ")


def test_pruning_to_zero_leaves_the_number_of_parameters(planted, backend):
    for method in (TacPrune(threshold=1.0), TacPrune(threshold=1.0, choose="all", max_accuracy_drop=1.0), Clp(u=0.5)):
        repair = method.mitigate(planted.network, planted.samples, (planted.trigger,), backend)
        assert repair.changes
        assert repair.network.parameter_count == planted.network.parameter_count


def test_as_few_as_end_the_trigger_are_pruned_and_nothing_else(planted, backend):
    network = planted.network
    repair = TacPrune(threshold=0.5).mitigate(network, planted.samples, (planted.trigger,), backend)
    ((name, channel),) = ((c.layer, c.channel) for c in repair.changes)
    assert (name, channel) in planted.path
    assert differing(network, repair.network) == {f"{name}.weight"}
    others = [k for k in range(8) if k != channel]
    before, after = tensors(network)[f"{name}.weight"], tensors(repair.network)[f"{name}.weight"]
    assert torch.equal(before[others], after[others])
    assert measuring.attack_success(repair.network, planted.trigger, planted.samples, backend)[0] == 0
    assert measuring.accuracy(repair.network, planted.samples, backend)[0] == 1


def test_channels_that_leave_the_trigger_its_success_are_not_pruned(planted, backend):
    method = TacPrune(threshold=-9.0, max_accuracy_drop=-1.0)  # no loss is small enough
    repair = method.mitigate(planted.network, planted.samples, (planted.trigger,), backend)
    assert repair.changes == ()
    assert "nothing was pruned" in repair.notes[-1]


def test_the_fewest_end_where_the_goal_is_reached(planted, backend):
    scales = Scales(planted.network, planted.samples, (planted.trigger,), {}, backend)
    order = [("first", 1), ("first", 5), ("second", 5), ("second", 2)]
    taken, effect, late = fewest(scales, order, 0.0, 1.0, lambda places: True, backend)
    assert len(taken) == 1
    assert taken[0] in planted.path
    assert effect.success == 0
    assert late is None


def test_the_fewest_leave_what_is_not_allowed(planted, backend):
    scales = Scales(planted.network, planted.samples, (planted.trigger,), {}, backend)
    taken, effect, _ = fewest(scales, list(planted.path), 0.0, 1.0, lambda places: ("first", 5) not in places, backend)
    assert taken == [("second", 5)]
    assert effect.success == 0


def test_a_weighed_set_of_channels_tells_its_effect_as_computed_directly(planted, backend):
    scales = Scales(planted.network, planted.samples, (planted.trigger,), {}, backend)
    effect = scales.weigh([("first", 0)])
    copy = planted.network.copy()
    prune(copy, copy.layer("first"), [0], None)
    images, labels = planted.samples.images, planted.samples.labels
    before, after = planted.network(images).softmax(1), copy(images).softmax(1)
    assert effect.shift == pytest.approx(float((before * (before / after).log()).sum(1).mean()), rel=1e-3)
    others = planted.apply(images[labels != planted.target])
    assert effect.pull == pytest.approx(float(copy(others).log_softmax(1)[:, planted.target].mean()), rel=1e-4)


@pytest.mark.parametrize("limit", range(9))
def test_the_longest_prefix_that_holds_is_found(limit):
    asked = []

    def holds(count: int) -> bool:
        asked.append(count)
        return count <= limit

    assert longest(7, holds) == min(limit, 7)
    assert len(asked) <= 6


def test_incoming_weights_shrink_by_the_rate(backend):
    network = tiny_network("plain")
    layer = network.layers[0]
    copy = network.copy()
    shrink(copy, layer, [2], 0.4)
    assert differing(network, copy) == {layer.weight}
    old, new = tensors(network)[layer.weight], tensors(copy)[layer.weight]
    torch.testing.assert_close(new[2], 0.6 * old[2])
    assert torch.equal(new[[0, 1, 3, 4, 5]], old[[0, 1, 3, 4, 5]])


def test_behind_a_batch_norm_a_shrunk_channel_keeps_its_centre():
    network = tiny_network("batch_norm")
    layer = network.layers[0]
    norm = network.module.get_submodule(str(layer.norm))
    copy = network.copy()
    shrink(copy, layer, [3], 1.0)
    value = copy.read(tiny_samples(network).images, [layer])[layer.name][:, 3]
    assert torch.allclose(value, norm.bias[3].clamp(min=0).expand_as(value))


def test_the_channels_that_triggers_name_are_shrunk_else_those_of_candidates(planted, backend):
    candidate = Candidate("second", 2, planted.target, 1.0, 0.0, 1.0)
    repair = WeightPrune().mitigate(planted.network, (planted.trigger,), (candidate,), backend)
    assert [(c.layer, c.channel) for c in repair.changes] == [("second", 2)]
    assert "best candidates" in repair.notes[0]
    from dataclasses import replace

    named = replace(planted.trigger, layer="first", channel=5)
    repair = WeightPrune(rate=1.0).mitigate(planted.network, (named,), (candidate,), backend)
    assert [(c.layer, c.channel) for c in repair.changes] == [("first", 5)]
    assert not repair.network.module.first.weight[5].any()
    assert measuring.attack_success(repair.network, planted.trigger, planted.samples, backend)[0] == 0
    convicts = replace(named, channel=2, convicts=True)
    repair = WeightPrune().mitigate(planted.network, (named, convicts), (candidate,), backend)
    assert [(c.layer, c.channel) for c in repair.changes] == [("first", 2)]


def test_fine_pruning_takes_channels_asleep_on_benign_images(planted, backend):
    layer = last_convolution(planted.network)
    assert layer.name == "second"
    activity = mean_activations(planted.network, layer, planted.samples.images, backend)
    direct = planted.network.read(planted.samples.images, [layer])["second"].abs().mean((0, 2, 3))
    torch.testing.assert_close(activity, direct)
    repair = FinePrune(steps=0).mitigate(planted.network, planted.samples, backend)
    places = {c.channel for c in repair.changes}
    assert 5 in places  # the planted channel never wakes
    assert 0 not in places  # the one that classification rests on
    assert measuring.attack_success(repair.network, planted.trigger, planted.samples, backend)[0] == 0


def test_what_was_pruned_stays_pruned_through_fine_tuning(planted, backend):
    repair = FinePrune(steps=8, rate=0.01).mitigate(planted.network, planted.samples, backend)
    channels = [c.channel for c in repair.changes if c.channel is not None]
    assert channels
    assert any(c.channel is None for c in repair.changes)
    assert not repair.network.module.second.weight[channels].any()


@pytest.mark.parametrize("name", ["plain", "batch_norm"])
def test_masks_and_disturbances_multiply_channels(name):
    network = tiny_network(name)
    images = tiny_samples(network).images
    masked = Masked(network)
    ones = {layer.name: torch.ones(layer.channels) for layer in network.layers}
    assert torch.allclose(masked.logits(images, ones, {}), network(images), atol=1e-6)
    layer = network.layers[0]
    half = torch.ones(layer.channels)
    half[2] = 0.5
    copy = network.copy()
    shrink(copy, layer, [2], 0.5)
    torch.testing.assert_close(masked.logits(images, {layer.name: half}, {}), copy(images))
    bias = dict(copy.module.named_parameters())[masked.biases[layer.name]]
    with torch.no_grad():
        bias[2] *= 0.5
    torch.testing.assert_close(masked.logits(images, {layer.name: half}, {layer.name: half}), copy(images))


def test_masks_that_fall_are_pruned_lowest_first_and_accuracy_is_kept(planted, backend):
    repair = Anp(steps=25).mitigate(planted.network, planted.samples, backend)
    assert measuring.accuracy(repair.network, planted.samples, backend)[0] >= 0.9
    for change in repair.changes:
        assert not dict(repair.network.module.named_parameters())[f"{change.layer}.weight"][change.channel].any()


def test_a_network_without_hidden_layers_is_refused_in_words(backend):
    flat = Network.of(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval(), (3, 2, 2))
    with pytest.raises(Exception, match="no hidden layer"):
        last_convolution(flat)
