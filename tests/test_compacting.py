"""Channels without weights taken out of a network for good."""

from dataclasses import dataclass

import fakes
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from agnes import cli, engine
from agnes.compacting import TOLERANCE, compact, compacted
from agnes.network import Network
from agnes.results import Repair, Verdict
from agnes.testing import plant, tiny_network, tiny_samples

SHAPE = (3, 12, 12)


class Viewed(nn.Module):
    """A network whose sizes are written down where it is flattened."""

    def __init__(self):
        super().__init__()
        self.conv, self.dense = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 144, 5)

    def forward(self, images):
        return self.dense(torch.relu(self.conv(images)).view(-1, 576))


def built(*parts):
    """A network of these parts, its BatchNorms as training leaves them."""
    torch.manual_seed(0)
    module = nn.Sequential(*parts)
    for part in module:
        if isinstance(part, (nn.BatchNorm2d, nn.BatchNorm1d)):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return Network.of(module.eval().requires_grad_(False), SHAPE)


def silenced(network, index, channels, bias=None):
    """A copy in which channels of a layer have no weights; their bias as given, or as it was."""
    copy = network.copy()
    layer = copy.layers[index]
    module = copy.module.get_submodule(layer.module)
    module.weight[channels] = 0
    if bias is not None:
        module.bias[channels] = bias
    return copy


def same(one, other):
    images = torch.rand(50, *one.input_shape, generator=torch.Generator().manual_seed(5))
    before, after = one(images), other(images)
    assert float((before - after).abs().max()) <= TOLERANCE * max(1.0, float(before.abs().max()))


def flat(*tail):
    return nn.Flatten(), nn.Linear(6 * 36, 7), nn.ReLU(), nn.Linear(7, 5)


PADDED = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(), *flat())
NORMED = (
    nn.Conv2d(3, 8, 3, padding=1, bias=False),
    nn.BatchNorm2d(8),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(8, 6, 3, padding=1),
    nn.BatchNorm2d(6),
    nn.ReLU(),
    *flat(),
)


def test_silent_channels_before_a_convolution_go_and_the_answers_stay():
    network = silenced(built(*PADDED), 0, [1, 4, 5], bias=-0.5)
    smaller, removed, stayed = compact(network)
    assert (removed, stayed) == (3, ())
    assert network.parameter_count - smaller.parameter_count == 3 * (3 * 9 + 1) + 3 * 6 * 9
    assert smaller.layers[0].channels == 5
    same(network, smaller)


def test_silent_channels_before_a_flattened_linear_layer_go_with_all_their_columns():
    network = silenced(built(*PADDED), 1, [0, 5], bias=0.7)  # a constant that is not zero goes into the bias
    smaller, removed, stayed = compact(network)
    assert (removed, stayed) == (2, ())
    assert network.parameter_count - smaller.parameter_count == 2 * (8 * 9 + 1) + 2 * 36 * 7
    same(network, smaller)


def test_a_constant_that_is_not_zero_stays_before_padding_and_the_reason_is_given():
    network = silenced(built(*PADDED), 0, [1, 4], bias=0.7)
    smaller, removed, stayed = compact(network)
    assert removed == 0
    assert smaller.parameter_count == network.parameter_count
    assert stayed == ("2 channels of '0': the next convolution pads with zeros, and their value is another",)
    mixed = silenced(silenced(network, 0, [6], bias=-1.0), 0, [7], bias=-1.0)
    smaller, removed, stayed = compact(mixed)
    assert removed == 2
    assert stayed[0].startswith("2 channels of '0'")
    same(mixed, smaller)


def test_without_padding_any_constant_goes():
    parts = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 6, 1, bias=False), *flat())
    network = silenced(built(*parts), 0, [2, 3], bias=0.9)
    smaller, removed, stayed = compact(network)
    assert (removed, stayed) == (2, ())
    same(network, smaller)


def test_a_batch_norm_is_narrowed_too():
    network = built(*NORMED).copy()
    norm = network.module.get_submodule("1")
    network = silenced(network, 0, [2, 6])
    norm = network.module.get_submodule("1")
    norm.weight[[2, 6]], norm.bias[[2, 6]] = 0, -0.3  # held constant, below the ReLU
    network = silenced(network, 1, [1], bias=0.2)
    smaller, removed, stayed = compact(network)
    assert (removed, stayed) == (3, ())
    assert smaller.module.get_submodule("1").num_features == 6
    same(network, smaller)


def test_a_batch_norm_behind_the_flattening_is_narrowed_by_all_positions():
    parts = (nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.BatchNorm1d(6 * 36))
    network = silenced(built(*parts, nn.Linear(6 * 36, 5)), 0, [0, 3], bias=0.4)
    smaller, removed, stayed = compact(network)
    assert (removed, stayed) == (2, ())
    assert smaller.module.get_submodule("4").num_features == 4 * 36
    same(network, smaller)


def test_hidden_units_between_linear_layers_go():
    network = silenced(tiny_network("fully_connected"), 0, [0, 2, 5], bias=0.5)
    smaller, removed, stayed = compact(network)
    assert (removed, stayed) == (3, ())
    assert smaller.parameter_count < network.parameter_count
    same(network, smaller)


