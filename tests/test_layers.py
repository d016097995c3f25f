"""Promises of agnes.layers: what counts as a layer, where it is read, and of what kinds a network is made."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from agnes.network import Network
from agnes.testing.networks import INPUT_SHAPE, batch_norm, networks, random_network

IMAGES = torch.rand(4, *INPUT_SHAPE, generator=torch.Generator().manual_seed(4))


def network_of(*modules: nn.Module) -> Network:
    return Network.of(nn.Sequential(*modules), INPUT_SHAPE)


def lively(module: nn.Module) -> nn.Module:
    """Every BatchNorm with statistics and factors of its own, in eval mode."""
    generator = torch.Generator().manual_seed(9)
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.running_mean.normal_(generator=generator)
            part.running_var.uniform_(0.3, 3, generator=generator)
            if part.affine:
                nn.init.uniform_(part.weight, -1.5, 1.5, generator=generator)
                nn.init.normal_(part.bias, generator=generator)
    return module.eval()


def test_convolution_norm_and_activation_are_one_layer():
    network = network_of(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3))
    (layer,) = network.layers
    assert (layer.name, layer.kind, layer.norm, layer.norm_first, layer.activation) == ("0", "conv", "1", True, "relu")
    assert (layer.weight, layer.bias, layer.shape, layer.channels, layer.neurons) == (
        "0.weight",
        "0.bias",
        (4, 10, 10),
        4,
        400,
    )
    assert float(network.until(layer, IMAGES).value.min()) == 0.0


@pytest.mark.parametrize(
    ("after", "end", "norm", "norm_first", "activation"),
    [
        ([], 0, None, True, None),
        ([nn.ReLU()], 1, None, True, "relu"),
        ([nn.ReLU(), nn.BatchNorm2d(4)], 2, "2", False, "relu"),
        ([nn.BatchNorm2d(4), nn.Dropout(), nn.LeakyReLU()], 3, "1", True, "leaky_relu"),
        ([nn.Tanh(), nn.ReLU()], 1, None, True, "tanh"),
        ([nn.BatchNorm2d(4), nn.BatchNorm2d(4)], 1, "1", True, None),
        ([nn.MaxPool2d(2, 1), nn.ReLU()], 0, None, True, None),
    ],
)
def test_a_layer_ends_after_one_norm_and_one_activation(after, end, norm, norm_first, activation):
    modules = [nn.Conv2d(3, 4, 3), *after]
    layer = network_of(*modules, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 3)).layers[0]
    assert (layer.norm, layer.norm_first, layer.activation) == (norm, norm_first, activation)
    network = network_of(*modules, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    value = network.until("0", IMAGES).value
    expected = nn.Sequential(*list(network.module.children())[: end + 1])(IMAGES)
    torch.testing.assert_close(value, expected)


def test_the_layer_that_gives_the_logits_is_none():
    for name, build in networks().items():
        network = Network.of(build(0), INPUT_SHAPE)
        weighted = [m for m in build(0).modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        last_is_map = name == "average_pooled"  # its logits are means of maps, which are a layer
        assert len(network.layers) == len(weighted) - (not last_is_map), name
        assert [layer.index for layer in network.layers] == list(range(len(network.layers)))


def test_a_value_read_twice_ends_the_layer_there():
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.fc = nn.Linear(4, 2)

        def forward(self, images):
            maps = self.conv(images)
            return self.fc((functional.relu(maps) - maps).mean((2, 3)))

    layer = Network.of(Forked(), INPUT_SHAPE).layers[0]
    assert layer.node == "conv"
    assert layer.activation is None


def test_a_convolution_used_twice_is_two_layers_of_one_weight():
    shared = nn.Conv2d(3, 3, 3, padding=1)
    first, second = network_of(shared, nn.ReLU(), shared, nn.Sigmoid(), nn.Flatten(), nn.Linear(432, 2)).layers
    assert first.name != second.name
    assert first.weight == second.weight == "0.weight"
    assert (first.activation, second.activation) == ("relu", "sigmoid")


def test_weights_held_as_bare_parameters_are_layers():
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3))
            self.offset = nn.Parameter(torch.randn(4))
            self.last = nn.Parameter(torch.randn(2, 4))

        def forward(self, images):
            maps = functional.relu(functional.conv2d(images, self.kernel, self.offset))
            return functional.linear(maps.mean((2, 3)), self.last)

    (layer,) = Network.of(Bare(), INPUT_SHAPE).layers
    assert (layer.name, layer.weight, layer.bias, layer.module) == ("kernel", "kernel", "offset", "")
    assert layer.shape == (4, 10, 10)


def test_a_linear_layer_over_positions_has_its_channels_last():
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(3, 5)
            self.fc = nn.Linear(5, 2)

        def forward(self, images):
            return self.fc(functional.gelu(self.mix(images.flatten(2).transpose(1, 2))).mean(1))

    network = Network.of(Tokens(), INPUT_SHAPE)
    (layer,) = network.layers
    value = network.until(layer, IMAGES).value
    assert (layer.shape, layer.channel_dim, layer.channels) == ((144, 5), 1, 5)
    assert torch.equal(layer.by_channel(value), value.transpose(1, 2))
    assert torch.equal(value[layer.channel_index(2)], value[:, :, 2])


@pytest.mark.parametrize("name", ["plain", "fully_connected"])
def test_by_channel_shows_the_same_numbers(name):
    network = Network.of(networks()[name](0), INPUT_SHAPE)
    for layer in network.layers:
        value = network.until(layer, IMAGES).value
        view = layer.by_channel(value)
        assert view.shape == (4, layer.channels, layer.neurons // layer.channels)
        assert torch.equal(view[:, 1].flatten(), value[layer.channel_index(1)].flatten())


@pytest.mark.parametrize(
    ("module", "kind", "piecewise_linear"),
    [
        (nn.ReLU6(), "clamp", True),
        (nn.PReLU(), "leaky_relu", True),
        (nn.AvgPool2d(2, 1, 1), "avg_pool", True),
        (nn.ZeroPad2d(1), "pad", True),
        (nn.GELU(), "gelu", False),
        (nn.SiLU(), "silu", False),
        (nn.Sigmoid(), "sigmoid", False),
        (nn.Softplus(), "smooth", False),
        (nn.GroupNorm(1, 4), "layer_norm", False),
        (nn.LocalResponseNorm(2), "LocalResponseNorm", False),
    ],
)
def test_kinds_tell_whether_a_network_is_piecewise_linear(module, kind, piecewise_linear):
    network = network_of(nn.Conv2d(3, 4, 3), module, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    assert kind in network.kinds
    assert {"conv", "linear", "flatten"} <= network.kinds
    assert network.piecewise_linear is piecewise_linear


class Called(nn.Module):
    def __init__(self, call) -> None:
        super().__init__()
        self.fc = nn.Linear(432, 3)
        self.call = call

    def forward(self, images):
        return self.fc(self.call(images).flatten(1))


@pytest.mark.parametrize(
    ("call", "kind", "piecewise_linear"),
    [
        (lambda x: x / 255, "scale", True),
        (lambda x: x * 2.0, "scale", True),
        (lambda x: x.mul(2) - 1, "scale", True),
        (lambda x: 2 * x, "scale", True),
        (lambda x: torch.mul(input=x, other=2), "scale", True),
        (lambda x: torch.mul(x, other=0.5), "scale", True),
        (lambda x: torch.div(input=x, other=2.0), "scale", True),
        (lambda x: torch.div(x, 2, rounding_mode="floor"), "divide", False),
        (lambda x: torch.div(other=x + 1, input=torch.ones_like(x)), "divide", False),
        (lambda x: functional.relu(input=x), "relu", True),
        (lambda x: x.unsqueeze(1).expand(-1, 2, -1, -1, -1)[:, 1], "expand", True),
        (lambda x: x * x, "multiply", False),
        (lambda x: 1 / (x + 1), "divide", False),
        (lambda x: functional.max_pool2d(x, 3, 1, 1), "max_pool", True),
        (lambda x: functional.avg_pool2d(x, 3, 1, 1), "avg_pool", True),
        (lambda x: x.relu_(), "relu", True),
        (lambda x: torch.clamp(x, 0, 1), "clamp", True),
        (lambda x: functional.softplus(x), "smooth", False),
        (lambda x: torch.exp(x), "exp", False),
    ],
)
def test_calls_have_the_kinds_of_their_modules(call, kind, piecewise_linear):
    network = Network.of(Called(call), INPUT_SHAPE)
    assert kind in network.kinds
    assert network.piecewise_linear is piecewise_linear


# --- BatchNorm folded ------------------------------------------------------------------------------------------------


def count(network: Network, kind: type) -> int:
    return sum(isinstance(m, kind) for m in network.module.modules())


def check_folded(network: Network, left: int) -> None:
    before = network(IMAGES)
    folded = network.fold_batch_norm()
    scale = float(before.abs().max())
    assert float((folded(IMAGES) - before).abs().max()) <= 1e-5 * scale
    assert count(folded, nn.BatchNorm1d) + count(folded, nn.BatchNorm2d) == left
    assert torch.equal(network(IMAGES), before)
    assert [layer.name for layer in folded.layers] == [layer.name for layer in network.layers]
    for layer in folded.layers:
        whole = network.until(layer.name, IMAGES).value
        torch.testing.assert_close(folded.until(layer, IMAGES).value, whole, rtol=1e-4, atol=1e-5 * max(1, scale))
        torch.testing.assert_close(
            folded.after(layer, folded.until(layer, IMAGES)), before, rtol=1e-4, atol=1e-5 * scale
        )


def test_a_norm_behind_its_convolution_is_folded():
    check_folded(Network.of(batch_norm(3), INPUT_SHAPE), 0)


@pytest.mark.parametrize(
    "modules",
    [
        [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3)],
        [nn.Conv2d(3, 4, 3, groups=1, stride=2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(100, 3)],
        [nn.Flatten(), nn.Linear(432, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)],
        [nn.Flatten(), nn.Linear(432, 8, bias=False), nn.BatchNorm1d(8, eps=0.1), nn.ReLU(), nn.Linear(8, 3)],
    ],
)
def test_norms_of_every_make_are_folded(modules):
    check_folded(Network.of(lively(nn.Sequential(*modules)), INPUT_SHAPE), 0)


def test_a_convolution_of_two_uses_is_not_folded():
    conv = nn.Conv2d(3, 3, 3, padding=1)
    module = nn.Sequential(conv, nn.BatchNorm2d(3), nn.ReLU(), conv, nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(432, 3))
    check_folded(Network.of(lively(module), INPUT_SHAPE), 2)


def test_a_norm_of_two_uses_is_folded_into_both():
    norm = nn.BatchNorm2d(4)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1), norm, nn.ReLU(), nn.Conv2d(4, 4, 1), norm, nn.Flatten(), nn.Linear(576, 3)
    )
    check_folded(Network.of(lively(module), INPUT_SHAPE), 0)


class Named(nn.Module):
    """Every module called with its argument by name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.fc = nn.Linear(400, 3)

    def forward(self, images):
        maps = self.relu(input=self.norm(input=self.conv(input=images)))
        return self.fc(input=torch.flatten(input=maps, start_dim=1))


def test_modules_called_with_arguments_by_name_are_the_same_layers():
    network = Network.of(lively(Named()), INPUT_SHAPE)
    (layer,) = network.layers
    assert (layer.name, layer.norm, layer.activation) == ("conv", "norm", "relu")
    check_folded(network, 0)


class Joined(nn.Module):
    """A norm behind a joint of two convolutions, and one whose convolution is also read without it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 3, 1)
        self.joint = nn.BatchNorm2d(5)
        self.norm = nn.BatchNorm2d(3)
        self.fc = nn.Linear(8, 4)

    def forward(self, images):
        one, two = self.one(images), self.two(images)
        maps = torch.cat([self.joint(torch.cat([one, two], 1)), self.norm(two) * two], 1)
        return self.fc(maps.amax((2, 3)))


def test_a_norm_behind_a_joint_or_beside_another_reader_stays():
    check_folded(Network.of(lively(Joined()), INPUT_SHAPE), 2)


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=25)
def test_folding_never_changes_the_logits(seed):
    network = Network.of(random_network(seed), INPUT_SHAPE)
    before = network(IMAGES)
    after = network.fold_batch_norm()(IMAGES)
    assert float((after - before).abs().max()) <= 1e-5 * float(before.abs().max())
