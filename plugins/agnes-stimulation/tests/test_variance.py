"""variance: the channel whose maps hardly change, by the thesis's formula written as a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from agnes_stimulation.variance import Variance, norms, z_scores
from torch import nn

from agnes.backend import Backend
from agnes.errors import UsageError
from agnes.network import Network
from agnes.results import Noted
from agnes.samples import Samples
from agnes.testing import StimulationChecks, tiny_network, tiny_samples

BACKEND = Backend.choose("cpu", memory=1 << 26)


class TestVariance(StimulationChecks):
    method = Variance(threshold=-0.5)


def quiet_channel(channel: int = 6, channels: int = 24) -> tuple[Network, Samples]:
    """One channel is constant; the others follow the image."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(channels * 64, 4))
    with torch.no_grad():
        module[0].weight.fill_(0.5)
        module[0].weight[channel] = 0
        module[0].bias[channel] = 1.0
    scale = torch.linspace(0.1, 1, 12)[:, None, None, None]
    return Network.of(module.eval(), (3, 8, 8)), Samples(torch.rand(12, 3, 8, 8) * scale, torch.arange(12) % 4)


def test_the_channel_that_never_varies_is_found_without_a_target():
    network, samples = quiet_channel()
    (found,) = Variance().stimulate(network=network, samples=samples, backend=BACKEND)
    assert (found.layer, found.channel, found.target) == ("0", 6, None)
    assert found.score > 2


@torch.no_grad()
def test_variances_and_scores_are_those_of_the_loops():
    network = tiny_network("plain")
    images = tiny_samples(network).images
    layer = network.layers[1]
    maps = own_output(network.module, layer.module, images)
    slow = [
        [sum(v * v for v in maps[x, k].flatten().tolist()) ** 0.5 for k in range(layer.channels)]
        for x in range(len(images))
    ]
    found = norms(network, [network.layers[0], layer], images, BACKEND)[layer.name]
    assert torch.allclose(found, torch.tensor(slow), rtol=1e-5)
    variances = np.var(slow, axis=0, ddof=1)
    expected = (variances - variances.mean()) / variances.std()
    assert z_scores(torch.tensor(variances)).tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize("norm_first", [True, False])
@torch.no_grad()
def test_the_map_is_read_after_the_normalisation_and_before_the_activation_that_follows(norm_first: bool):
    torch.manual_seed(0)
    after = [nn.BatchNorm2d(5), nn.ReLU()] if norm_first else [nn.ReLU(), nn.BatchNorm2d(5)]
    module = nn.Sequential(nn.Conv2d(3, 5, 3), *after, nn.Dropout(), nn.Flatten(), nn.Linear(180, 4))
    module(torch.rand(9, 3, 8, 8))
    network = Network.of(module.eval(), (3, 8, 8))
    images = torch.rand(6, 3, 8, 8)
    expected = own_output(network.module, network.layers[0].norm or "", images).flatten(2).norm(dim=2)
    assert torch.allclose(norms(network, network.layers[:1], images, BACKEND)["0"], expected, rtol=1e-5)


def own_output(module: nn.Module, path: str, images: torch.Tensor) -> torch.Tensor:
    """What one submodule gives."""
    kept = []
    handle = module.get_submodule(path).register_forward_hook(lambda _module, _given, made: kept.append(made))
    module(images)
    handle.remove()
    return kept[0]


def test_one_pass_over_the_images_serves_all_layers(monkeypatch: pytest.MonkeyPatch):
    network = tiny_network("residual")
    samples = tiny_samples(network)
    ran: list[str] = []
    node = torch.fx.Interpreter.run_node
    monkeypatch.setattr(torch.fx.Interpreter, "run_node", lambda self, n: ran.append(n.name) or node(self, n))
    Variance().stimulate(network=network, samples=samples.subset([0, 1]), backend=Backend.choose("cpu", memory=1 << 30))
    assert ran.count(network.layers[0].node) <= 2  # one image to see what it takes, then the other


def test_where_no_hidden_layer_is_a_convolution_that_is_said():
    module = nn.Sequential(nn.Conv2d(3, 4, 4), nn.Flatten())
    network = Network.of(module.eval(), (3, 4, 4))
    samples = Samples(torch.rand(4, 3, 4, 4), torch.arange(4))
    found = Variance().stimulate(network=network, samples=samples, backend=BACKEND)
    assert found == ()
    assert found.notes == ("no hidden layer is a convolution",)


def test_channels_that_vary_alike_are_no_candidates():
    assert z_scores(torch.ones(4)).tolist() == [0, 0, 0, 0]


def test_of_equal_ones_the_deepest_comes_first():
    network, samples = quiet_channel()
    found = Variance(threshold=-0.01).stimulate(network=network, samples=samples, backend=BACKEND)
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)


def test_one_image_is_too_few_and_that_is_said():
    network, samples = quiet_channel()
    found = Variance().stimulate(network=network, samples=samples.subset([0]), backend=BACKEND)
    assert isinstance(found, Noted)
    assert not found
    assert found.notes == ("one image has no variance; give two or more",)


@pytest.mark.parametrize("settings", [{"threshold": 1.0}, {"images": 1}])
def test_a_setting_that_makes_no_sense_is_refused_by_name(settings: dict[str, float]):
    with pytest.raises(UsageError, match=rf"variance\.{next(iter(settings))} is"):
        Variance(**settings)  # type: ignore[arg-type]
