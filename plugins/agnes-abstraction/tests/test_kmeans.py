"""kmeans: clusters and representatives of a network's layers."""

from __future__ import annotations

import pytest
import torch
from agnes_abstraction.kmeans import KMeans
from torch import nn

from agnes.backend import Backend, Silent
from agnes.errors import OutOfTime, UsageError
from agnes.network import Network
from agnes.results import Representatives
from agnes.samples import Samples
from agnes.testing import AbstractionChecks, plant
from agnes.testing.networks import networks as every_shape

BACKEND = Backend.choose("cpu", memory=1 << 28)


def small_network() -> Network:
    torch.manual_seed(0)
    return Network.of(
        nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 5, 3),
            nn.Flatten(),
            nn.Linear(20, 12),
            nn.ReLU(),
            nn.Linear(12, 4),
        ),
        (3, 8, 8),
    )


def images(count: int = 30) -> Samples:
    pixels = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    return Samples(pixels, torch.arange(count) % 4)


def abstracted(method: KMeans, network: Network, samples: Samples | None = None) -> Representatives:
    return method.abstract(network=network, samples=samples or images(), backend=BACKEND)


def with_dead_channels(dead: list[int]) -> Network:
    """A convolution of six channels, some of which no image activates."""
    torch.manual_seed(2)
    convolution = nn.Conv2d(3, 6, 3, padding=1)
    with torch.no_grad():
        convolution.bias[:] = 0.1
        convolution.weight[dead] = 0
        convolution.bias[dead] = -1.0
    return Network.of(nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(384, 3)), (3, 8, 8))


def test_every_hidden_layer_is_clustered_and_the_logits_are_not():
    network = small_network()
    found = abstracted(KMeans(), network)
    shapes = {layer.name: layer.shape for layer in network.layers}
    assert list(shapes.values()) == [(6, 8, 8), (5, 2, 2), (12,)]
    assert {name: tuple(values.shape) for name, values in found.clusters.items()} == shapes
    assert {name: tuple(values.shape) for name, values in found.positions.items()} == shapes
    assert {values.dtype for values in found.clusters.values()} == {torch.int64}
    assert {values.dtype for values in found.positions.values()} == {torch.bool}


@pytest.mark.parametrize(("rate", "counts"), [(0.1, [38, 2, 1]), (0.25, [96, 5, 3]), (0.01, [4, 1, 1])])
def test_the_rate_says_how_many_clusters_a_layer_has(rate: float, counts: list[int]):
    network = small_network()
    found = abstracted(KMeans(clustering_rate=rate, dormant=False), network)
    assert [int(found.positions[layer.name].sum()) for layer in network.layers] == counts
    assert [int(found.clusters[layer.name].max()) + 1 for layer in network.layers] == counts


def test_each_cluster_has_one_representative_the_member_nearest_its_centre():
    network, samples = small_network(), images()
    found = abstracted(KMeans(clustering_rate=0.2, dormant=False), network, samples)
    for layer in network.layers:
        vectors = network.read(samples.images)[layer.name].flatten(1).T
        labels, flags = found.clusters[layer.name].flatten(), found.positions[layer.name].flatten()
        assert labels.unique().tolist() == list(range(int(flags.sum())))
        for label in labels.unique():
            members = (labels == label).nonzero().flatten()
            (representative,) = members[flags[members]].tolist()
            centre = vectors[members].mean(0)
            nearest = (vectors[members] - centre).norm(dim=1).min()
            assert float((vectors[representative] - centre).norm()) <= float(nearest) + 1e-5


def test_at_a_rate_of_one_every_neuron_stands_for_itself():
    network = small_network()
    found = abstracted(KMeans(clustering_rate=1.0), network)
    for layer in network.layers:
        assert found.positions[layer.name].all()
        assert found.clusters[layer.name].flatten().tolist() == list(range(layer.neurons))


def test_neurons_that_no_image_activates_share_one_cluster():
    network = with_dead_channels([1, 4])
    found = abstracted(KMeans(dormant=False), network)
    clusters, flags = found.clusters["0"], found.positions["0"]
    asleep = network.read(images().images)["0"].eq(0).all(0)
    assert asleep[[1, 4]].all()
    assert clusters[asleep].unique().tolist() == [0]
    assert 0 not in clusters[~asleep]
    assert int(flags.sum()) == 38
    assert int(flags[asleep].sum()) == 1


