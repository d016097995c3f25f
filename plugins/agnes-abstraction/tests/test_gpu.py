"""Abstraction on a CUDA device gives the CPU's results."""

from __future__ import annotations

import pytest
import torch
from agnes_abstraction.chain import Chain
from agnes_abstraction.clustering import cluster, to_own_centre
from agnes_abstraction.deepabstract import DeepAbstract
from agnes_abstraction.kmeans import KMeans
from agnes_abstraction.merging import abstract_network, alone

from agnes.backend import Backend
from agnes.testing import tiny_network, tiny_samples

pytestmark = pytest.mark.gpu
CPU = Backend.choose("cpu", memory=1 << 28)


@pytest.fixture
def gpu() -> Backend:
    return Backend.choose("cuda", precision="tf32")


def test_clusters_are_as_good_as_the_cpus_whatever_the_precision(gpu: Backend):
    generator = torch.Generator().manual_seed(4)
    points = torch.relu(torch.randn(2000, 12, generator=generator) @ torch.randn(12, 300, generator=generator))
    spread = []
    for backend in (CPU, gpu):
        with backend.computing():
            draws = backend.generator("test", device="cpu")
            here = points.to(backend.device)
            labels = cluster(here, 200, rounds=8, projection=64, generator=draws, backend=backend)
        spread.append(float(to_own_centre(here, labels).sum()))
    assert spread[1] == pytest.approx(spread[0], rel=0.02)


def test_kmeans_hands_over_its_representatives_on_the_cpu(gpu: Backend):
    network = tiny_network("plain")
    samples = tiny_samples(network, each=4)
    with gpu.computing():
        found = KMeans().abstract(network=network.to(gpu.device), samples=samples.to(gpu.device), backend=gpu)
    expected = KMeans().abstract(network=network, samples=samples, backend=CPU)
    for layer in network.layers:
        assert found.positions[layer.name].device.type == "cpu"
        assert found.positions[layer.name].sum() == expected.positions[layer.name].sum()


@pytest.mark.parametrize("name", ["batch_norm", "average_pooled", "fully_connected"])
def test_the_fully_connected_network_computes_the_same(name: str, gpu: Backend):
    network = tiny_network(name)
    images = tiny_samples(network, each=4).images
    there = network.to(gpu.device)
    every = {layer.name: alone(layer, gpu.device) for layer in there.layers}
    made = abstract_network(Chain(there), every, gpu)
    assert made.device == gpu.device
    assert torch.allclose(made(images.to(gpu.device)).cpu(), network(images), atol=1e-3)


def test_deepabstract_keeps_accuracy(gpu: Backend):
    network = tiny_network("fully_connected")
    samples = tiny_samples(network, each=20, labelled=False)
    with gpu.computing():
        found = DeepAbstract().abstract(network=network.to(gpu.device), samples=samples.to(gpu.device), backend=gpu)
    assert found.abstract_network is not None
    agree = found.abstract_network.to("cpu")(samples.images).argmax(1) == network(samples.images).argmax(1)
    assert float(agree.float().mean()) >= 0.94
