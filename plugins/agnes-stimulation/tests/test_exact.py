"""abs-exact: turn points against dense evaluation in float64, and the planted backdoor."""

from __future__ import annotations

import pytest
import torch
from agnes_stimulation.abs import Abs
from agnes_stimulation.exact import AbsExact
from agnes_stimulation.following import Lines
from agnes_stimulation.lines import TooMany
from agnes_stimulation.preparing import for_scanning
from agnes_stimulation.tally import Benign
from torch import nn

from agnes.backend import Backend
from agnes.errors import UsageError
from agnes.memory import MemoryMeter
from agnes.network import Network
from agnes.samples import Samples
from agnes.testing import StimulationChecks, plant
from agnes.testing.networks import INPUT_SHAPE, networks

BACKEND = Backend.choose("cpu", memory=1 << 26)
IMAGES = torch.rand(3, *INPUT_SHAPE, generator=torch.Generator().manual_seed(1))


class TestAbsExact(StimulationChecks):
    method = AbsExact(samples=5)


def lines_of(network: Network, name: str, images: torch.Tensor = IMAGES, pieces: int = 10_000, memory: int = 1 << 28):
    benign = Benign(images, torch.arange(len(images)) % network.class_count, network(images))
    scanned = for_scanning(network)
    return Lines(scanned, scanned.layer(name), benign, pieces, Backend.choose("cpu", memory=memory))


def dense(network: Network, name: str, channel: int, values: torch.Tensor) -> torch.Tensor:
    """Images, values, classes, in float64, one value after the other."""
    double = network.copy()
    double.module.double()
    layer = double.layer(name)
    state = double.until(layer, IMAGES.double())
    logits = []
    for value in values.double():
        replaced = state.value.clone()
        replaced[layer.channel_index(channel)] = value
        logits.append(double.after(layer, state, replaced))
    return torch.stack(logits, 1)


@pytest.mark.parametrize("name", networks())
@torch.no_grad()
def test_between_turn_points_the_functions_are_those_of_dense_evaluation_in_float64(name: str):
    network = Network.of(networks()[name](0), INPUT_SHAPE)
    assert network.piecewise_linear
    for layer in network.layers[-3:]:
        lines = lines_of(network, layer.name)
        highest = 6.4 * lines.stimulation.largest()
        grid = torch.linspace(0, highest, 101)
        pieces = lines.pieces(torch.tensor(1), highest, range(3))
        expected = dense(network, layer.name, 1, grid)
        scale = float(expected.abs().max())
        assert float((pieces.at(grid, 3) - expected).abs().max()) <= 1e-5 * scale, layer.name
        assert float((pieces.highest(3) - expected.amax(1)).min()) >= -1e-5 * scale, layer.name


@torch.no_grad()
def test_the_turn_points_of_a_small_network_are_those_found_by_hand():
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 1), nn.ReLU(), nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        for index in (1, 3, 5):
            module[index].weight.zero_()
            module[index].bias.zero_()
        module[1].bias[0] = 1.0
        module[3].weight[:, 0] = torch.tensor([1.0, -1.0, 2.0])
        module[3].bias.copy_(torch.tensor([-1.0, 2.0, -7.0]))  # they turn at 1, 2 and 3.5
        module[5].weight.copy_(torch.tensor([[1.0, 1.0, -2.0], [0.0, 0.0, 1.0]]))
    network = Network.of(module.eval(), (3, 4, 4))
    pieces = lines_of(network, "1", torch.rand(1, 3, 4, 4)).pieces(torch.tensor(0), 6.0, range(1))
    assert pieces.values.tolist() == pytest.approx([0, 1, 2, 3.5, 6])
    assert pieces.logits[:, 0].tolist() == pytest.approx([2, 1, 1, 2.5, -5], abs=1e-5)
    assert pieces.logits[:, 1].tolist() == pytest.approx([0, 0, 0, 0, 5], abs=1e-5)


@torch.no_grad()
def test_at_its_turn_points_abs_sees_the_same_logits():
    network = Network.of(networks()["plain"](0), INPUT_SHAPE)
    lines = lines_of(network, "3")
    pieces = lines.pieces(torch.tensor(2), 5.0, range(3))
    for line in range(3):
        mine = pieces.lines == line
        sampled = lines.stimulation.functions(torch.tensor([2]), pieces.values[mine]).logits[0, :, line]
        assert torch.allclose(pieces.logits[mine], sampled, atol=1e-4)


