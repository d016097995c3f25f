"""Promises of the boxes: all over the image, scored as a plain loop would, told from what a class shows by itself."""

import itertools

import pytest
import torch
from agnes_inversion.boxes import (
    HALF,
    LARGE,
    SHAPES,
    SQUARES,
    Box,
    best_boxes,
    boxes,
    resemblance,
    scores,
    stamped,
    wearing,
)
from agnes_inversion.tao import TaoInversion
from planted_corner import CLASSES, SHAPE, TARGET, backend

from agnes.errors import OutOfTime

TARGETS = torch.arange(CLASSES)


def others(labels):
    """Which images are not of each class."""
    return labels[None] != TARGETS[:, None]


@pytest.mark.parametrize("shapes", [SHAPES, SQUARES, LARGE])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 10, 10), (3, 48, 64), (3, 2, 2)])
def test_boxes_reach_every_edge_and_none_leaves_the_image(shape, shapes):
    channels, height, width = shape
    tried = boxes(shape, shapes)
    assert len(set(tried)) == len(tried)
    assert {len(box.colour) for box in tried} == {channels}
    assert len({box.colour for box in tried}) == 2**channels
    for tall, wide in {(box.height, box.width) for box in tried}:
        alike = [box for box in tried if (box.height, box.width) == (tall, wide)]
        assert min(box.row for box in alike) == min(box.column for box in alike) == 0
        assert max(box.row for box in alike) + tall == height
        assert max(box.column for box in alike) + wide == width


def test_boxes_have_the_sizes_that_are_asked_for_and_bars_lie_both_ways():
    assert {(box.height, box.width) for box in boxes((3, 32, 32))} == set(SHAPES)
    assert {(box.height, box.width) for box in boxes((3, 32, 32), SQUARES)} == set(SQUARES)
    assert {(box.height, box.width) for box in boxes((3, 32, 32), LARGE)} == set(LARGE)
    for shapes in (SHAPES, LARGE):
        assert {(wide, tall) for tall, wide in shapes} == set(shapes)


def test_every_pixel_lies_under_a_box_of_each_size_but_thin_bars_and_those_are_as_far_apart():
    for size in {*SHAPES, *LARGE}:
        covered = torch.zeros(3, 32, 32)
        tried = boxes((3, 32, 32), [size])
        for box in tried:
            box.within(covered)[...] = 1
        thin_bar = min(size) < 3 and size not in SQUARES
        assert bool(covered.all()) is not thin_bar, size
        for places in ({box.row for box in tried}, {box.column for box in tried}):
            ordered = sorted(places)
            assert max(after - before for before, after in itertools.pairwise(ordered)) <= 3


def test_there_are_as_many_boxes_as_the_card_says():
    assert len(boxes((3, 32, 32))) == len(boxes((3, 64, 64))) == 7840
    assert len(boxes((3, 32, 32), SQUARES)) == 4096
    assert len(boxes((3, 32, 32), LARGE)) == 2632
    assert len(boxes((3, 32, 32), HALF)) == 968


def test_boxes_grow_with_the_image_so_that_a_large_one_costs_no_more():
    small, large = boxes((3, 32, 32)), boxes((3, 224, 224))
    assert len(large) <= len(small)
    assert {(box.height, box.width) for box in large} == {(7 * tall, 7 * wide) for tall, wide in SHAPES}


def test_many_channels_are_tried_all_bright_and_all_dark():
    assert {box.colour for box in boxes((5, 8, 8))} == {(0.0,) * 5, (1.0,) * 5}


def test_a_box_is_stamped_where_it_says_and_nowhere_else():
    box = Box(row=1, column=2, height=3, width=2, colour=(1.0, 0.0))
    image = torch.full((2, 5, 6), 0.25)
    box.stamp(image)
    expected = torch.full((2, 5, 6), 0.25)
    expected[0, 1:4, 2:4] = 1
    expected[1, 1:4, 2:4] = 0
    torch.testing.assert_close(image, expected)
    pattern, mask = box.pattern((2, 5, 6)), box.mask((2, 5, 6))
    assert pattern.unique().tolist() == [-1, 0, 1]
    assert int((pattern == 1).sum()) == int((pattern == -1).sum()) == int(mask.sum()) == 6
    assert torch.equal(pattern.abs().amax(0), mask[0])
    assert str(box) == "3x2 pixels of colour (1, 0) at row 1, column 2"


def test_images_wear_each_box_in_its_own_copy():
    tried, images = boxes((3, 8, 8))[::41], torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before, worn = images.clone(), wearing(tried, images)
    assert worn.shape == (len(tried), 2, 3, 8, 8)
    assert torch.equal(images, before)
    for box, copies in zip(tried, worn, strict=True):
        mask = box.mask((3, 8, 8))
        assert torch.equal(copies, images * (1 - mask) + (box.pattern((3, 8, 8)) + 1) / 2 * mask)


