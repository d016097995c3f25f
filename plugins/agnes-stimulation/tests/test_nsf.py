"""Stimulation functions against the plain way: a hook, one image and one value at a time, the whole network."""

from __future__ import annotations

import pytest
import torch
from agnes_stimulation.nsf import Stimulation, rectangles
from agnes_stimulation.preparing import TinyMapConv2d, for_scanning
from torch import nn

from agnes.backend import Backend
from agnes.network import Network
from agnes.testing.networks import INPUT_SHAPE, networks, random_network

BACKEND = Backend.choose("cpu", memory=1 << 26)
IMAGES = torch.rand(3, *INPUT_SHAPE, generator=torch.Generator().manual_seed(1))
VALUES = torch.tensor([0.0, 0.7, 5.0])


class Tokens(nn.Module):
    """Features last: a linear layer over a row of patches."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(36, 5)
        self.mix = nn.Linear(5, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = torch.relu(self.embed(images.flatten(2).reshape(-1, 12, 36)))
        return self.head(torch.relu(self.mix(tokens)).mean(1))


def opened(name: str) -> Network:
    torch.manual_seed(3)
    return Network.of(Tokens() if name == "tokens" else networks()[name](0), INPUT_SHAPE)


def some_positions(network: Network, layer_name: str, seed: int = 0) -> torch.Tensor:
    shape = network.layer(layer_name).shape
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.3


def naive(network: Network, layer_name: str, where: torch.Tensor, channel: int) -> torch.Tensor:
    """Values, images, classes: every value written into the graph's own node, by running all of the graph again."""
    layer = network.layer(layer_name)
    chosen = torch.zeros(layer.shape, dtype=torch.bool)
    index = (slice(None),) * layer.channel_dim + (channel,)
    chosen[index] = where[index]

    class Writing(torch.fx.Interpreter):
        value = 0.0

        def run_node(self, n: torch.fx.Node):
            result = super().run_node(n)
            if n.name == layer.node:
                result = result.clone()
                result[:, chosen] = self.value
            return result

    logits = []
    for value in VALUES.tolist():
        writing = Writing(network.module)
        writing.value = value
        logits.append(torch.cat([writing.run(image[None]) for image in IMAGES]))
    return torch.stack(logits)


NAMES = [*networks(), "tokens"]


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_at_every_layer_the_functions_are_those_of_the_plain_way(name: str):
    network = opened(name)
    scanned = for_scanning(network)
    for layer in network.layers:
        where = some_positions(network, layer.name)
        (curves,) = Stimulation(scanned, scanned.layer(layer.name), IMAGES, BACKEND).curves(VALUES, where)
        assert curves.logits.shape == (len(curves.channels), 3, 3, network.class_count)
        for channel, found in zip(curves.channels.tolist(), curves.logits, strict=True):
            assert close(found, naive(network, layer.name, where, channel)), (layer.name, channel)


@pytest.mark.parametrize("seed", range(8))
@torch.no_grad()
def test_of_random_networks_too_with_whole_maps(seed: int):
    network = Network.of(random_network(seed), INPUT_SHAPE)
    scanned = for_scanning(network)
    for layer in network.layers:
        everywhere = torch.ones(layer.shape, dtype=torch.bool)
        (curves,) = Stimulation(scanned, scanned.layer(layer.name), IMAGES, BACKEND).curves(VALUES)
        for channel in range(layer.channels):
            expected = naive(network, layer.name, everywhere, channel)
            assert close(curves.logits[channel], expected), (layer.name, channel)