@torch.no_grad()
def test_the_closed_form_is_what_following_finds():
    network = Network.of(networks()["fully_connected"](0), INPUT_SHAPE)
    lines = lines_of(network, "1")
    assert lines._tail is not None
    grid = torch.linspace(0, 9.0, 50)
    closed = lines.pieces(torch.tensor(4), 9.0, range(3))
    lines._tail = None
    followed = lines.pieces(torch.tensor(4), 9.0, range(3))
    assert len(closed.values) >= len(followed.values)
    assert torch.allclose(closed.at(grid, 3), followed.at(grid, 3), atol=1e-4)


@torch.no_grad()
def test_little_memory_follows_fewer_lines_at_once():
    network = Network.of(networks()["plain"](0), INPUT_SHAPE)
    asked = (torch.tensor(1), 5.0, torch.linspace(0, 5.0, 20), range(3))
    whole = lines_of(network, "0").read(*asked)
    scarce = lines_of(network, "0", memory=6 << 20)
    with pytest.raises(TooMany) as error:
        scarce.pieces(torch.tensor(1), 5.0, range(3))
    assert error.value.together
    for one, other in zip(whole, scarce.read(*asked), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_the_pieces_of_many_images_and_classes_stay_inside_the_memory():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 3), nn.ReLU(), nn.Linear(3, 100), nn.ReLU())
    network = Network.of(module.append(nn.Linear(100, 400)).eval(), (3, 4, 4))
    samples = Samples(torch.rand(64, 3, 4, 4), torch.arange(64))
    backend = Backend.choose("cpu", memory=8 << 20)
    with MemoryMeter(backend.device) as meter:
        found = AbsExact(top=5, samples=5).stimulate(network=network, samples=samples, backend=backend)
    assert found
    assert meter.peak < backend.memory


@pytest.mark.parametrize(("target", "channel"), [(3, 5), (0, 1)])
def test_a_planted_backdoor_is_ranked_first_with_its_target(target: int, channel: int):
    planted = plant(target, channel)
    found = AbsExact().stimulate(network=planted.network, samples=planted.samples, backend=BACKEND)
    assert (found[0].layer, found[0].channel) in planted.path
    assert found[0].target == target
    assert found[0].low <= found[0].high


def test_no_sample_lies_above_what_it_finds():
    planted = plant()
    given = {"network": planted.network, "samples": planted.samples, "backend": BACKEND}
    exact = {(c.layer, c.channel): c for c in AbsExact(top=99).stimulate(**given)}
    sampled = Abs(top=99).stimulate(**given)
    assert len(sampled) > 4
    for candidate in sampled:
        if (twin := exact.get((candidate.layer, candidate.channel))) is not None:
            pairs = zip(twin.elevations, candidate.elevations, strict=True)
            assert all(one >= other - 1e-3 for one, other in pairs)


def test_it_says_which_layers_it_did_not_examine():
    network = Network.of(networks()["plain"](0), INPUT_SHAPE)
    samples = Samples(IMAGES, torch.arange(3))
    found = AbsExact(depth=1).stimulate(network=network, samples=samples, backend=BACKEND)
    assert found.notes == ("the first 2 of 3 layers were not examined (depth=1)",)
    assert {c.layer for c in found} == {network.layers[-1].name}


def test_it_says_how_many_channels_had_too_many_turn_points():
    network = Network.of(networks()["plain"](0), INPUT_SHAPE)
    samples = Samples(IMAGES, torch.arange(3))
    found = AbsExact(depth=0, pieces=20).stimulate(network=network, samples=samples, backend=BACKEND)
    assert found.notes[0].endswith(
        "channels of '0' left out: over 20 turn points a line, or more than the memory holds"
    )


@pytest.mark.parametrize("settings", [{"depth": -1}, {"pieces": 1}, {"samples": 1}, {"top": 0}, {"reach": 0.0}])
def test_a_setting_that_makes_no_sense_is_refused_by_name(settings: dict[str, float]):
    with pytest.raises(UsageError, match=rf"abs-exact\.{next(iter(settings))} is"):
        AbsExact(**settings)  # type: ignore[arg-type]
