"""Promises of the probe: squares all over the image, scored as a plain loop would, start the search where they work."""

import pytest
import torch
from agnes_inversion.probing import Square, best_squares, scores, squares
from agnes_inversion.tao import TaoInversion
from planted_corner import CLASSES, SHAPE, TARGET, backend

from agnes.errors import OutOfTime

TARGETS = torch.arange(CLASSES)


def others(labels):
    """Which images are not of each class."""
    return labels[None] != TARGETS[:, None]


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 10, 10), (3, 48, 64), (3, 2, 2)])
def test_squares_reach_every_edge_and_none_leaves_the_image(shape):
    channels, height, width = shape
    tried = squares(shape)
    assert len(set(tried)) == len(tried)
    assert {len(square.colour) for square in tried} == {channels}
    assert len({square.colour for square in tried}) == 2**channels
    assert min(square.row for square in tried) == min(square.column for square in tried) == 0
    assert all(square.row + square.side <= height and square.column + square.side <= width for square in tried)
    assert max(square.row + square.side for square in tried) == height
    assert max(square.column + square.side for square in tried) == width


def test_squares_grow_with_the_image_so_that_a_large_one_costs_no_more():
    small, large = squares((3, 32, 32)), squares((3, 224, 224))
    assert len(large) <= len(small)
    assert {square.side for square in large} == {7 * side for side in {square.side for square in small}}


def test_many_channels_are_probed_all_bright_and_all_dark():
    assert {square.colour for square in squares((5, 8, 8))} == {(0.0,) * 5, (1.0,) * 5}


def test_a_square_is_stamped_where_it_says_and_nowhere_else():
    square = Square(row=1, column=2, side=2, colour=(1.0, 0.0))
    image = torch.full((2, 4, 5), 0.25)
    square.stamp(image)
    expected = torch.full((2, 4, 5), 0.25)
    expected[0, 1:3, 2:4] = 1
    expected[1, 1:3, 2:4] = 0
    torch.testing.assert_close(image, expected)
    pattern = square.pattern((2, 4, 5))
    assert pattern.unique().tolist() == [-1, 0, 1]
    assert int((pattern == 1).sum()) == int((pattern == -1).sum()) == 4


def test_scores_are_those_of_a_loop_over_squares_images_and_classes(network, samples):
    tried = squares(SHAPE)[::37]
    found = scores(tried, network, samples.images, TARGETS, others(samples.labels), backend())
    for index, square in enumerate(tried):
        for target in range(CLASSES):
            likely = []
            for image, label in zip(samples.images, samples.labels.tolist(), strict=True):
                if label != target:
                    stamped = image.clone()
                    square.stamp(stamped)
                    likely.append(network(stamped[None]).softmax(1)[0, target].clamp(min=1e-38).log())
            expected = torch.stack(likely).mean()
            torch.testing.assert_close(found[index, target], expected, rtol=1e-4, atol=1e-4)


def test_a_class_that_all_images_belong_to_scores_the_same_everywhere(network, samples):
    alone = samples.images[samples.labels == 2]
    labels = torch.full((len(alone),), 2)
    found = scores(squares(SHAPE)[:9], network, alone, TARGETS, others(labels), backend())
    assert found[:, 2].tolist() == [0.0] * 9
    assert found[:, 3].abs().min() > 0


def test_the_best_square_of_a_planted_trigger_lies_on_it_in_its_colour(network, samples):
    best = best_squares(network, samples.images, TARGETS, others(samples.labels), backend())[TARGET]
    assert best.colour == (1.0, 1.0, 0.0)
    assert best.row + best.side <= 3
    assert best.column + best.side <= 3


def test_the_search_starts_at_the_best_square_of_each_class_too(network, samples, monkeypatch):
    started = []
    monkeypatch.setattr(
        "agnes_inversion.search.Search.run", lambda self, start: started.append((self.targets, start)) or stop()
    )

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TaoInversion(steps=30, warm_up=10).invert(network, samples, [], backend())
    ((targets, start),) = started
    assert targets.tolist() == list(range(CLASSES)) * 2
    brighter, darker = start[CLASSES + TARGET]
    changed = ((brighter > 0) | (darker > 0)).any(0)
    assert 0 < int(changed.sum()) <= 9
    assert bool(changed[:3, :3].sum() == changed.sum())
    assert bool((brighter[:2][:, changed] > 0).all() & (darker[2][changed] > 0).all())


@pytest.mark.parametrize("probe", [0, 4])
def test_each_class_gives_one_trigger_however_many_starts_it_had(network, samples, probe):
    triggers = TaoInversion(steps=30, warm_up=10, probe=probe).invert(network, samples, [], backend())
    assert sorted(trigger.target for trigger in triggers) == list(range(CLASSES))


def test_without_time_for_it_the_search_starts_without_a_probe(network, samples, monkeypatch):
    def late(*arguments):
        raise OutOfTime("the time budget is spent")

    monkeypatch.setattr("agnes_inversion.tao.best_squares", late)
    triggers = TaoInversion(steps=30, warm_up=10).invert(network, samples, [], backend())
    assert sorted(trigger.target for trigger in triggers) == list(range(CLASSES))