@torch.no_grad()
def test_each_channel_may_have_values_of_its_own():
    network = opened("residual")
    layer = network.layers[1]
    stimulation = Stimulation(network, layer, IMAGES, BACKEND)
    own = torch.rand(layer.channels, 4, generator=torch.Generator().manual_seed(2))
    (curves,) = stimulation.curves(own)
    for channel in range(layer.channels):
        alone = stimulation.functions(torch.tensor([channel]), own[channel])
        assert close(curves.logits[channel], alone.logits[0])


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding"), [(1, 3, 1, 1), (2, 3, 1, 1), (2, 3, 2, 1), (3, 5, 1, 2)]
)
@torch.no_grad()
def test_a_convolution_over_a_tiny_map_is_one_matrix_with_the_same_result(
    side: int, kernel: int, stride: int, padding: int
):
    torch.manual_seed(0)
    pool = nn.AdaptiveAvgPool2d(side)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), pool, nn.Conv2d(4, 6, kernel, stride, padding), nn.ReLU())
    inside = nn.Sequential(*module, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    network = Network.of(inside.eval(), INPUT_SHAPE)
    scanned = for_scanning(network)
    assert isinstance(scanned.module.get_submodule("3"), TinyMapConv2d)
    assert not any(isinstance(part, TinyMapConv2d) for part in network.module.modules())
    assert close(scanned(IMAGES), network(IMAGES))


@pytest.mark.parametrize(
    ("start", "stop", "width"), [(0, 12, 4), (3, 4, 5), (1, 14, 4), (4, 9, 4), (2, 3, 1), (5, 7, 8)]
)
def test_a_chunk_is_cut_into_blocks_that_cover_it_once(start: int, stop: int, width: int):
    cells = []
    for rows, columns in rectangles(start, stop, width):
        cells += [r * width + c for r in range(rows.start, rows.stop) for c in range(columns.start, columns.stop)]
    assert sorted(cells) == list(range(start, stop))


@torch.no_grad()
def test_without_positions_whole_maps_are_set():
    network = opened("residual")
    layer = network.layers[1]
    (curves,) = Stimulation(network, layer, IMAGES, BACKEND).curves(VALUES)
    assert curves.channels.tolist() == list(range(layer.channels))
    for channel in range(layer.channels):
        expected = naive(network, layer.name, torch.ones(layer.shape, dtype=torch.bool), channel)
        assert torch.allclose(curves.logits[channel], expected, rtol=1e-4, atol=1e-4)


def test_a_channel_without_positions_is_left_out():
    network = opened("plain")
    layer = network.layers[0]
    where = torch.zeros(layer.shape, dtype=torch.bool)
    where[[1, 4], 2, 3] = True
    (curves,) = Stimulation(network, layer, IMAGES, BACKEND).curves(VALUES, where)
    assert curves.channels.tolist() == [1, 4]


def test_without_any_positions_there_are_no_functions():
    network = opened("plain")
    layer = network.layers[0]
    assert not list(Stimulation(network, layer, IMAGES, BACKEND).curves(VALUES, torch.zeros(layer.shape).bool()))


@pytest.mark.parametrize("memory", [1, 40_000, 400_000])
def test_little_memory_gives_the_same_functions_in_parts(memory: int):
    network = opened("residual")
    for layer in network.layers:
        (whole,) = Stimulation(network, layer, IMAGES, BACKEND).curves(VALUES)
        parts = list(Stimulation(network, layer, IMAGES, Backend.choose("cpu", memory=memory)).curves(VALUES))
        assert torch.equal(torch.cat([part.channels for part in parts]), whole.channels)
        assert torch.allclose(torch.cat([part.logits for part in parts]), whole.logits, atol=1e-5)
        if memory == 1:
            assert len(parts) == layer.channels


def test_what_comes_before_the_layer_runs_once(monkeypatch: pytest.MonkeyPatch):
    network = opened("plain")
    sizes: list[int] = []
    until = Network.until
    monkeypatch.setattr(Network, "until", lambda self, layer, x: sizes.append(len(x)) or until(self, layer, x))
    stimulation = Stimulation(network, network.layers[1], IMAGES, BACKEND)
    stimulation.largest()
    list(stimulation.curves(VALUES))
    assert sizes == [1, 3]  # one image to see what it takes, then all


def test_the_largest_activation_is_over_all_images():
    network = opened("residual")
    scarce = Backend.choose("cpu", memory=1)
    for layer in network.layers:
        expected = float(network.read(IMAGES)[layer.name].max())
        assert expected > 0
        assert Stimulation(network, layer, IMAGES, scarce).largest() == pytest.approx(expected, rel=1e-5)


def test_a_layer_that_is_never_positive_is_measured_by_its_magnitude():
    module = nn.Sequential(nn.Flatten(), nn.Linear(432, 4), nn.Linear(4, 3))
    with torch.no_grad():
        module[1].weight.zero_()
        module[1].bias.copy_(torch.tensor([-1.0, -3.0, -2.0, 0.0]) - 0.5)
    network = Network.of(module, INPUT_SHAPE)
    assert Stimulation(network, network.layers[0], IMAGES, BACKEND).largest() == pytest.approx(3.5)
