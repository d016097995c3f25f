"""abs: every channel, adaptively; a planted backdoor first; pruning changes nothing; memory holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from agnes_stimulation import adaptive, pruning
from agnes_stimulation.abs import Abs
from agnes_stimulation.aproxsm import AproxSM
from agnes_stimulation.nsf import Stimulation
from torch import nn

from agnes.backend import Backend
from agnes.errors import UsageError
from agnes.memory import MemoryMeter
from agnes.network import Network
from agnes.samples import Samples
from agnes.testing import StimulationChecks, plant, tiny_network, tiny_samples
from agnes.testing.inputs import representatives_of

BACKEND = Backend.choose("cpu", memory=1 << 26)
NETWORKS = ["plain", "residual", "dense", "depthwise", "fully_connected"]


class TestAbs(StimulationChecks):
    method = Abs(samples=8)


class TestAbsByMargin(StimulationChecks):
    method = Abs(samples=4, refine=False, score="margin")


@pytest.mark.parametrize(("target", "channel"), [(3, 5), (0, 1)])
@pytest.mark.parametrize("method", [Abs(), Abs(refine=False, score="margin")], ids=["elevation", "margin"])
def test_a_planted_backdoor_is_ranked_first_with_its_target(method: Abs, target: int, channel: int):
    planted = plant(target, channel)
    first, *_ = method.stimulate(network=planted.network, samples=planted.samples, backend=BACKEND)
    assert (first.layer, first.channel) in planted.path
    assert first.target == target
    assert first.low <= first.high


def test_a_backdoor_wired_to_two_neurons_together_is_not_seen_in_either():
    """The limit that ABS states of itself: each alone does nothing, both together send all images to the class."""
    network, pair, target = wired_pair()
    images = torch.rand(12, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    samples = Samples(images, torch.arange(12) % 4)
    state = network.until("1", images)
    both = state.value.clone()
    both[:, list(pair)] = 6.0
    assert (network.after("1", state, both).argmax(1) == target).all()
    found = Abs(reach=6.0, extend=0).stimulate(network=network, samples=samples, backend=BACKEND)
    alone = [c for c in found if c.layer == "1" and c.channel in pair and c.target == target]
    assert all(c.low > c.high for c in alone)  # never shown to win


def wired_pair() -> tuple[Network, tuple[int, int], int]:
    """Class 2 wins only where the sum of two neurons passes what one of them reaches."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    with torch.no_grad():
        for index in (1, 3, 5):
            module[index].weight.mul_(0.1)
        module[1].bias[:2] = 1.0
        module[3].weight[4] = torch.tensor([1.0, 1, 0, 0, 0, 0])
        module[3].bias[4] = -9.0
        module[5].weight[:, 4] = torch.tensor([0.0, 0, 50, 0])
    return Network.of(module.eval(), (3, 4, 4)), (0, 1), 2


