"""k-means: its inertia, and the point that stands for each cluster."""

from __future__ import annotations

import pytest
import torch
from agnes_abstraction import clustering
from agnes_abstraction.clustering import (
    Clusters,
    assign,
    cluster,
    lloyd,
    means,
    nearest_to_centres,
    project,
    to_own_centre,
)
from agnes_abstraction.seeding import Seeds

from agnes.backend import Backend

BACKEND = Backend.choose("cpu", memory=1 << 28)


def clustered(points: torch.Tensor, count: int, *, backend: Backend = BACKEND, rounds: int = 8) -> torch.Tensor:
    generator = backend.generator("test", device="cpu")
    return cluster(points, count, rounds=rounds, projection=64, generator=generator, backend=backend)


def blobs(count: int, size: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(count, width, generator=generator)
    return centres.repeat_interleave(size, 0) + 0.4 * torch.randn(count * size, width, generator=generator)


def responses(neurons: int, images: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(neurons, 12, generator=generator) @ torch.randn(12, images, generator=generator)
    return torch.relu(features + 0.5 * torch.randn(neurons, images, generator=generator))


def inertia(points: torch.Tensor, labels: torch.Tensor) -> float:
    return float(to_own_centre(points, labels).sum())


@pytest.mark.parametrize(
    "points", [blobs(150, 10, 40), blobs(300, 5, 6), responses(1500, 43), responses(1200, 200), responses(400, 900)]
)
def test_its_inertia_is_within_a_fiftieth_of_scikit_learns(points: torch.Tensor):
    sklearn = pytest.importorskip("sklearn.cluster")
    count = len(points) // 10
    theirs = sklearn.KMeans(count, n_init=1, random_state=0).fit(points.numpy()).inertia_
    labels = clustered(points, count)
    assert len(labels.unique()) == count
    assert inertia(points, labels) <= 1.02 * theirs


def test_points_split_into_groups_first_are_clustered_nearly_as_well(monkeypatch: pytest.MonkeyPatch):
    points = responses(1200, 40)
    whole = clustered(points, 120)
    monkeypatch.setattr(clustering, "_AT_ONCE", 40_000)
    split = clustered(points, 120)
    assert not torch.equal(whole, split)
    assert 110 <= len(split.unique()) <= 130
    assert inertia(points, split) <= 1.2 * inertia(points, whole)


def test_one_search_serves_every_number_of_clusters():
    points = responses(300, 20)
    search = Clusters(points, BACKEND.generator("test", device="cpu"), BACKEND)
    found = [search.labels(count, 3) for count in (150, 20, 299, 300, 1)]
    assert [len(labels.unique()) for labels in found] == [150, 20, 299, 300, 1]
    spread = [inertia(points, labels) for labels in (found[4], found[1], found[0], found[2], found[3])]
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] == pytest.approx(0, abs=1e-3)


def test_main_directions_keep_more_of_the_distances_than_any_chosen_blindly():
    points = responses(300, 200)
    points = points - points.mean(0)
    kept = project(points, 16, BACKEND.generator("test", device="cpu"))
    best = torch.linalg.svdvals(points)[:16].square().sum()
    assert kept.shape == (300, 16)
    assert float(kept.square().sum()) == pytest.approx(float(best), rel=0.03)


def test_each_point_is_assigned_to_the_nearest_centre_also_in_small_parts():
    points, centres = responses(500, 12), responses(37, 12)
    expected = torch.cdist(points.double(), centres.double()).argmin(1)
    assert torch.equal(assign(points, centres, BACKEND), expected)
    assert torch.equal(assign(points, centres, Backend.choose("cpu", memory=10_000)), expected)


def test_separated_groups_are_found_whole():
    groups = torch.arange(40).repeat_interleave(7)
    points = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))[groups] * 100
    points = points + torch.rand(280, 5, generator=torch.Generator().manual_seed(1))
    labels = clustered(points, 40)
    assert [len(labels[groups == group].unique()) for group in range(40)] == [1] * 40
    assert len(labels.unique()) == 40


def test_more_clusters_than_points_gives_each_point_its_own():
    assert clustered(blobs(3, 4, 2), 20).tolist() == list(range(12))


def test_one_cluster_holds_all():
    assert clustered(blobs(3, 4, 2), 1).tolist() == [0] * 12


def test_points_that_coincide_need_fewer_clusters():
    points = torch.eye(3).repeat(10, 1)
    labels = clustered(points, 8)
    assert labels.reshape(10, 3).eq(labels[:3]).all()
    assert sorted(labels[:3].tolist()) == [0, 1, 2]


def test_the_same_seed_gives_the_same_clusters_and_another_seed_others():
    points = responses(400, 30)
    assert torch.equal(clustered(points, 40), clustered(points, 40))
    assert not torch.equal(clustered(points, 40), clustered(points, 40, backend=Backend.choose("cpu", seed=1)))


def test_little_memory_gives_clusters_as_good():
    points = responses(500, 30)
    scarce = clustered(points, 50, backend=Backend.choose("cpu", memory=20_000))
    ample = clustered(points, 50)
    assert float(to_own_centre(points, scarce).sum()) == pytest.approx(
        float(to_own_centre(points, ample).sum()), rel=0.03
    )


def test_rounds_only_improve():
    points = responses(400, 30)
    seeds = Seeds(points, BACKEND.generator("test", device="cpu"), BACKEND).first(40)
    start = assign(points, points[seeds], BACKEND)
    found = [inertia(points, lloyd(points, start, rounds, BACKEND)) for rounds in (0, 1, 2, 30)]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1]


def test_the_first_seeds_are_the_same_however_many_follow():
    points = responses(400, 10)
    some, more = (Seeds(points, BACKEND.generator("test", device="cpu"), BACKEND) for _ in range(2))
    assert torch.equal(some.first(8), more.first(200)[:8])
    assert len(more.first(200).unique()) == 200


def test_seeds_shorten_distances_more_than_points_drawn_blindly():
    points = blobs(60, 10, 8)
    seeds = Seeds(points, BACKEND.generator("test", device="cpu"), BACKEND).first(60)
    blind = torch.randperm(600, generator=torch.Generator().manual_seed(0))[:60]
    reach = [float(torch.cdist(points, points[at]).amin(1).square().sum()) for at in (seeds, blind)]
    assert reach[0] < 0.7 * reach[1]


def test_means_are_those_of_the_members():
    points = responses(90, 5)
    labels = torch.arange(90) % 7
    centres, sizes = means(points, labels, 9)  # two clusters are empty
    assert sizes.tolist() == [13] * 6 + [12] + [0, 0]
    for label in range(7):
        assert torch.allclose(centres[label], points[labels == label].mean(0), atol=1e-5)


def test_the_point_nearest_each_mean_is_found():
    points = responses(200, 9)
    labels = clustered(points, 23)
    for label, found in enumerate(nearest_to_centres(points, labels).tolist()):
        members = (labels == label).nonzero().flatten()
        distances = (points[members] - points[members].mean(0)).norm(dim=1)
        assert labels[found] == label
        assert (points[found] - points[members].mean(0)).norm() <= distances.min() + 1e-5


def test_where_points_tie_the_first_one_stands_for_them():
    points = torch.tensor([[5.0], [0.0], [0.0], [5.0]])
    assert nearest_to_centres(points, torch.tensor([1, 0, 0, 1])).tolist() == [1, 0]
