"""From stimulation functions to candidates, against the formulas written as loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from agnes_stimulation import ranking
from agnes_stimulation.nsf import Curves
from agnes_stimulation.tally import Benign, Summary, Tally, elevations, summary_of

from agnes.layers import Layer
from agnes.results import Candidate

LAYER = Layer("conv", 0, "conv", "conv", (9, 2, 2), 0, "conv", "conv.weight", None)


def random_curves(seed: int, *, classes: int = 5, images: int = 8) -> tuple[Curves, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(9, 6, images, classes, generator=generator)
    plain = torch.randn(images, classes, generator=generator)
    labels = torch.randint(classes, (images,), generator=generator)
    return Curves(LAYER, torch.arange(9), torch.linspace(0, 5, 6).expand(9, 6), logits), plain, labels


def summed(curves: Curves, plain: torch.Tensor, labels: torch.Tensor, quantile: float = 0.0) -> Summary:
    return summary_of(curves, Benign(torch.zeros(len(labels), 1), labels, plain), quantile)


def ranked(curves: Curves, plain: torch.Tensor, labels: torch.Tensor, quantile: float = 0.0, **told):
    return ranking.candidates(summed(curves, plain, labels, quantile), 100, **told)


def curves_of(winners: list[list[int]], classes: int = 3) -> Curves:
    """One channel: at each value, the class each image is given."""
    logits = torch.nn.functional.one_hot(torch.tensor(winners), classes).float()
    return Curves(LAYER, torch.tensor([4]), torch.arange(len(winners))[None] * 0.5, logits[None])


def slow_elevation(curves: Curves, plain: torch.Tensor, labels: torch.Tensor, k: int, c: int, quantile: float) -> float:
    lifts = []
    for image, label in enumerate(labels.tolist()):
        if label != c:
            peak = float(curves.logits[k, :, image, c].max())
            lifts.append(peak - float(plain[image, c]))
    return float(np.quantile(lifts, quantile))


@pytest.mark.parametrize("quantile", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_elevation_score_and_target_are_those_of_the_loops(seed: int, quantile: float):
    curves, plain, labels = random_curves(seed)
    found = {c.channel: c for c in ranked(curves, plain, labels, quantile)}
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
    lifted = summed(curves, plain, labels).lowest
    expected = curves.logits[:, :, 2:, 2].amax(1) - plain[2:, 2]
    assert torch.allclose(lifted[:, 2], expected.amin(1))


def test_a_class_that_all_images_are_of_is_never_the_target():
    curves, plain, _ = random_curves(0)
    curves.logits[..., 3] += 100.0
    assert (summed(curves, plain, torch.full((8,), 3)).lowest[:, 3] == float("inf")).all()
    found = ranked(curves, plain, torch.full((8,), 3))
    assert found
    assert all(candidate.target != 3 and candidate.elevations[3] == 0 for candidate in found)


def test_with_one_class_measured_the_score_is_its_elevation():
    curves, plain, _ = random_curves(0, classes=2)
    labels = torch.zeros(8, dtype=torch.int64)
    for candidate in ranked(curves, plain, labels):
        assert candidate.target == 1
        assert candidate.score == pytest.approx(candidate.elevations[1])


def test_a_channel_that_lifts_two_classes_alike_is_no_candidate():
    logits = torch.zeros(2, 3, 4, 5)
    logits[0, :, :, 1:3] = 6.0
    logits[1, :, :, 1] = 2.0
    curves = Curves(LAYER, torch.tensor([3, 7]), torch.arange(3.0).expand(2, 3), logits)
    found = ranked(curves, torch.zeros(4, 5), torch.zeros(4, dtype=torch.int64))
    assert [(c.channel, c.target, c.score) for c in found] == [(7, 1, 2.0)]


def test_a_channel_without_effect_is_no_candidate():
    plain = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    curves = Curves(LAYER, torch.tensor([0]), torch.arange(3.0)[None], plain.expand(1, 3, 4, 5))
    assert ranked(curves, plain, torch.arange(4)) == []


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
    curves = curves_of(winners)
    images = len(winners[0])
    summary = summed(curves, torch.zeros(images, 3), torch.zeros(images, dtype=torch.int64))
    low, high, ever = ranking.winning_ranges(summary, torch.tensor([1]))
    assert (float(low), float(high)) == expected
    assert bool(ever) == (expected[0] <= expected[1])


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
    for candidate in ranked(curves, plain, labels, positions=positions):
        assert torch.equal(candidate.positions, positions[candidate.channel])
    assert all(candidate.positions is None for candidate in ranked(curves, plain, labels))


def test_the_margin_is_the_least_lead_over_all_other_classes():
    curves, plain, labels = random_curves(4)
    summary = summed(curves, plain, labels)
    targets, scores = ranking.targets_and_scores(summary, "margin")
    lifts = curves.logits.amax(1) - plain
    for k in range(9):
        leads = {
            c: min(
                float(lifts[k, x, c] - max(lifts[k, x, d] for d in range(5) if d != c))
                for x in range(8)
                if labels[x] != c
            )
            for c in range(5)
        }
        assert float(scores[k]) == pytest.approx(max(leads.values()), abs=1e-5)
        assert int(targets[k]) == max(leads, key=leads.__getitem__)


def test_a_tally_of_blocks_is_the_tally_of_all_and_two_summaries_make_one():
    curves, plain, labels = random_curves(5)
    benign = Benign(torch.zeros(8, 1), labels, plain)
    whole = summed(curves, plain, labels)
    tally = Tally(LAYER, curves.channels, curves.values, benign)
    for rows in (slice(0, 4), slice(4, 9)):
        for images in (slice(0, 3), slice(3, 8)):
            tally.take(rows, images, curves.logits[rows, :, images])
    halves = []
    for images in (slice(0, 5), slice(5, 8)):
        half = Tally(LAYER, curves.channels, curves.values, benign.part(images))
        half.take(slice(None), slice(None), curves.logits[:, :, images])
        halves.append(half.summary())
    for summary in (tally.summary(), halves[0].with_images(halves[1])):
        assert summary.images == 8
        for name in ("lowest", "margins", "winners", "means"):
            assert torch.allclose(getattr(summary, name).float(), getattr(whole, name).float(), atol=1e-6), name


def test_a_candidate_keeps_the_curve_that_a_plot_needs():
    curves, plain, labels = random_curves(0)
    for candidate in ranked(curves, plain, labels):
        assert candidate.curve is not None
        assert torch.equal(candidate.curve.values, curves.values[candidate.channel])
        assert torch.allclose(candidate.curve.logits, curves.logits[candidate.channel].mean(1), atol=1e-6)


def test_the_lowest_quantile_is_the_minimum():
    curves, plain, labels = random_curves(2)
    own = torch.nn.functional.one_hot(labels, 5).bool()
    lifts = curves.logits.amax(1) - plain
    assert torch.allclose(elevations(lifts, own, 0.0), elevations(lifts, own, 1e-9), atol=1e-5)