@pytest.mark.parametrize("winning_first", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_pruning_gives_the_same_candidates_in_the_same_order(
    name: str, winning_first: bool, monkeypatch: pytest.MonkeyPatch
):
    network = tiny_network(name)
    samples = tiny_samples(network, each=4)
    method = Abs(samples=6, refine=False, score="margin", top=4, winning_first=winning_first, extend=0)
    given = {"network": network, "samples": samples, "backend": BACKEND}
    pruned = method.stimulate(**given)
    monkeypatch.setattr(Abs, "_prunes", False)
    whole = method.stimulate(**given)
    assert [(c.layer, c.channel, c.target) for c in pruned] == [(c.layer, c.channel, c.target) for c in whole]
    for one, other in zip(pruned, whole, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)
        assert (one.low, one.high) == pytest.approx((other.low, other.high), rel=1e-5)
        assert one.elevations == pytest.approx(other.elevations, abs=1e-4)
        assert one.curve is not None
        assert other.curve is not None
        assert torch.allclose(one.curve.logits, other.curve.logits, atol=1e-4)


def test_pruning_reads_less_than_all(monkeypatch: pytest.MonkeyPatch):
    planted = plant(each=8)
    contests = []
    begin = pruning.Contest.__init__
    monkeypatch.setattr(pruning.Contest, "__init__", lambda self, *given: contests.append(self) or begin(self, *given))
    Abs(samples=4, refine=False, score="margin", top=1).stimulate(
        network=planted.network, samples=planted.samples, backend=BACKEND
    )
    everything = sum(layer.channels for layer in planted.network.layers) * len(planted.samples)
    assert contests[0].read < everything / 2


def test_images_of_one_class_alone_do_not_mislead_pruning():
    planted = plant()
    samples = planted.samples.of_class(1)
    method = Abs(samples=4, refine=False, score="margin")
    first, *_ = method.stimulate(network=planted.network, samples=samples, backend=BACKEND)
    assert first.target == planted.target


def peaked() -> Network:
    """One neuron whose function has a peak that even samples miss: up from 2.6 to 3.2 and down again."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 2), nn.ReLU(), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
    with torch.no_grad():
        for index in (1, 3, 5):
            module[index].weight.zero_()
            module[index].bias.zero_()
        module[1].bias[0] = 1.0
        module[3].weight[:, 0] = 1.0
        module[3].bias.copy_(torch.tensor([-2.6, -3.2, -3.8]))
        module[5].weight[1] = torch.tensor([50.0, -100.0, 50.0])
    return Network.of(module.eval(), (3, 4, 4))


def test_values_gather_where_a_function_bends():
    network = peaked()
    stimulation = Stimulation(network, network.layers[0], torch.rand(2, 3, 4, 4), BACKEND)
    curves = adaptive.curves(stimulation, torch.tensor([0]), 6.4, 32, 0.02)
    values = curves.values[0]
    assert len(values) == 32
    assert (values.diff() >= 0).all()
    assert (values[0], values[-1]) == (0.0, pytest.approx(6.4))
    assert ((values > 2.4) & (values < 4.0)).sum() >= 12
    for value, logits in zip(values, curves.logits[0], strict=True):
        alone = stimulation.functions(torch.tensor([0]), value[None]).logits[0, 0]
        assert torch.allclose(logits, alone, atol=1e-4)


def test_a_straight_function_gets_no_more_values():
    network = tiny_network("fully_connected")
    stimulation = Stimulation(network, network.layers[-1], tiny_samples(network).images, BACKEND)
    curves = adaptive.curves(stimulation, torch.arange(4), 3.0, 16, 0.02)
    assert curves.values.shape == (4, 8)


def test_values_between_lie_elsewhere_for_each_channel():
    values = adaptive.first_values(torch.arange(5), 8.0, 9)
    assert (values[:, 0] == 0).all()
    assert (values[:, -1] == 8).all()
    assert (values.diff(dim=1) > 0).all()
    assert len(values[:, 4].unique()) == 5


def test_a_range_goes_on_as_far_as_the_target_wins():
    planted = plant()
    method = Abs(extend=0)
    given = {"network": planted.network, "samples": planted.samples, "backend": BACKEND}
    short = method.stimulate(**given)[0]
    long = replace(method, extend=3).stimulate(**given)[0]
    assert (short.layer, short.channel, short.low) == (long.layer, long.channel, long.low)
    assert long.high > short.high
    state = planted.network.until(long.layer, planted.samples.images)
    replaced = state.value.clone()
    replaced[:, long.channel] = long.high
    assert (planted.network.after(long.layer, state, replaced).argmax(1) == long.target).all()


@pytest.mark.slow
def test_in_512_megabytes_a_network_is_scanned_whose_functions_take_more():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 4096), nn.ReLU(), nn.Linear(4096, 200)).eval()
    network = Network.of(module, (3, 4, 4))
    samples = Samples(torch.rand(64, 3, 4, 4), torch.arange(64) % 200)
    budget = 512 << 20
    assert 6 * budget < 4096 * 16 * 64 * 200 * 4
    backend = Backend.choose("cpu", memory=budget)
    pruned = Abs(refine=False, score="margin")
    of_one_class = Samples(samples.images, torch.zeros(64, dtype=torch.int64))  # little is dropped
    everywhere = representatives_of(network)
    runs = [(Abs(refine=False), samples, {}), (Abs(), samples, {}), (pruned, samples, {}), (pruned, of_one_class, {})]
    for method, given, more in [*runs, (AproxSM(), samples, {"representatives": everywhere})]:
        with MemoryMeter(backend.device) as meter:
            found = method.stimulate(network=network, samples=given, backend=backend, **more)
        assert found
        assert meter.peak < budget


@pytest.mark.parametrize(
    "method", [Abs(), Abs(refine=False), Abs(refine=False, score="margin"), Abs(refine=False, score="margin", top=256)]
)
def test_in_little_memory_a_network_is_scanned_whose_functions_take_many_times_as_much(method: Abs):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 256), nn.ReLU(), nn.Linear(256, 40)).eval()
    network = Network.of(module, (3, 4, 4))
    samples = Samples(torch.rand(64, 3, 4, 4), torch.arange(64) % 40)
    backend = Backend.choose("cpu", memory=4 << 20)
    assert 10 * backend.memory <= 256 * 16 * 64 * 40 * 4
    with MemoryMeter(backend.device) as meter:
        found = method.stimulate(network=network, samples=samples, backend=backend)
    assert found
    assert meter.peak < backend.memory


def test_a_token_layer_is_stimulated_by_channel():
    torch.manual_seed(0)

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.norm, self.head = nn.Linear(12, 5), nn.LayerNorm(5), nn.Linear(5, 4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.embed(images.reshape(-1, 4, 12))).mean(1))

    network = Network.of(Tokens().eval(), (3, 4, 4))
    samples = Samples(torch.rand(8, 3, 4, 4), torch.arange(8) % 4)
    found = Abs(samples=4).stimulate(network=network, samples=samples, backend=BACKEND)
    assert {c.layer for c in found} == {"embed"}


@pytest.mark.parametrize("settings", [{"tolerance": -0.1}, {"extend": -1}])
def test_a_setting_that_makes_no_sense_is_refused_by_name(settings: dict[str, float]):
    with pytest.raises(UsageError, match=rf"abs\.{next(iter(settings))} is"):
        Abs(**settings)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_on_cuda_the_first_candidate_is_the_same(precision: str):
    planted = plant()
    backend = Backend.choose("cuda", precision=precision)  # type: ignore[arg-type]
    with backend.computing():
        first, *_ = Abs().stimulate(
            network=planted.network.to("cuda"), samples=planted.samples.to("cuda"), backend=backend
        )
    assert (first.layer, first.channel) in planted.path


def test_bfloat16_finds_the_planted_backdoor_too():
    planted = plant()
    backend = Backend.choose("cpu", precision="bfloat16")
    with backend.computing():
        first, *_ = Abs().stimulate(network=planted.network, samples=planted.samples, backend=backend)
    assert (first.layer, first.channel) in planted.path
