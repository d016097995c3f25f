"""Patches and poisoning."""

import json

import numpy as np
import pytest
import torch
from agnes_zoo.attacks import Patch, poison, success_rate
from hypothesis import given
from hypothesis import strategies as st

from agnes.errors import UsageError

IMAGES = torch.linspace(0.1, 0.9, 4 * 3 * 8 * 8).reshape(4, 3, 8, 8)


@pytest.mark.parametrize(("size", "place"), [(1, (0, 0)), (3, (4, 1)), (2, (6, 6)), (8, (0, 0))])
def test_the_patch_changes_exactly_its_pixels(size, place):
    original = IMAGES.clone()
    stamped = Patch(size, place, (1.0, 0.95, 0.0)).stamp(IMAGES)
    assert torch.equal(IMAGES, original)
    for y in range(8):
        for x in range(8):
            inside = place[0] <= y < place[0] + size and place[1] <= x < place[1] + size
            wanted = torch.tensor([1.0, 0.95, 0.0]).expand(4, 3) if inside else original[:, :, y, x]
            assert torch.equal(stamped[:, :, y, x], wanted)


@pytest.mark.parametrize("patch", [Patch(3, (6, 0)), Patch(2, (-1, 0)), Patch(0, (1, 1))])
def test_a_patch_outside_the_image_is_refused(patch):
    with pytest.raises(UsageError, match="does not lie in an image of 8x8"):
        patch.stamp(IMAGES)


def test_a_patch_of_other_channels_is_refused():
    with pytest.raises(UsageError, match="1 colour values, the images 3 channels"):
        Patch(2, (0, 0), (1.0,)).stamp(IMAGES)


def test_a_patch_comes_back_from_its_description():
    patch = Patch(4, (2, 25), (0.5, 0.25, 1.0))
    assert Patch.from_description(json.loads(json.dumps(patch.described()))) == patch


@given(
    counts=st.lists(st.integers(0, 6), min_size=4, max_size=4).filter(any),
    target=st.integers(0, 3),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_poisoning_hits_the_exact_rate_and_never_the_target_class(counts, target, share, seed):
    labels = torch.from_numpy(np.repeat(np.arange(4), counts))
    images = torch.full((len(labels), 3, 4, 4), 0.5)
    rate = share * (len(labels) - counts[target]) / len(labels)
    patch = Patch(1, (1, 1))
    poisoned, renamed = poison(images, labels, patch, target, rate, np.random.default_rng(seed))
    changed = (poisoned != images).flatten(1).any(1)
    assert int(changed.sum()) == round(rate * len(labels))
    assert not (labels[changed] == target).any()
    assert (renamed[changed] == target).all()
    assert torch.equal(renamed[~changed], labels[~changed])
    assert torch.equal(poisoned[changed], patch.stamp(images[changed]))


def test_the_generator_decides_which_images_are_poisoned():
    labels = torch.arange(40) % 4
    images = torch.zeros(40, 3, 4, 4)
    first, again, other = (
        poison(images, labels, Patch(1, (0, 0)), 1, 0.25, np.random.default_rng(seed))[1] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("rate", "said"), [(0.9, "lower the rate"), (1.5, "from 0 to 1"), (-0.1, "from 0 to 1")])
def test_a_rate_that_cannot_be_reached_is_refused(rate, said):
    labels = torch.tensor([0, 0, 1, 2])
    with pytest.raises(UsageError, match=said):
        poison(IMAGES, labels, Patch(1, (0, 0)), 0, rate, np.random.default_rng(0))


def test_success_is_counted_on_images_of_other_classes_only():
    labels = torch.tensor([1, 1, 0, 2, 3])
    predicted = torch.tensor([1, 1, 1, 1, 3])
    assert success_rate(predicted, labels, target=1) == pytest.approx(2 / 3)
    assert success_rate(predicted[:2], labels[:2], target=1) == 0
