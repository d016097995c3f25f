"""Promises of agnes.samples: images and labels stay together, and only what fits a network is shown to it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import picture

from agnes.errors import UsageError
from agnes.samples import Samples, read_samples
from agnes.text import printable


def samples_of(labels, size=(3, 4, 4)) -> Samples:
    images = torch.rand((len(labels), *size), generator=torch.Generator().manual_seed(0))
    return Samples(images, torch.tensor(labels), source="mine")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain", "plain"),
        ("a\x1b[31mred\x07\n\r\tz", "a[31mredz"),
        ("gnp.\u202egpj", "gnp.gpj"),
        ("zero\u200bwidth\u2028line", "zerowidthline"),
        ("bad\udcffbyte", "badbyte"),
        ("Größe ≥ 数", "Größe ≥ 数"),
    ],
)
def test_control_and_bidi_characters_never_reach_a_terminal(text, clean):
    assert printable(text) == clean


@given(st.text(max_size=2000), st.integers(5, 60))
def test_printable_is_short_and_settled(text, limit):
    once = printable(text, limit)
    assert len(once) <= limit
    assert printable(once, limit) == once


def test_names_of_files_and_classes_are_cleaned(tmp_path):
    root = tmp_path / "set"
    picture(root / "a\u202eb" / "0.png")
    picture(root / "c" / "1.png")
    found = read_samples(root)
    assert found.class_names == ("ab", "c")
    (root / "c" / "x\x1b[2J.png").write_text("no picture")
    with pytest.raises(UsageError, match=r"x\[2J\.png: not an image"):
        read_samples(root)


def test_classes_can_be_taken_out_and_left_out():
    samples = samples_of([0, 1, 0, 2]).with_test(samples_of([1]))
    assert samples.of_class(0).labels.tolist() == [0, 0]
    assert torch.equal(samples.of_class(0).images, samples.images[[0, 2]])
    assert samples.without_class(0).labels.tolist() == [1, 2]
    assert len(samples.of_class(7)) == 0
    assert len(samples.of_class(0).test) == 1


def test_classes_of_unlabelled_images_are_not_guessed():
    samples = Samples(torch.zeros(2, 1, 4, 4))
    assert not samples.labelled
    with pytest.raises(UsageError, match="have no labels"):
        samples.of_class(0)


@pytest.mark.parametrize("indices", [[2, 0], torch.tensor([2, 0]), []])
def test_a_subset_keeps_images_and_labels_together(indices):
    samples = samples_of([5, 6, 7])
    chosen = [int(i) for i in indices]
    assert samples.subset(indices).labels.tolist() == [[5, 6, 7][i] for i in chosen]
    assert torch.equal(samples.subset(indices).images, samples.images[chosen])


def test_a_subset_may_be_a_slice_or_a_mask():
    samples = samples_of([5, 6, 7])
    assert samples.subset(slice(1, None)).labels.tolist() == [6, 7]
    assert samples.subset(torch.tensor([True, False, True])).labels.tolist() == [5, 7]


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40), st.floats(0.05, 0.95), st.integers(0, 99))
@settings(deadline=None)
def test_a_split_is_seeded_whole_and_in_proportion(labels, share, seed):
    samples = Samples(torch.arange(len(labels)).float()[:, None, None, None] / 64, torch.tensor(labels))
    first, second = samples.split(share, torch.Generator().manual_seed(seed))
    again, _ = samples.split(share, torch.Generator().manual_seed(seed))
    assert torch.equal(first.images, again.images)
    drawn = torch.cat([first.images, second.images]).flatten().mul(64).sort().values
    assert drawn.tolist() == list(range(len(labels)))
    assert len(first) == min(max(round(share * len(labels)), 1), len(labels) - 1)
    for label in set(labels):
        assert abs(len(first.of_class(label)) - share * labels.count(label)) <= 2
    assert len(second) >= 1


@pytest.mark.parametrize(("labels", "share"), [([0, 1], 0.0), ([0, 1], 1.0), ([0, 1], 7.0), ([0], 0.5)])
def test_a_split_that_leaves_a_part_empty_is_refused(labels, share):
    with pytest.raises(UsageError, match="cannot be split"):
        samples_of(labels).split(share, torch.Generator())


def test_the_hash_tells_pixels_labels_and_shapes_apart():
    base = samples_of([0, 1])
    others = [
        samples_of([0, 2]),
        Samples(base.images),
        Samples(base.images.flip(0), base.labels),
        Samples(base.images.reshape(2, 3, 8, 2), base.labels),
    ]
    assert len({base.sha256, *(other.sha256 for other in others)}) == 5
    assert base.sha256 == Samples(base.images.clone(), base.labels.clone(), source="elsewhere").sha256


def test_moving_takes_the_test_part_along():
    moved = samples_of([0]).with_test(samples_of([1])).to("meta")
    assert moved.images.is_meta
    assert moved.labels.is_meta
    assert moved.test.images.is_meta


def test_a_test_part_of_another_size_is_refused():
    with pytest.raises(UsageError, match="test images are 3x5x5, the others 3x4x4"):
        samples_of([0]).with_test(samples_of([0], size=(3, 5, 5)))


@pytest.mark.parametrize("labels", [torch.tensor([0]), torch.tensor([0.0, 1.0]), torch.tensor([[0], [1]])])
def test_labels_that_do_not_fit_the_images_are_refused(labels):
    with pytest.raises(UsageError, match="give one int64 an image"):
        Samples(torch.zeros(2, 3, 4, 4), labels)


@pytest.mark.parametrize("images", [torch.zeros(3, 4, 4), torch.zeros(2, 3, 4, 4, dtype=torch.uint8)])
def test_images_of_another_kind_are_refused(images):
    with pytest.raises(UsageError, match="give N, C, H, W floats"):
        Samples(images)


def named(names, rule, labels=(0, 1)) -> Samples:
    base = samples_of(list(labels))
    return Samples(base.images, base.labels, names, label_rule=rule)


@pytest.mark.parametrize(
    "samples",
    [
        samples_of([0]),
        samples_of([2, 2]),
        Samples(torch.rand(1, 3, 4, 4)),
        named(("a", "b", "c"), "sorted"),
        named(("a", "b"), "numbers"),
        named(("a", "b", "c"), None),
    ],
)
def test_samples_may_miss_classes_or_labels(samples):
    samples.check_against((3, 4, 4), 3)


@pytest.mark.parametrize(
    ("samples", "match"),
    [
        (samples_of([0], size=(3, 5, 4)), "images are 3x5x4 but the network takes 3x4x4"),
        (samples_of([0], size=(1, 4, 4)), "images are 1x4x4 but"),
        (samples_of([0, 3]), "a label is 3, but the network has 3 classes, 0 to 2; check the labels"),
        (samples_of([1, 3]), "count classes from 0, not from 1"),
        (samples_of([-1, 0]), "a label is -1"),
        (samples_of([0]).subset([]), "no images"),
        (Samples(torch.full((1, 3, 4, 4), float("nan"))), "NaN"),
        (Samples(torch.full((1, 3, 4, 4), 1.01)), r"not in \[0, 1\]"),
        (samples_of([0]).with_test(samples_of([9])), "a label is 9"),
        (named(("a", "b"), "sorted"), "2 class names, but the network has 3"),
        (named(("a", "b", "c", "d"), "numbers"), "4 class names"),
        (named(("a", "b"), None), "2 class names"),
    ],
)
def test_what_cannot_be_shown_to_the_network_is_told(samples, match):
    with pytest.raises(UsageError, match=match):
        samples.check_against((3, 4, 4), 3)


def test_a_class_without_a_name_goes_by_its_number():
    samples = named(("go", "stop"), "numbers")
    assert [samples.class_name(i) for i in (0, 1, 2, -1)] == ["go", "stop", "2", "-1"]