def test_what_a_skip_connection_reads_stays():
    network = tiny_network("residual").copy()
    for layer in network.layers:
        network.module.get_submodule(layer.module).weight[0] = 0
    smaller, _, stayed = compact(network)
    assert any("several places read it" in why or "'add' reads it" in why for why in stayed)
    same(network, smaller)


@pytest.mark.parametrize(
    "name", ["dense", "branching", "depthwise", "pre_activation", "written_as_calls", "max_pooled"]
)
def test_whatever_the_shape_of_a_network_its_answers_stay(name):
    network = tiny_network(name).copy()
    for layer in network.layers:
        network.module.get_submodule(layer.module).weight[0] = 0
    smaller, removed, stayed = compact(network)
    assert removed or stayed
    assert smaller.parameter_count <= network.parameter_count
    same(network, smaller)


def test_a_size_that_is_written_down_keeps_the_channels():
    torch.manual_seed(0)
    network = silenced(Network.of(Viewed().eval().requires_grad_(False), SHAPE), 0, [1])
    smaller, removed, stayed = compact(network)
    assert (smaller.parameter_count, removed) == (network.parameter_count, 0)
    assert "a size on the way to where it is read is written down" in stayed[0]


def test_a_layer_never_vanishes():
    network = silenced(built(*PADDED), 0, list(range(8)), bias=-1.0)
    smaller, removed, _ = compact(network)
    assert (removed, smaller.layers[0].channels) == (7, 1)
    same(network, smaller)


def test_nothing_silent_nothing_changed():
    network = tiny_network("plain")
    assert compact(network) == (network, 0, ())


def test_the_network_handed_in_is_left_alone():
    network = silenced(built(*PADDED), 0, [1, 4, 5], bias=-0.5)
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    compact(network)
    after = network.module.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_compacted_network_can_be_read_and_cut_like_any_other():
    network = silenced(built(*PADDED), 0, [1, 4, 5], bias=-0.5)
    smaller, *_ = compact(network)
    samples = tiny_samples(smaller)
    for layer in smaller.layers:
        state = smaller.until(layer, samples.images)
        assert tuple(state.value.shape[1:]) == layer.shape
        torch.testing.assert_close(smaller.after(layer, state), smaller(samples.images))


def test_the_planted_channel_is_really_taken_out():
    planted = plant()
    network = planted.network.copy()
    network.module.first.weight[planted.channel] = 0
    repair = compacted(Repair(network, (), weights=network.parameter_count))
    assert repair.network.layers[0].channels == planted.network.layers[0].channels - 1
    assert repair.weights == repair.network.parameter_count < network.parameter_count
    assert "2 channels without weights taken out" in repair.notes[0]  # the next layer's heard nothing else
    assert torch.equal(repair.network(planted.samples.images).argmax(1), network(planted.samples.images).argmax(1))


@dataclass(frozen=True)
class Silent(fakes.FakeMitigation):
    """Prunes a channel to zero."""

    @fakes.hookimpl
    def mitigate(self, network):
        copy = silenced(network, 0, [0], bias=-5.0)
        norm = copy.module.get_submodule(copy.layers[0].norm)
        norm.weight[0], norm.bias[0] = 0, -5
        return Repair(copy, (fakes.Change(network.layers[0].name, 0, "silenced"),))


@dataclass(frozen=True)
class Writes(fakes.FakeExporter):
    """Keeps what it writes."""

    @fakes.hookimpl
    def export(self, network, path):
        WRITTEN.append(network)
        return fakes.FakeExporter().export(network, path)


WRITTEN = []


def test_the_command_writes_the_smaller_network_and_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    WRITTEN.clear()
    house = [plugin for plugin in fakes.whole_house() if plugin.stage not in ("mitigation", "exporter")]
    plugins = [fakes.plugin("silent", "mitigation", Silent), fakes.plugin("writes", "exporter", Writes)]
    fakes.model_file(tmp_path)
    data = str(fakes.images_file(tmp_path))
    with fakes.installed(*house, *plugins):
        for options in ([], ["--compact"]):
            result = CliRunner().invoke(cli.app, ["run", "model.fake", "--data", data, "--plugin", "needy", *options])
            assert result.exit_code == 1, result.output
        assert "1 channel without weights taken out" in result.output
        whole, smaller = WRITTEN
        assert smaller.parameter_count < whole.parameter_count
        same(whole, smaller)
        report = engine.run(engine.Request(tmp_path / "model.fake", tmp_path / "images.npz", ("needy",), compact=True))
    assert report.repair.weights == smaller.parameter_count


def test_a_network_that_cannot_be_compacted_stays_whole_and_the_report_says_why(monkeypatch):
    def fails(repair):
        raise RuntimeError("no room")

    monkeypatch.setattr(engine, "compacted", fails)
    repair = Repair(tiny_network("plain"), (), rescan=Verdict("clean", 0.1))
    (found,) = engine._compacted((repair,))
    assert found.network is repair.network
    assert found.notes == ("not compacted: RuntimeError: no room",)
