"""What noise excites after the first ReLU."""

import pytest
import torch
from agnes_diagnosis.overactivation import (
    Overactivation,
    compared,
    first_relu,
    largest_values,
    noise_images,
    scattered,
    start_of,
)
from torch import nn

from agnes.backend import Backend
from agnes.errors import OutOfTime, UsageError
from agnes.network import Network
from agnes.testing import DiagnosisChecks, tiny_network
from agnes.testing.networks import networks

BACKEND = Backend.choose("cpu")
SHAPE = (3, 12, 12)


class TestConformance(DiagnosisChecks):
    method = Overactivation(images=20, copies=4)


class TestConformanceWithNormalNoise(DiagnosisChecks):
    method = Overactivation(images=20, copies=4, noise="normal")


def network_of(*, gain=1.0, seed=0):
    """Two convolutions; the first channel's weights are all positive, and multiplied by the gain."""
    first, second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 3)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (*first.parameters(), *second.parameters()):
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        first.weight[0] = first.weight[0].abs() * gain if gain != 1.0 else first.weight[0]
    parts = (first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    return Network.of(nn.Sequential(*parts), SHAPE)


def slow(network, images):
    """One image after another, by the first convolution and a maximum with zero alone."""
    first = next(part for part in network.module.modules() if isinstance(part, nn.Conv2d))
    return torch.tensor([max(0.0, float(first(image[None]).max())) for image in images])


def test_each_images_value_is_the_largest_after_the_first_relu():
    network = network_of(seed=3)
    images = noise_images(SHAPE, 30, BACKEND)
    with torch.no_grad():
        expected = slow(network, images)
    assert torch.allclose(largest_values(start_of(network), images, BACKEND), expected, atol=1e-6)


def test_noise_may_be_normal():
    network, method = network_of(seed=3), Overactivation(images=400, noise="normal")
    images = method._noise(network, BACKEND)
    assert (float(images.mean()), float(images.std())) == pytest.approx((0, 1), abs=0.01)
    with torch.no_grad():
        assert torch.allclose(method.values(network, BACKEND), slow(network, images), atol=1e-5)


def test_batch_normalisation_before_the_first_relu_counts():
    network = tiny_network("batch_norm")
    images = noise_images(SHAPE, 10, BACKEND)
    with torch.no_grad():
        read = network.read(images)[network.layers[0].name]
    assert torch.allclose(largest_values(start_of(network), images, BACKEND), read.flatten(1).amax(1), atol=1e-6)


@pytest.mark.parametrize("name", sorted(networks()))
def test_only_what_the_first_relu_reads_is_kept_of_any_network(name):
    network = tiny_network(name)
    last = first_relu(network)
    if last is None:
        assert "ReLU" in Overactivation().unmet(network)
        return
    start = start_of(network)
    assert sum(node.op == "output" for node in start.graph.nodes) == 1
    assert [node.name for node in start.graph.nodes][-2] == last.name
    assert float(start(torch.rand(2, *SHAPE)).min()) >= 0


def test_the_index_is_two_ratios_and_a_count():
    index = compared(torch.tensor([2.0, 4.0, 1.0]), torch.tensor([1.0, 2.0, 3.0]))
    assert index.max_ratio == pytest.approx(4 / 3)
    assert index.mean_ratio == pytest.approx(7 / 6)
    assert index.larger == 2


@pytest.fixture
def twin(tmp_path):
    """The file of a clean network."""
    pytest.importorskip("onnx")
    from agnes_zoo.writing import export_onnx

    return str(export_onnx(network_of().module, tmp_path / "clean.onnx", SHAPE))


def test_a_network_excited_more_than_its_clean_twin_is_reported(twin):
    evidence = Overactivation(reference=twin).diagnose(network_of(gain=5.0), BACKEND)
    images = noise_images(SHAPE, 200, BACKEND)
    with torch.no_grad():
        suspect, clean = slow(network_of(gain=5.0), images), slow(network_of(), images)
    assert evidence.exceeds
    assert evidence.score == pytest.approx(float(suspect.mean() / clean.mean()), rel=1e-4)
    assert "200:0" in evidence.note
    assert f"{float(suspect.max() / clean.max()):.4g}" in evidence.note
    assert evidence.null == pytest.approx(clean.tolist(), rel=1e-4)


def test_a_network_is_not_above_itself(twin):
    evidence = Overactivation(reference=twin, ratio=1.001).diagnose(network_of(), BACKEND)
    assert not evidence.exceeds
    assert evidence.score == pytest.approx(1.0, abs=1e-4)


def test_a_reference_for_other_images_is_refused(twin):
    other = Network.of(nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 5)), (3, 2, 2))
    with pytest.raises(UsageError, match="3x12x12"):
        Overactivation(reference=twin).diagnose(other, BACKEND)


@pytest.mark.parametrize("null", ["permuted", "redrawn"])
def test_without_a_reference_one_channel_of_large_weights_stands_out(null):
    planted = Overactivation(images=50, null=null).diagnose(network_of(gain=5.0), BACKEND)
    plain = Overactivation(images=50, null=null).diagnose(network_of(), BACKEND)
    assert planted.exceeds
    assert not plain.exceeds
    assert len(plain.null) == 50
    assert "our extension" in plain.note


def test_scattering_keeps_the_numbers_and_leaves_the_network_as_it_was():
    start = start_of(network_of())
    before = [parameter.clone() for parameter in start.parameters()]
    other = scattered(start, "permuted", BACKEND.generator("test", device="cpu"))
    weights = [p for p in other.parameters() if p.dim() > 1]
    kept = [p for p in start.parameters() if p.dim() > 1]
    assert all(torch.equal(a, b) for a, b in zip(start.parameters(), before, strict=True))
    assert torch.equal(weights[0].flatten().sort().values, kept[0].flatten().sort().values)
    assert not torch.equal(weights[0], kept[0])


def test_the_same_seed_gives_the_same_score():
    network, method = tiny_network("plain"), Overactivation(images=10, copies=3)
    first = method.diagnose(network, Backend.choose("cpu", seed=1))
    assert first == method.diagnose(network, Backend.choose("cpu", seed=1))
    assert first.score != method.diagnose(network, Backend.choose("cpu", seed=2)).score


def test_it_runs_only_when_named():
    assert Overactivation().suits(tiny_network("plain")) is None


def test_time_is_honoured():
    with pytest.raises(OutOfTime):
        Overactivation(copies=100_000).diagnose(tiny_network("plain"), BACKEND.within(0.2))


@pytest.mark.parametrize("settings", [{"images": 0}, {"copies": 1}])
def test_settings_without_sense_are_refused(settings):
    with pytest.raises(UsageError, match="overactivation"):
        Overactivation(**settings)
