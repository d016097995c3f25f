"""Promises of agnes.measuring: accuracy and attack success as a plain loop over single images counts them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agnes.backend import Backend
from agnes.measuring import accuracy, attack_success, likeness, predictions
from agnes.network import Network
from agnes.results import AdditiveTrigger, MaskTrigger, Trigger
from agnes.samples import Samples
from agnes.testing.networks import CLASSES, INPUT_SHAPE, fully_connected

NETWORK = Network.of(fully_connected(1), INPUT_SHAPE)
MODULE = fully_connected(1)
SMALL = Backend(torch.device("cpu"), memory=20_000)  # some images at a time


def samples(count: int, seed: int = 0, labelled: bool = True) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, *INPUT_SHAPE, generator=generator)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return Samples(images, labels if labelled else None)


def trigger(target: int, source: int | None = None, strength: float = 0.8) -> Trigger:
    delta = strength * (torch.rand(INPUT_SHAPE, generator=torch.Generator().manual_seed(target)) - 0.5)
    return AdditiveTrigger(target=target, asr=0.0, held_out=0, source=source, delta=delta)


def given_class(image: torch.Tensor) -> int:
    with torch.no_grad():
        return int(MODULE(image[None]).argmax())


def accuracy_by_loop(of: Samples) -> float:
    right = [given_class(image) == int(label) for image, label in zip(of.images, of.labels, strict=True)]
    return sum(right) / len(right)


def success_by_loop(of: Samples, trigger: Trigger) -> tuple[float, int]:
    hits = []
    for i, image in enumerate(of.images):
        label = given_class(image) if of.labels is None else int(of.labels[i])
        if label == trigger.target or trigger.source not in (None, label):
            continue
        hits.append(given_class((image + trigger.delta).clamp(0, 1)) == trigger.target)
    return (sum(hits) / len(hits) if hits else 0.0), len(hits)


@given(st.integers(1, 60), st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_accuracy_is_what_a_loop_counts(count, seed):
    of = samples(count, seed)
    assert accuracy(NETWORK, of, SMALL) == (pytest.approx(accuracy_by_loop(of)), count)


@given(
    st.integers(1, 60),
    st.integers(0, 1000),
    st.integers(0, CLASSES - 1),
    st.one_of(st.none(), st.integers(0, CLASSES - 1)),
    st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_attack_success_is_what_a_loop_counts(count, seed, target, source, labelled):
    of = samples(count, seed, labelled)
    made = trigger(target, source)
    share, counted = attack_success(NETWORK, made, of, SMALL)
    expected, among = success_by_loop(of, made)
    assert (share, counted) == (pytest.approx(expected), among)


def test_the_test_part_is_what_is_measured():
    test = samples(30, 7)
    of = samples(10, 8).with_test(test)
    assert accuracy(NETWORK, of, SMALL) == (pytest.approx(accuracy_by_loop(test)), 30)
    share, counted = attack_success(NETWORK, trigger(0), of, SMALL)
    assert (share, counted) == (pytest.approx(success_by_loop(test, trigger(0))[0]), int((test.labels != 0).sum()))


def test_without_labels_there_is_no_accuracy():
    assert accuracy(NETWORK, samples(5, labelled=False), SMALL) == (None, 0)


def test_a_test_part_without_labels_does_not_hide_labelled_images():
    of = samples(12, 3).with_test(samples(4, 4, labelled=False))
    assert accuracy(NETWORK, of, SMALL) == (pytest.approx(accuracy_by_loop(samples(12, 3))), 12)


def test_images_of_the_target_alone_measure_nothing():
    only = Samples(torch.rand(3, *INPUT_SHAPE), torch.tensor([2, 2, 2]))
    assert attack_success(NETWORK, trigger(2), only, SMALL) == (0.0, 0)
    assert attack_success(NETWORK, trigger(1, source=4), only, SMALL) == (0.0, 0)


def test_a_trigger_that_covers_all_with_an_image_of_the_target_always_succeeds():
    images = samples(40, 11)
    target = given_class(images.images[0])
    made = MaskTrigger(
        target=target, asr=0.0, held_out=0, mask=torch.ones(1, *INPUT_SHAPE[1:]), pattern=images.images[0]
    )
    share, counted = attack_success(NETWORK, made, images, SMALL)
    assert share == 1.0
    assert counted == int((images.labels != target).sum())


def test_measuring_keeps_no_gradients_and_changes_nothing():
    of = samples(6)
    before = of.sha256
    images = of.images.clone().requires_grad_()
    assert not predictions(NETWORK, images, SMALL).requires_grad
    attack_success(NETWORK, trigger(0, strength=2), of, SMALL)
    assert Samples(of.images, of.labels).sha256 == before
    assert all(p.grad is None for p in NETWORK.module.parameters())


# How like a true trigger another is


def patch(rows: slice, columns: slice, colour: float, size: int = 6) -> MaskTrigger:
    mask = torch.zeros(1, size, size)
    mask[:, rows, columns] = 1.0
    return MaskTrigger(target=0, asr=1.0, held_out=0, mask=mask, pattern=torch.full((3, size, size), colour))


def test_patches_that_overlap_in_part_are_alike_by_the_part_they_share():
    """On black images, 2x2 white pixels and 2x2 moved by one column: 2 of 6 in common, 4 of 36 wrong in 3 colours."""
    found = likeness(
        patch(slice(2, 4), slice(1, 3), 1.0), patch(slice(2, 4), slice(2, 4), 1.0), torch.zeros(4, 3, 6, 6)
    )
    assert found.iou == pytest.approx(2 / 6)
    assert found.mse == pytest.approx(4 * 3 / 36)


def test_a_trigger_is_like_itself_and_what_changes_nothing_visible_is_like_nothing():
    images = torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    one = patch(slice(0, 2), slice(0, 2), 0.3)
    assert likeness(one, one, images).mse == 0.0
    assert likeness(one, one, images).iou == 1.0
    assert (
        likeness(AdditiveTrigger(target=0, asr=0, held_out=0, delta=torch.full((3, 6, 6), 0.05)), one, images).iou == 0
    )


def test_likeness_is_of_the_mean_change_as_a_loop_over_pixels_counts_it():
    draw = torch.Generator().manual_seed(1)
    images = torch.rand(3, 3, 6, 6, generator=draw)
    one, other = patch(slice(0, 3), slice(1, 5), 0.9), patch(slice(1, 4), slice(0, 4), 0.2)
    squared, both, either = 0.0, 0, 0
    for y in range(6):
        for x in range(6):
            changes = [
                [sum(float(t.apply(i[None])[0, c, y, x] - i[c, y, x]) for i in images) / 3 for c in range(3)]
                for t in (one, other)
            ]
            squared += sum((a - b) ** 2 for a, b in zip(*changes, strict=True))
            seen = [max(map(abs, change)) >= 0.1 for change in changes]
            both, either = both + all(seen), either + any(seen)
    found = likeness(one, other, images)
    assert found.mse == pytest.approx(squared / 36, rel=1e-5)
    assert found.iou == pytest.approx(both / either)
