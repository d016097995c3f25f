"""Promises of agnes.network: a network cut anywhere goes on as the module it was made from would have."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from agnes.errors import AgnesError, UsageError
from agnes.layers import Layer
from agnes.network import Network, State
from agnes.testing.networks import CLASSES, INPUT_SHAPE, Functional, networks, random_network, written_as_calls

BUILDERS = networks()
IMAGES = torch.rand(3, *INPUT_SHAPE, generator=torch.Generator().manual_seed(1))
every_network = pytest.mark.parametrize("name", sorted(BUILDERS))
seeds = st.integers(0, 10**6)


def noise(*shape: int, seed: int = 5) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def numbers_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same_numbers(ones: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    return ones.keys() == others.keys() and all(torch.equal(ones[name], others[name]) for name in ones)


# --- against hooks on the module itself ------------------------------------------------------------------------------


class Hooked:
    """The truth: the original module, a value on its way read and changed by a forward hook."""

    def __init__(self, module: nn.Module, network: Network) -> None:
        ends_in_softmax = isinstance(module, nn.Sequential) and isinstance(module[-1], nn.Softmax)
        self.module = module[:-1] if ends_in_softmax else module
        self.paths = {n.name: str(n.target) for n in network.module.graph.nodes if n.op == "call_module"}

    def run(self, layer: Layer, images: torch.Tensor, planes: torch.Tensor | None = None, channel: int = 0):
        """The logits and the layer's value; with planes, those stand in the channel."""
        seen = []

        def hook(_module: nn.Module, _inputs: object, value: torch.Tensor) -> torch.Tensor | None:
            seen.append(value.clone())
            return None if planes is None else value.index_copy(1, torch.tensor([channel]), planes.unsqueeze(1))

        handle = self.module.get_submodule(self.paths[layer.node]).register_forward_hook(hook)
        with torch.no_grad():
            logits = self.module(images.clone())
        handle.remove()
        return logits, seen[0]


def check_every_layer(module: nn.Module) -> None:
    network = Network.of(module, INPUT_SHAPE)
    truth = Hooked(module, network)
    values = network.read(IMAGES)
    assert list(values) == [layer.name for layer in network.layers]
    for layer in network.layers:
        logits, value = truth.run(layer, IMAGES)
        state = network.until(layer, IMAGES)
        torch.testing.assert_close(network(IMAGES), logits)
        torch.testing.assert_close(network.after(layer, state), logits)
        torch.testing.assert_close(values[layer.name], value)
        torch.testing.assert_close(state.value, value)
        assert value.shape[1:] == layer.shape
        for times in (1, 3):
            check_replaced(network, truth, layer, state, times)


def check_replaced(network: Network, truth: Hooked, layer: Layer, state: State, times: int) -> None:
    channel = layer.channels // 2
    planes = noise(times * len(IMAGES), *layer.shape[1:], seed=layer.index)
    tiled = state.tile(times)
    replaced = tiled.value.clone()
    replaced[layer.channel_index(channel)] = planes
    expected, _ = truth.run(layer, IMAGES.repeat(times, 1, 1, 1), planes, channel)
    torch.testing.assert_close(network.after(layer, tiled, replaced), expected)


@pytest.mark.parametrize("name", sorted(BUILDERS.keys() - {"written_as_calls"}))
def test_every_layer_of_every_shape_goes_on_as_the_module_does(name):
    check_every_layer(BUILDERS[name](1))


@given(seeds)
@settings(deadline=None, max_examples=40)
def test_every_layer_of_a_random_network_goes_on_as_the_module_does(seed):
    check_every_layer(random_network(seed))


def calls_by_hand(module: Functional, images: torch.Tensor, layer: str, change) -> torch.Tensor:
    """What written_as_calls computes, one layer's value changed."""
    pick = {name: change if name == layer else (lambda value: value) for name in ("conv1", "conv2", "fc1")}
    maps = functional.max_pool2d(pick["conv1"](module.conv1(images).clamp(min=0)), 2)
    maps = functional.max_pool2d(pick["conv2"](module.conv2(maps).clamp(min=0)), 2)
    return module.fc2(pick["fc1"](module.fc1(maps.flatten(1)).clamp(min=0)))


@pytest.mark.parametrize("layer", ["conv1", "conv2", "fc1"])
@pytest.mark.parametrize("times", [1, 4])
def test_calls_and_views_by_batch_size_go_on_as_written(layer, times):
    module = written_as_calls(2)
    network = Network.of(module, INPUT_SHAPE)
    state = network.until(layer, IMAGES).tile(times)
    replaced = noise(*state.value.shape)
    expected = calls_by_hand(module, IMAGES.repeat(times, 1, 1, 1), layer, lambda _: replaced)
    torch.testing.assert_close(network.after(layer, state, replaced), expected.detach())
    torch.testing.assert_close(network(IMAGES), calls_by_hand(module, IMAGES, "", None).detach())


