"""abssm: neurons of an abstract network, named as the original ones; without one, it does what aproxsm does."""

from __future__ import annotations

import pytest
import torch
from agnes_stimulation.abs import Abs
from agnes_stimulation.abssm import AbsSM
from agnes_stimulation.aproxsm import AproxSM
from agnes_stimulation.exact import AbsExact
from torch import nn

from agnes import selection
from agnes.backend import Backend
from agnes.errors import AgnesError
from agnes.network import Network
from agnes.registry import Registry
from agnes.results import Noted, Representatives
from agnes.samples import Samples
from agnes.testing import StimulationChecks, plant, tiny_network
from agnes.testing.inputs import representatives_of

BACKEND = Backend.choose("cpu", memory=1 << 26)


class TestAbsSM(StimulationChecks):
    method = AbsSM(samples=4)


def flat_network() -> tuple[Network, Samples]:
    """Eight hidden neurons; the sixth sends every image to class 2."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.no_grad():
        module[3].weight.mul_(0.01)
        module[3].weight[2, 5] = 30.0
    return Network.of(module.eval(), (3, 4, 4)), Samples(torch.rand(8, 3, 4, 4), torch.arange(8) % 4)


def every_second_gone(network: Network) -> Representatives:
    """An abstract network of the odd neurons, each standing for itself and the one before it."""
    source = dict(network.module.named_modules())
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 4), nn.ReLU(), nn.Linear(4, 4))
    with torch.no_grad():
        module[1].weight.copy_(source["1"].weight[1::2])
        module[1].bias.copy_(source["1"].bias[1::2])
        module[3].weight.copy_(source["3"].weight[:, 1::2] + source["3"].weight[:, ::2])
        module[3].bias.copy_(source["3"].bias)
    positions = torch.zeros(8, dtype=torch.bool)
    positions[1::2] = True
    return Representatives(
        {"1": torch.arange(8) // 2},
        {"1": positions},
        Network.of(module.eval(), (3, 4, 4)),
        sources={"1": torch.arange(1, 8, 2)},
    )


def test_a_backdoor_is_ranked_first_and_named_as_the_original_neuron():
    network, samples = flat_network()
    found = AbsSM().stimulate(
        network=network, samples=samples, representatives=every_second_gone(network), backend=BACKEND
    )
    assert (found[0].layer, found[0].channel, found[0].target) == ("1", 5, 2)
    assert {c.channel for c in found} <= {1, 3, 5, 7}
    assert found[0].positions is not None
    assert found[0].positions.shape == ()


def test_a_neuron_of_a_flattened_map_becomes_its_channel_and_position():
    planted = plant()
    layer = planted.network.layer("second")
    maps = nn.Sequential(nn.Flatten(), nn.Linear(768, 3), nn.ReLU(), nn.Linear(3, 6))
    with torch.no_grad():
        maps[3].weight.mul_(0.01)
        maps[3].weight[4, 1] = 20.0
    flat = int(torch.arange(layer.neurons).reshape(layer.shape)[5, 2, 7])
    given = Representatives({}, {}, Network.of(maps.eval(), (3, 16, 16)), sources={"1": torch.tensor([0, flat, 9])})
    given = Representatives(
        {}, {}, renamed(given.abstract_network, "1", "second"), sources={"second": given.sources["1"]}
    )
    found = AbsSM().stimulate(network=planted.network, samples=planted.samples, representatives=given, backend=BACKEND)
    assert (found[0].layer, found[0].channel, found[0].target) == ("second", 5, 4)
    assert found[0].positions.nonzero().tolist() == [[2, 7]]


def renamed(network: Network, old: str, new: str) -> Network:
    """The network with a module under another name, as an abstraction names its layers after the original's."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, part in network.module.named_children():
                self.add_module(new if name == old else f"part{name}", part)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            for part in self.children():
                images = part(images)
            return images

    return Network.of(Named().eval(), network.input_shape)


def test_without_an_abstract_network_it_does_what_aproxsm_does_and_says_so():
    planted = plant()
    given = {
        "network": planted.network,
        "samples": planted.samples,
        "representatives": representatives_of(planted.network),
        "backend": BACKEND,
    }
    found = AbsSM().stimulate(**given)
    assert isinstance(found, Noted)
    assert list(found) == list(AproxSM().stimulate(**given))
    assert found[0].target == planted.target
    assert "no abstract network" in found.notes[0]


def test_it_suits_networks_of_convolutions_and_dense_layers_alone():
    assert AbsSM().suits(tiny_network("fully_connected"))
    assert AbsSM().suits(tiny_network("batch_norm"))
    assert AbsSM().suits(tiny_network("plain")) is None  # max pooling
    assert AbsSM().suits(tiny_network("residual")) is None


def test_without_representatives_it_says_what_is_missing():
    network, samples = flat_network()
    with pytest.raises(AgnesError, match="abssm was given no representatives"):
        AbsSM().stimulate(network=network, samples=samples, representatives=None, backend=BACKEND)


@pytest.mark.parametrize(
    ("name", "stimulation", "abstraction"),
    [("fully_connected", "abssm", "deepabstract"), ("plain", "aproxsm", "kmeans"), ("residual", "aproxsm", "kmeans")],
)
def test_the_choice_is_that_of_agnes_by_the_kinds_of_layers(name: str, stimulation: str, abstraction: str):
    registry = Registry.discover()
    if "deepabstract" not in {plugin.name for plugin in registry.plugins}:
        pytest.skip("agnes-abstraction is not installed")
    found = selection.select(registry, tiny_network(name))
    assert [m.name for m in found.of("stimulation")] == [stimulation]
    assert [m.name for m in found.of("abstraction")] == [abstraction]


def test_a_network_that_is_not_piecewise_linear_is_no_matter_for_abs_exact_and_the_reason_is_said():
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.GELU(), nn.Linear(6, 4)).eval()
    offered = selection.offered_by(Network.of(module, (3, 4, 4)), None)
    assert selection.unmet_needs(AbsExact.needs, offered) == "needs a piecewise-linear network"
    assert selection.unmet_needs(Abs.needs, offered) == ""