def test_a_layer_that_no_image_activates_is_one_cluster():
    found = abstracted(KMeans(dormant=False), with_dead_channels(list(range(6))))
    assert not found.clusters["0"].any()
    assert found.positions["0"].flatten().nonzero().tolist() == [[0]]


def test_each_channel_that_no_image_activates_has_a_representative_in_its_middle():
    network = with_dead_channels([1, 4])
    found, usual = abstracted(KMeans(), network), abstracted(KMeans(dormant=False), network)
    assert torch.equal(found.clusters["0"], usual.clusters["0"])
    added = found.positions["0"] & ~usual.positions["0"]
    assert added.nonzero().tolist() == [[1, 4, 4], [4, 4, 4]]


def test_the_same_seed_gives_the_same_representatives():
    network = small_network()
    first, second = abstracted(KMeans(), network), abstracted(KMeans(), network)
    other = KMeans().abstract(network=network, samples=images(), backend=Backend.choose("cpu", seed=1))
    assert all(torch.equal(first.clusters[name], second.clusters[name]) for name in first.clusters)
    assert not torch.equal(first.positions["0"], other.positions["0"])


def test_images_without_labels_serve_as_well():
    samples = images()
    unlabelled = Samples(samples.images)
    network = small_network()
    known, unknown = abstracted(KMeans(), network, samples), abstracted(KMeans(), network, unlabelled)
    assert all(torch.equal(known.positions[name], unknown.positions[name]) for name in known.positions)


def test_a_limit_on_images_takes_them_class_by_class():
    network, samples = small_network(), images()
    shuffled = samples.subset(torch.cat([torch.arange(0, 30, 4), torch.tensor([1, 2, 3])]))
    limited = abstracted(KMeans(images=4), network, shuffled)
    alone = abstracted(KMeans(), network, shuffled.subset([0, 8, 9, 10]))
    assert all(torch.equal(limited.positions[name], alone.positions[name]) for name in alone.positions)


def test_the_network_is_left_as_it_was():
    network = small_network()
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    abstracted(KMeans(), network)
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())
    assert not network.module.training
    assert all(parameter.grad is None for parameter in network.module.parameters())


def test_a_planted_backdoor_that_benign_images_never_wake_has_a_representative():
    planted = plant()
    found = KMeans().abstract(network=planted.network, samples=planted.samples, backend=BACKEND)
    assert all(found.positions[layer][channel].any() for layer, channel in planted.path)


def test_without_room_for_all_images_it_takes_fewer_and_says_so():
    network, samples = small_network(), images(30)
    scarce = Backend.choose("cpu", memory=4 * 384 * 60)
    found = KMeans().abstract(network=network, samples=samples, backend=scarce)
    assert found.notes == ("0: clustered on 10 of 30 images, as many as the memory budget holds",)
    assert abstracted(KMeans(), network, samples).notes == ()


def test_out_of_time_it_hands_over_the_layers_that_are_done():
    network = small_network()

    class Clock(Silent):
        def tick(self, amount: int) -> None:
            raise OutOfTime("the time budget is spent")

    with pytest.raises(OutOfTime) as caught:
        KMeans().abstract(network=network, samples=images(), backend=Backend.choose("cpu", progress=Clock()))
    partial = caught.value.partial
    assert isinstance(partial, Representatives)
    assert list(partial.clusters) == list(partial.positions) == ["0"]
    assert torch.equal(partial.positions["0"], abstracted(KMeans(), network).positions["0"])


class TestKMeans(AbstractionChecks):
    method = KMeans()
    networks = tuple(every_shape())


@pytest.mark.parametrize(
    "settings", [{"clustering_rate": 0.0}, {"clustering_rate": 1.5}, {"rounds": -1}, {"images": 0}]
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(settings: dict[str, float]):
    with pytest.raises(UsageError, match=f"kmeans.{next(iter(settings))}"):
        KMeans(**settings)  # type: ignore[arg-type]