@given(seeds, st.lists(st.integers(0, 2), min_size=1, max_size=7), st.integers(0, 20))
@settings(deadline=None, max_examples=25)
def test_a_state_taken_is_the_state_of_the_images_taken(seed, chosen, which):
    network = Network.of(random_network(seed), INPUT_SHAPE)
    layer = network.layers[which % len(network.layers)]
    state = network.until(layer, IMAGES).take(chosen)
    assert state.count == len(chosen)
    torch.testing.assert_close(state.value, network.until(layer, IMAGES[chosen]).value)
    torch.testing.assert_close(network.after(layer, state), network(IMAGES[chosen]))


def test_a_tiled_state_repeats_the_whole_batch_in_order():
    network = Network.of(BUILDERS["dense"](0), INPUT_SHAPE)
    state = network.until("2.convs.0", IMAGES)
    tiled = state.tile(2)
    assert torch.equal(tiled.value, torch.cat([state.value, state.value]))
    assert all(torch.equal(tiled.alive[n], torch.cat([v, v])) for n, v in state.alive.items())
    assert state.alive
    assert state.tile(1) is state


def test_a_cut_keeps_only_what_is_read_again():
    network = Network.of(BUILDERS["residual"](0), INPUT_SHAPE)
    assert not network.until("0", IMAGES).alive  # nothing passes around the first convolution
    assert len(network.until("3.conv1", IMAGES).alive) == 1  # the block's input does


def test_a_network_without_weights_before_the_cut_keeps_the_images_when_they_are_read_again():
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.fc = nn.Linear(3, 4)

        def forward(self, images):
            return self.fc((self.conv(images) * images).mean((2, 3)))

    module = Beside()
    network = Network.of(module, INPUT_SHAPE)
    state = network.until("conv", IMAGES).take([2, 0, 2])
    expected = module.fc((torch.ones(3, *INPUT_SHAPE) * IMAGES[[2, 0, 2]]).mean((2, 3))).detach()
    torch.testing.assert_close(network.after("conv", state, torch.ones(3, *INPUT_SHAPE)), expected)


# --- the module is left as found -------------------------------------------------------------------------------------


@every_network
def test_the_module_handed_in_is_left_as_found(name):
    module = BUILDERS[name](0).train()
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    hooks = [list(part._forward_hooks) for part in module.modules()]
    in_place = [getattr(part, "inplace", None) for part in module.modules()]
    before = numbers_of(module)
    network = Network.of(module, INPUT_SHAPE)
    layer = network.layers[-1]
    images = IMAGES.clone().requires_grad_()
    network.after(layer, network.until(layer, images)).sum().backward()
    network.read(IMAGES)

    assert same_numbers(before, numbers_of(module))
    assert all(part.training for part in module.modules())
    assert all(p.requires_grad and torch.equal(p.grad, torch.ones_like(p)) for p in module.parameters())
    assert [list(part._forward_hooks) for part in module.modules()] == hooks
    assert [getattr(part, "inplace", None) for part in module.modules()] == in_place
    assert not any(p.requires_grad for p in network.module.parameters())
    assert not any(part.training for part in network.module.modules())
    assert not any(part.training for part in Network.of(module, INPUT_SHAPE, scale=255).module.modules())


def test_training_the_module_later_changes_no_network():
    module = BUILDERS["plain"](0)
    network = Network.of(module, INPUT_SHAPE)
    before = network(IMAGES)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert torch.equal(network(IMAGES), before)


def test_the_images_are_not_written_to():
    module = nn.Sequential(
        nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(400, 3)
    )
    network = Network.of(module, INPUT_SHAPE)
    images = IMAGES - 0.5
    before = images.clone()
    network(images)
    network.after("1", network.until("1", images))
    assert torch.equal(images, before)


@every_network
def test_gradients_flow_to_the_images_through_a_cut(name):
    module = BUILDERS[name](0)
    network = Network.of(module, INPUT_SHAPE)
    whole = IMAGES.clone().requires_grad_()
    network(whole)[:, 1].sum().backward()
    assert whole.grad is not None
    assert float(whole.grad.abs().sum()) > 0
    for layer in network.layers:
        cut = IMAGES.clone().requires_grad_()
        network.after(layer, network.until(layer, cut))[:, 1].sum().backward()
        torch.testing.assert_close(cut.grad, whole.grad)


def test_gradients_flow_to_a_replaced_value():
    module = BUILDERS["residual"](0)
    network = Network.of(module, INPUT_SHAPE)
    state = network.until("3.conv1", IMAGES)
    value = state.value.clone().requires_grad_()
    network.after("3.conv1", state, value)[:, 0].sum().backward()
    bumped = state.value.clone()
    bumped[0, 1, 4, 4] += 1e-2
    slope = (network.after("3.conv1", state, bumped) - network.after("3.conv1", state))[:, 0].sum() / 1e-2
    torch.testing.assert_close(value.grad[0, 1, 4, 4], slope, rtol=2e-2, atol=1e-3)


