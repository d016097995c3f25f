"""hdbscan and dbscan: groups where neurons lie densely, and what becomes of noise."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from agnes_abstraction.dbscan import DBSCAN, elbow, k_distances, widest
from agnes_abstraction.density import Density
from agnes_abstraction.hdbscan import HDBSCAN
from torch import nn

from agnes.backend import Backend
from agnes.errors import AgnesError, UsageError
from agnes.network import Network
from agnes.results import Representatives
from agnes.samples import Samples
from agnes.testing import AbstractionChecks

BACKEND = Backend.choose("cpu", memory=1 << 28)
METHODS = [HDBSCAN(), DBSCAN(eps=0.5)]
by_name = pytest.mark.parametrize("method", METHODS, ids=["hdbscan", "dbscan"])


def groups(sizes: tuple[int, ...], noise: int = 0, images: int = 8) -> Network:
    """A network of one hidden layer: groups of neurons with nearly the same weights, and some like no other."""
    generator = torch.Generator().manual_seed(2)
    which = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes, dtype=torch.int64))
    centres = torch.randn(len(sizes), images, generator=generator)[which]
    alike = centres + 0.01 * torch.randn(centres.shape, generator=generator)
    alone = 3 * torch.randn(noise, images, generator=generator)
    module = nn.Sequential(nn.Flatten(), nn.Linear(images, sum(sizes) + noise), nn.Linear(sum(sizes) + noise, 2))
    with torch.no_grad():
        module[1].weight.copy_(torch.cat([alike, alone]))
        module[1].bias.zero_()
    return Network.of(module.eval(), (1, 1, images))


def abstracted(method: Density, network: Network, backend: Backend = BACKEND) -> Representatives:
    images = torch.eye(network.input_shape[2])[:, None, None]
    return method.abstract(network=network, samples=Samples(images), backend=backend)


@by_name
def test_neurons_that_answer_alike_are_one_group_however_many_groups_there_are(method: Density):
    sizes = (12, 7, 20, 9, 15, 11)
    found = abstracted(method, groups(sizes))
    assert found.clusters["1"].unique().tolist() == list(range(6))
    for group in found.clusters["1"].split(sizes):
        assert len(group.unique()) == 1
    assert int(found.positions["1"].sum()) == 6


@by_name
def test_the_medoid_stands_for_its_group(method: Density):
    sizes = (12, 7, 20)
    network = groups(sizes)
    found = abstracted(method, network)
    vectors = network.read(torch.eye(8)[:, None, None])["1"].T.double()
    for members in torch.arange(39).split(sizes):
        total = torch.cdist(vectors[members], vectors[members]).square().sum(1)
        (standing,) = found.positions["1"][members].nonzero().flatten().tolist()
        assert standing == int(total.argmin())


@by_name
def test_noise_stays_alone_up_to_a_cap_and_is_clustered_beyond_it(method: Density):
    network = groups((30, 30), noise=12)
    roomy, scarce = (
        abstracted(replace(method, noise_rate=rate), network).clusters["1"][60:].unique(return_counts=True)
        for rate in (0.5, 4 / 72)
    )
    assert roomy[1].tolist() == [1] * 12
    assert len(scarce[0]) == 4
    assert "12 neurons were noise and went into 4 clusters" in str(
        abstracted(replace(method, noise_rate=4 / 72), network).notes
    )


@by_name
def test_where_all_is_noise_every_neuron_may_stand_for_itself(method: Density):
    found = abstracted(replace(method, noise_rate=1.0), groups((), noise=3))
    assert found.clusters["1"].tolist() == [0, 1, 2]
    assert found.positions["1"].all()


@by_name
def test_of_a_large_layer_some_are_grouped_and_the_others_join_them(method: Density):
    sizes = (40, 40, 40)
    found = abstracted(replace(method, largest=60), groups(sizes))
    assert [len(group.unique()) for group in found.clusters["1"].split(sizes)] == [1, 1, 1]
    assert len(found.clusters["1"].unique()) == 3
    assert found.notes == ("1: grouped by 60 of 120 neurons; the others joined them",)


@by_name
def test_many_images_are_reduced_to_few_directions(method: Density):
    sizes = (12, 7, 20)
    found = abstracted(replace(method, dimensions=2), groups(sizes, images=60))
    assert [len(group.unique()) for group in found.clusters["1"].split(sizes)] == [1, 1, 1]


@by_name
def test_silent_neurons_are_one_group_and_need_no_search(method: Density):
    network = groups((10, 10))
    silent = network.copy()
    with torch.no_grad():
        silent.module.get_submodule("1").weight[3:8] = 0
        silent.module.get_submodule("1").bias.zero_()
    found = abstracted(replace(method, dormant=False), silent)
    assert found.clusters["1"][3:8].tolist() == [0] * 5
    assert 0 not in found.clusters["1"][[0, 1, 2, *range(8, 20)]]


@pytest.mark.parametrize(
    ("method", "package", "named"), [(HDBSCAN(), "hdbscan", "hdbscan"), (DBSCAN(), "sklearn.cluster", "scikit-learn")]
)
def test_a_package_that_is_not_there_is_named_with_the_way_to_get_it(
    method: Density, package: str, named: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)
    extra = type(method).__name__.lower()
    with pytest.raises(
        AgnesError, match=rf"{extra} needs the package {named}: pip install 'agnes-abstraction\[{extra}"
    ):
        abstracted(method, groups((12, 7)))


def test_without_a_given_distance_the_elbow_tells_groups_from_noise():
    found = abstracted(DBSCAN(noise_rate=0.5), groups((60, 60, 60), noise=12))
    counts = found.clusters["1"].unique(return_counts=True)[1].sort(descending=True).values.tolist()
    assert counts[:3] == [60, 60, 60]
    assert counts[3:] == [1] * 12


def test_the_elbow_is_where_the_curve_bends():
    curve = torch.cat([torch.linspace(1.0, 1.2, 80), torch.linspace(1.2, 9.0, 20)])
    assert elbow(curve) == pytest.approx(1.2, abs=0.01)


def test_k_distances_are_those_of_the_kth_nearest():
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    expected = (points[:, None] - points).norm(dim=2).sort(1).values[:, 3].sort().values
    assert torch.allclose(k_distances(points, 4, Backend.choose("cpu", memory=10_000)), expected, atol=1e-5)


def test_neighbours_are_kept_within_the_memory_budget():
    points = torch.rand(400, 3, generator=torch.Generator().manual_seed(0))
    room = 4 * 8 * 400 * 20  # for twenty neighbours of each point in a quarter of it
    eps = widest(points, Backend.choose("cpu", memory=room))
    assert float((torch.cdist(points, points) <= eps).sum(1).float().mean()) == pytest.approx(20, rel=0.1)
    assert widest(points, BACKEND) == float("inf")
    found = abstracted(DBSCAN(eps=1e6), groups((200, 200)), Backend.choose("cpu", memory=room))
    assert "so that neighbours fit the budget" in found.notes[-1]


class TestHDBSCAN(AbstractionChecks):
    method = HDBSCAN()


class TestDBSCAN(AbstractionChecks):
    method = DBSCAN()


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (HDBSCAN, {"min_cluster_size": 1}),
        (HDBSCAN, {"noise_rate": 0.0}),
        (DBSCAN, {"min_samples": 1}),
        (DBSCAN, {"eps": 0.0}),
        (DBSCAN, {"largest": 1}),
        (DBSCAN, {"dimensions": 0}),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(method: type, settings: dict[str, float]):
    with pytest.raises(UsageError, match=f"{method.__name__.lower()}.{next(iter(settings))}"):
        method(**settings)