def test_what_is_measured_are_the_logits_of_images_that_wear_each_box(network, samples):
    tried, images = boxes(SHAPE)[::101], samples.images[:5]
    found = stamped(tried, network, images, lambda seen: seen, backend())
    assert found.shape == (len(tried), 5, CLASSES)
    for index, box in enumerate(tried):
        wearing = images.clone()
        wearing[:, :, box.row : box.row + box.height, box.column : box.column + box.width] = torch.tensor(
            box.colour
        ).view(-1, 1, 1)
        torch.testing.assert_close(found[index], network(wearing), rtol=1e-4, atol=1e-4)


def test_the_images_themselves_are_left_as_they_were(network, samples):
    before = samples.images.clone()
    stamped(boxes(SHAPE)[:9], network, samples.images, lambda seen: seen, backend())
    assert torch.equal(samples.images, before)


def test_scores_are_those_of_a_loop_over_boxes_images_and_classes(network, samples):
    tried = boxes(SHAPE)[::37]
    found = scores(tried, network, samples.images, TARGETS, others(samples.labels), backend())
    for index, box in enumerate(tried):
        wearing = samples.images.clone()
        for image in wearing:
            box.stamp(image)
        likely = network(wearing).softmax(1).clamp(min=1e-38).log()
        for target in range(CLASSES):
            expected = [likely[i, target] for i, label in enumerate(samples.labels.tolist()) if label != target]
            torch.testing.assert_close(found[index, target], torch.stack(expected).mean(), rtol=1e-4, atol=1e-4)


def test_a_class_that_all_images_belong_to_scores_the_same_everywhere(network, samples):
    alone = samples.images[samples.labels == 2]
    labels = torch.full((len(alone),), 2)
    found = scores(boxes(SHAPE)[:9], network, alone, TARGETS, others(labels), backend())
    assert found[:, 2].tolist() == [0.0] * 9
    assert found[:, 3].abs().min() > 0


def test_resemblance_is_that_of_a_loop_over_boxes_classes_and_images(samples):
    tried = boxes(SHAPE)[::23]
    found = resemblance(tried, samples.images, samples.labels, CLASSES)
    for index, box in enumerate(tried):
        apart = []
        for image in samples.images:
            shown = image[:, box.row : box.row + box.height, box.column : box.column + box.width].flatten(1)
            apart.append(sum(abs(float(c.mean()) - want) for c, want in zip(shown, box.colour, strict=True)) / 3)
        for label in range(CLASSES):
            own = [far for far, of in zip(apart, samples.labels.tolist(), strict=True) if of == label]
            rest = [far for far, of in zip(apart, samples.labels.tolist(), strict=True) if of != label]
            expected = (sum(own) / len(own)) / (sum(rest) / len(rest))
            assert float(found[index, label]) == pytest.approx(expected, rel=1e-4)


def test_a_box_that_a_class_shows_by_itself_resembles_that_class_and_no_other(samples):
    on_the_row_of_2 = Box(row=6, column=3, height=1, width=4, colour=(1.0, 1.0, 1.0))
    (found,) = resemblance([on_the_row_of_2], samples.images, samples.labels, CLASSES)
    assert float(found[2]) < 0.2
    assert all(float(found[label]) > 1 for label in range(CLASSES) if label != 2)


def test_without_images_of_a_class_or_of_others_nothing_is_known_of_what_it_shows(samples):
    tried = boxes(SHAPE)[::101]
    some = samples.labels < 2
    found = resemblance(tried, samples.images[some], samples.labels[some], CLASSES)
    assert torch.equal(found[:, 2:], torch.ones(len(tried), CLASSES - 2))
    assert bool((found[:, :2] != 1).any())
    alone = samples.labels == 2
    assert bool((resemblance(tried, samples.images[alone], samples.labels[alone], CLASSES) == 1).all())


def test_the_best_box_of_a_planted_trigger_lies_on_it_in_its_colour(network, samples):
    best = best_boxes(network, samples.images, TARGETS, others(samples.labels), backend())[TARGET]
    assert best.colour == (1.0, 1.0, 0.0)
    assert best.row + best.height <= 3
    assert best.column + best.width <= 3


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

    monkeypatch.setattr("agnes_inversion.tao.best_boxes", late)
    triggers = TaoInversion(steps=30, warm_up=10).invert(network, samples, [], backend())
    assert sorted(trigger.target for trigger in triggers) == list(range(CLASSES))