def test_a_copy_is_changed_without_the_first():
    network = Network.of(BUILDERS["batch_norm"](0), INPUT_SHAPE)
    twin = network.copy()
    before = network(IMAGES)
    assert torch.equal(twin(IMAGES), before)
    assert twin.layers == network.layers
    with torch.no_grad():
        twin.module.get_parameter(twin.layers[0].weight).mul_(2)
    assert torch.equal(network(IMAGES), before)
    assert not torch.allclose(twin(IMAGES), before)
    assert not torch.allclose(twin.after("0", twin.until("0", IMAGES)), before)


def test_moving_to_where_it_is_gives_the_network_itself():
    network = Network.of(BUILDERS["plain"](0), INPUT_SHAPE)
    assert network.to("cpu") is network
    assert network.to(torch.device("cpu")) is network
    assert network.to("meta").device.type == "meta"
    assert network.device.type == "cpu"


@every_network
def test_the_random_state_of_torch_is_left_alone(name):
    before = torch.get_rng_state()
    network = Network.of(BUILDERS[name](0), INPUT_SHAPE)
    network.read(IMAGES)
    assert torch.equal(torch.get_rng_state(), before)


# --- what it is called with ------------------------------------------------------------------------------------------


def test_a_wrong_layer_name_gets_the_nearest_one():
    network = Network.of(BUILDERS["residual"](0), INPUT_SHAPE)
    with pytest.raises(AgnesError, match=r"no layer '3\.conv9'; did you mean '3\.conv[12]'"):
        network.until("3.conv9", IMAGES)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda v: v[:2], r"holds 2 images and the state 3; repeat the state with state\.tile"),
        (lambda v: v.repeat(2, 1, 1, 1), r"holds 6 images and the state 3; repeat the state with state\.tile"),
        (lambda v: v[:, :1], r"shape \(1, 12, 12\) for an image and the state \(6, 12, 12\)"),
    ],
)
def test_a_value_that_does_not_fit_its_state_is_refused(change, match):
    network = Network.of(BUILDERS["plain"](0), INPUT_SHAPE)
    state = network.until("0", IMAGES)
    with pytest.raises(AgnesError, match=match):
        network.after("0", state, change(state.value))


def test_a_state_of_another_layer_is_refused():
    network = Network.of(BUILDERS["plain"](0), INPUT_SHAPE)
    with pytest.raises(AgnesError, match=r"taken at layer '0' and cannot go on from '3'"):
        network.after("3", network.until("0", IMAGES))


def test_class_names_are_kept_made_up_or_refused():
    module = BUILDERS["plain"](0)
    assert Network.of(module, INPUT_SHAPE).class_names == tuple(f"class {i}" for i in range(CLASSES))
    assert Network.of(module, INPUT_SHAPE, class_names="abcde").class_names == ("a", "b", "c", "d", "e")
    with pytest.raises(UsageError, match="2 class names were given for a network of 5 classes"):
        Network.of(module, INPUT_SHAPE, class_names=["cat", "dog"])


def test_a_network_says_what_it_is():
    module = BUILDERS["batch_norm"](0)
    network = Network.of(module, INPUT_SHAPE, facts={"file": "x.pt"})
    assert network.class_count == CLASSES
    assert network.parameter_count == sum(p.numel() for p in module.parameters())
    assert network.facts == {"file": "x.pt"}
    assert network.copy().facts == network.facts
    assert network.peeled is None


def test_a_deep_network_is_cut_as_a_shallow_one():
    modules = [nn.Conv2d(3, 3, 1)]
    for _ in range(150):
        modules += [nn.Conv2d(3, 3, 1), nn.ReLU()]
    module = nn.Sequential(*modules, nn.Flatten(), nn.Linear(432, 2)).eval()
    network = Network.of(copy.deepcopy(module), INPUT_SHAPE)
    assert len(network.layers) == 151
    middle = network.layers[75]
    value = noise(3, *middle.shape)
    end = int(middle.name) + 2  # its ReLU is read too
    torch.testing.assert_close(
        network.after(middle, network.until(middle, IMAGES), value), module[end:](value).detach()
    )


@pytest.mark.parametrize("name", networks())
@torch.no_grad()
def test_the_rest_after_a_cut_can_be_run_node_by_node(name):
    network = Network.of(networks()[name](0), INPUT_SHAPE)
    images = torch.rand(3, *INPUT_SHAPE)
    for layer in network.layers:
        state = network.until(layer, images)
        rest = network.rest(layer)
        values = {**rest.given(state), rest.start: state.value}
        for node in rest.nodes:
            values[node] = rest.compute(node, values)
        assert torch.allclose(values[rest.output], network(images), atol=1e-5)
        assert network.shapes[layer.node] == layer.shape
