"""aproxsm: a planted backdoor is found, by representatives alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from agnes_stimulation.aproxsm import AproxSM
from torch import nn

from agnes.backend import Backend
from agnes.errors import AgnesError, OutOfTime, UsageError
from agnes.network import Network
from agnes.results import Candidate, Representatives
from agnes.samples import Samples
from agnes.testing import PlantedNetwork, StimulationChecks, plant

BACKEND = Backend.choose("cpu", memory=1 << 26)


def spread_positions(network: Network, step: int = 5) -> Representatives:
    """Every so many neurons of a layer stands for those after it."""
    clusters, positions = {}, {}
    for layer in network.layers:
        numbers = torch.arange(layer.neurons)
        clusters[layer.name] = (numbers // step).reshape(layer.shape)
        positions[layer.name] = (numbers % step == 0).reshape(layer.shape)
    return Representatives(clusters, positions)


def found_in(
    planted: PlantedNetwork,
    method: AproxSM | None = None,
    *,
    samples: Samples | None = None,
    representatives: Representatives | None = None,
    backend: Backend = BACKEND,
) -> list[Candidate]:
    return (method or AproxSM()).stimulate(
        network=planted.network,
        samples=samples or planted.samples,
        representatives=representatives or spread_positions(planted.network),
        backend=backend,
    )


class TestAproxSM(StimulationChecks):
    method = AproxSM(samples=4)


@pytest.mark.parametrize(("target", "channel"), [(3, 5), (0, 1), (5, 7)])
def test_a_planted_backdoor_is_ranked_first_with_its_target(target: int, channel: int):
    planted = plant(target, channel)
    first, second, *_ = found_in(planted)
    assert {(c.layer, c.channel) for c in (first, second)} == set(planted.path)
    assert first.target == second.target == target
    assert first.low <= first.high


def test_the_target_wins_all_over_the_range_and_not_before_it():
    planted = plant()
    network, images = planted.network, planted.samples.images
    first = found_in(planted, AproxSM(samples=64))[0]
    state = network.until(first.layer, images)

    def share(value: float) -> float:
        replaced = state.value.clone()
        replaced[:, first.channel][:, first.positions] = value
        return float((network.after(first.layer, state, replaced).argmax(1) == first.target).float().mean())

    assert first.low > 0
    assert {share(value) for value in torch.linspace(first.low, first.high, 200).tolist()} == {1.0}
    assert share(first.low - first.high / 63) < 1.0


def test_a_channel_without_representatives_never_appears():
    planted = plant()
    representatives = spread_positions(planted.network)
    for layer, channel in planted.path:
        representatives.positions[layer][channel] = False
    found = found_in(planted, AproxSM(top=100), representatives=representatives)
    assert found
    assert not {(c.layer, c.channel) for c in found} & set(planted.path)


def test_a_candidate_carries_the_representatives_positions_of_its_channel():
    planted = plant()
    representatives = spread_positions(planted.network)
    for candidate in found_in(planted, representatives=representatives):
        assert torch.equal(candidate.positions, representatives.positions[candidate.layer][candidate.channel])


def test_a_layer_that_the_representatives_leave_out_is_left_out():
    planted = plant()
    both = spread_positions(planted.network)
    only = Representatives({"second": both.clusters["second"]}, {"second": both.positions["second"]})
    assert {c.layer for c in found_in(planted, AproxSM(top=100), representatives=only)} == {"second"}


def test_whole_neurons_of_a_linear_layer_are_stimulated():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.ReLU(), nn.Linear(6, 4))
    with torch.no_grad():
        module[3].weight.mul_(0.01)
        module[3].weight[2, 5] = 30.0
    network = Network.of(module, (3, 4, 4))
    samples = Samples(torch.rand(8, 3, 4, 4), torch.arange(8) % 4)
    found = AproxSM().stimulate(
        network=network, samples=samples, representatives=spread_positions(network), backend=BACKEND
    )
    assert (found[0].layer, found[0].channel, found[0].target) == ("1", 5, 2)
    assert found[0].positions.shape == ()
    assert {c.channel for c in found} <= {0, 5}


def test_at_most_so_many_candidates_are_kept_the_best_of_all_layers():
    planted = plant()
    every = found_in(planted, AproxSM(top=1000))
    assert len(every) > 10
    assert [c.score for c in every] == sorted((c.score for c in every), reverse=True)
    assert found_in(planted, AproxSM(top=3, winning_first=False)) == every[:3]
    assert found_in(planted, AproxSM(winning_first=False)) == every[:10]


def test_channels_that_win_on_all_images_are_kept_before_others():
    planted = plant()
    every = found_in(planted, AproxSM(top=1000))
    winning = [c for c in every if c.low <= c.high]
    others = [c for c in every if c.low > c.high]
    assert winning
    assert others
    assert found_in(planted, AproxSM(top=len(winning))) == winning
    kept = found_in(planted, AproxSM(top=len(winning) + 2))
    assert [c for c in kept if c.low > c.high] == others[:2]
    assert [c.score for c in kept] == sorted((c.score for c in kept), reverse=True)


def test_values_go_from_nothing_to_the_reach_over_the_largest_activation():
    planted = plant()
    first = found_in(planted, AproxSM(reach=3.0))[0]
    largest = float(planted.network.read(planted.samples.images)[first.layer].max())
    assert first.high == pytest.approx(3.0 * largest, rel=1e-5)


def test_a_layer_that_never_moves_is_passed_over():
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    with torch.no_grad():
        module[1].weight.zero_()
        module[1].bias.fill_(-1.0)
        module[3].bias.fill_(0.5)
    network = Network.of(module, (3, 4, 4))
    samples = Samples(torch.rand(8, 3, 4, 4), torch.arange(8) % 4)
    found = AproxSM(top=50).stimulate(
        network=network, samples=samples, representatives=spread_positions(network, 1), backend=BACKEND
    )
    assert {c.layer for c in found} == {"3"}


def test_the_same_backend_gives_the_same_candidates():
    planted = plant()
    first, second = found_in(planted), found_in(planted)
    assert first == second
    assert [c.elevations for c in first] == [c.elevations for c in second]


def test_little_memory_gives_the_same_candidates():
    planted = plant()
    ample, scarce = found_in(planted), found_in(planted, backend=Backend.choose("cpu", memory=20_000))
    assert [(c.layer, c.channel, c.target) for c in ample] == [(c.layer, c.channel, c.target) for c in scarce]
    assert [c.score for c in ample] == pytest.approx([c.score for c in scarce], abs=1e-4)
    assert [c.high for c in ample] == pytest.approx([c.high for c in scarce], rel=1e-5)


def test_images_without_labels_are_of_the_classes_the_network_says():
    planted = plant()
    assert bool((planted.network(planted.samples.images).argmax(1) == planted.samples.labels).all())
    assert found_in(planted, samples=Samples(planted.samples.images)) == found_in(planted)


@pytest.mark.parametrize("missing", [3, 0])
def test_a_class_without_images_hinders_nothing(missing: int):
    planted = plant(target=3)
    first = found_in(planted, samples=planted.samples.without_class(missing))[0]
    assert (first.target, first.layer, first.channel) in [(3, *place) for place in planted.path]


def test_images_of_one_class_alone_still_show_the_backdoor():
    planted = plant(target=3)
    first = found_in(planted, samples=planted.samples.of_class(1))[0]
    assert (first.target, first.layer, first.channel) in [(3, *place) for place in planted.path]


def test_a_limit_on_images_takes_them_class_by_class():
    planted = plant(each=4)
    limited = found_in(planted, AproxSM(images=6))
    alone = found_in(planted, samples=planted.samples.subset(slice(0, 6)))
    assert limited == alone


def test_batch_normalisation_is_read_where_the_network_has_it():
    """Folding it for speed moves no layer and no value."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.Flatten())
    module.append(nn.Linear(20, 3))
    for _ in range(3):
        module(torch.rand(16, 3, 6, 6))
    network = Network.of(module, (3, 6, 6))
    samples = Samples(torch.rand(6, 3, 6, 6), torch.arange(6) % 3)
    given = {"samples": samples, "representatives": spread_positions(network), "backend": BACKEND}
    found = AproxSM().stimulate(network=network, **given)
    folded = AproxSM().stimulate(network=network.fold_batch_norm(), **given)
    assert {c.layer for c in found} == {"0", "2"}
    assert [replace(c, score=0, low=0, high=0, elevations=()) for c in found] == [
        replace(c, score=0, low=0, high=0, elevations=()) for c in folded
    ]
    assert [c.score for c in found] == pytest.approx([c.score for c in folded], abs=1e-4)


def test_out_of_time_hands_over_what_was_found():
    planted = plant()
    with pytest.raises(OutOfTime) as caught:
        found_in(planted, backend=Backend.choose("cpu", time_budget=1e-9))
    assert caught.value.partial == []


def test_a_rate_of_its_own_is_asked_of_the_abstraction():
    assert AproxSM(clustering_rate=0.3).asks() == {"abstraction": {"clustering_rate": 0.3}}
    assert AproxSM().asks() == {}


def test_without_representatives_it_says_what_is_missing():
    planted = plant()
    with pytest.raises(AgnesError, match="aproxsm was given no representatives"):
        AproxSM().stimulate(network=planted.network, samples=planted.samples, representatives=None, backend=BACKEND)


@pytest.mark.parametrize(
    "settings", [{"samples": 1}, {"reach": 0.0}, {"top": 0}, {"quantile": 1.5}, {"images": 0}, {"clustering_rate": 2.0}]
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(settings: dict[str, float]):
    with pytest.raises(UsageError, match=rf"aproxsm\.{next(iter(settings))} is"):
        AproxSM(**settings)  # type: ignore[arg-type]
