"""From stimulation functions to candidates, against the formulas written as loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from agnes_stimulation import ranking
from agnes_stimulation.nsf import Curves

from agnes.layers import Layer
from agnes.results import Candidate

LAYER = Layer("conv", 0, "conv", "conv", (9, 2, 2), 0, "conv", "conv.weight", None)


def random_curves(seed: int, *, classes: int = 5, images: int = 8) -> tuple[Curves, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(9, 6, images, classes, generator=generator)
    plain = torch.randn(images, classes, generator=generator)
    labels = torch.randint(classes, (images,), generator=generator)
    return Curves(LAYER, torch.arange(9), torch.linspace(0, 5, 6), logits), plain, labels


def curves_of(winners: list[list[int]], classes: int = 3) -> Curves:
    """One channel: at each value, the class each image is given."""
    logits = torch.nn.functional.one_hot(torch.tensor(winners), classes).float()
    return Curves(LAYER, torch.tensor([4]), torch.arange(len(winners)) * 0.5, logits[None])


def slow_elevation(curves: Curves, plain: torch.Tensor, labels: torch.Tensor, k: int, c: int, quantile: float) -> float:
    lifts = []
    for image, label in enumerate(labels.tolist()):
        if label != c:
            peak = max(float(curves.logits[k, v, image, c]) for v in range(len(curves.values)))
            lifts.append(peak - float(plain[image, c]))
    return float(np.quantile(lifts, quantile))


@pytest.mark.parametrize("quantile", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_elevation_score_and_target_are_those_of_the_loops(seed: int, quantile: float):
    curves, plain, labels = random_curves(seed)
    found = {c.channel: c for c in ranking.candidates(curves, plain, labels, quantile=quantile)}
    assert set(found) == set(range(9))
    for channel, candidate in found.items():
        slow = [slow_elevation(curves, plain, labels, channel, c, quantile) for c in range(5)]
        order = np.argsort(slow)[::-1]
        assert candidate.elevations == pytest.approx(slow, abs=1e-5)
        assert candidate.target == order[0]
        assert candidate.score == pytest.approx(slow[order[0]] - slow[order[1]], abs=1e-5)
        assert candidate.elevation == pytest.approx(slow[order[0]], abs=1e-5)


def test_images_already_of_a_class_do_not_count_for_it():
    curves, plain, _ = random_curves(0, images=4)
    labels = torch.tensor([2, 2, 1, 0])
    curves.logits[:, :, :2, 2] = -100.0  # stimulation ruins class 2 on its own images
    lifted = ranking.elevations(curves, plain, labels)
    expected = curves.logits[:, :, 2:, 2].amax(1) - plain[2:, 2]
    assert torch.allclose(lifted[:, 2], expected.amin(1))


def test_a_class_that_all_images_are_of_is_never_the_target():
    curves, plain, _ = random_curves(0)
    curves.logits[..., 3] += 100.0
    lifted = ranking.elevations(curves, plain, torch.full((8,), 3))
    assert (lifted[:, 3] == -float("inf")).all()
    found = ranking.candidates(curves, plain, torch.full((8,), 3))
    assert found
    assert all(candidate.target != 3 and candidate.elevations[3] == 0 for candidate in found)


def test_with_one_class_measured_the_score_is_its_elevation():
    curves, plain, _ = random_curves(0, classes=2)
    labels = torch.zeros(8, dtype=torch.int64)
    for candidate in ranking.candidates(curves, plain, labels):
        assert candidate.target == 1
        assert candidate.score == pytest.approx(candidate.elevations[1])


def test_a_channel_that_lifts_two_classes_alike_is_no_candidate():
    logits = torch.zeros(2, 3, 4, 5)
    logits[0, :, :, 1:3] = 6.0
    logits[1, :, :, 1] = 2.0
    curves = Curves(LAYER, torch.tensor([3, 7]), torch.arange(3.0), logits)
    found = ranking.candidates(curves, torch.zeros(4, 5), torch.zeros(4, dtype=torch.int64))
    assert [(c.channel, c.target, c.score) for c in found] == [(7, 1, 2.0)]


def test_a_channel_without_effect_is_no_candidate():
    plain = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    curves = Curves(LAYER, torch.tensor([0]), torch.arange(3.0), plain.expand(1, 3, 4, 5))
    assert ranking.candidates(curves, plain, torch.arange(4)) == []


@pytest.mark.parametrize(
    ("winners", "expected"),
    [
        ([[0, 1], [1, 1], [1, 1], [1, 2]], (0.5, 1.0)),
        ([[1, 1], [1, 1], [1, 1]], (0.0, 1.0)),
        ([[0, 0], [0, 1], [1, 1]], (1.0, 1.0)),
        ([[1, 1], [0, 1], [1, 1], [1, 1], [2, 1]], (1.0, 1.5)),
        ([[1, 1], [0, 1], [1, 1]], (1.0, 1.0)),
        ([[0, 1], [1, 0], [2, 2]], (1.0, 0.0)),
    ],
)
def test_the_range_is_the_longest_run_of_values_on_which_the_target_wins_on_all_images(
    winners: list[list[int]], expected: tuple[float, float]
):
    low, high = ranking.winning_ranges(curves_of(winners), torch.tensor([1]))
    assert (float(low), float(high)) == expected


def test_the_best_are_those_of_highest_score_and_ties_keep_their_order():
    found = [Candidate("a", k, 0, score, 0.0, 1.0) for k, score in enumerate([1.0, 3.0, 2.0, 3.0])]
    assert [candidate.channel for candidate in ranking.best(found, 3)] == [1, 3, 2]


def test_those_that_win_on_all_images_can_be_kept_before_the_others():
    ranges = [(1.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)]
    found = [Candidate("a", k, 0, 9.0 - k, low, high) for k, (low, high) in enumerate(ranges)]
    assert [c.channel for c in ranking.best(found, 3, winning_first=True)] == [0, 1, 3]
    assert [c.channel for c in ranking.best(found, 2, winning_first=True)] == [1, 3]
    assert [c.channel for c in ranking.best(found, 3)] == [0, 1, 2]


def test_a_candidate_carries_the_positions_of_its_channel():
    curves, plain, labels = random_curves(0)
    positions = torch.rand(9, 2, 2, generator=torch.Generator().manual_seed(1)) < 0.5
    for candidate in ranking.candidates(curves, plain, labels, positions=positions):
        assert torch.equal(candidate.positions, positions[candidate.channel])
    assert all(candidate.positions is None for candidate in ranking.candidates(curves, plain, labels))
