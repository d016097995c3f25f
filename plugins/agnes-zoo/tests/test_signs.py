"""The embedded traffic signs."""

import hashlib
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
import torch
from agnes_zoo.drawing import Sheet
from agnes_zoo.lettering import STROKES
from agnes_zoo.signs import (
    CLASS_NAMES,
    SIDE,
    SIGNS,
    STOP,
    TEST,
    TRAINING,
    Kind,
    _compose,
    sign,
    signs,
    stream,
    template,
)

from agnes.errors import UsageError

PUBLISHED_LABELS = [40, 2, 21, 22, 20, 4]
PUBLISHED_MEANS = [47.711, 49.34, 38.632, 80.017, 82.765, 43.935]
TEN = Kind((1, 5, 12, 13, 14, 17, 18, 25, 33, 39))


def test_there_are_the_43_classes_of_gtsrb_with_file_safe_names():
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == 43
    assert all(name.replace("-", "").isalnum() for name in CLASS_NAMES)
    assert (CLASS_NAMES[12], CLASS_NAMES[13], CLASS_NAMES[14], STOP) == ("priority-road", "yield", "stop", 14)


def test_every_class_has_as_many_signs_as_asked_for():
    images, labels = signs(2, seed=0)
    assert images.shape == (86, SIDE, SIDE, 3)
    assert images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [2] * 43


def test_the_same_seed_draws_the_same_signs_and_another_seed_others():
    first, again, other = signs(7, seed=3), signs(7, seed=3), signs(7, seed=4)  # more than one block
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("kind", [SIGNS, TEN, Kind(side=28, channels=1)])
@pytest.mark.parametrize("count", [1, 43, 215, 216, 300])
def test_a_sign_is_the_same_however_many_are_asked_for(kind, count):
    images, labels = stream(500, 9, kind=kind)
    some, their_labels = stream(count, 9, kind=kind)
    assert np.array_equal(some, images[:count])
    assert np.array_equal(their_labels, labels[:count])


def test_a_sign_is_the_same_in_another_process_and_on_other_threads():
    program = (
        "import hashlib, torch; torch.set_num_threads(3); from agnes_zoo.signs import stream; "
        "print(hashlib.sha256(stream(300, 11)[0]).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(stream(300, 11)[0]).hexdigest()


def test_the_signs_are_those_that_the_published_figures_were_measured_on():
    images, labels = stream(6, 0)  # means, not bytes: processors may differ in the last bit of a pixel
    assert labels.tolist() == PUBLISHED_LABELS
    assert images.mean((1, 2, 3)).tolist() == pytest.approx(PUBLISHED_MEANS, abs=0.01)


def test_parts_and_blocks_of_a_seed_share_no_image():
    parts = [stream(430, seed, part)[0] for seed in (0, 1) for part in (TRAINING, TEST)]
    flat = np.concatenate(parts).reshape(4 * 430, -1)
    assert len(np.unique(flat, axis=0)) == len(flat)


def test_every_round_of_a_stream_holds_each_class_once():
    for kind, classes in ((SIGNS, 43), (TEN, 10)):
        rounds = stream(classes * 12, 2, kind=kind)[1].reshape(12, classes)
        assert np.array_equal(np.sort(rounds, 1), np.tile(np.arange(classes), (12, 1)))
        assert len(np.unique(rounds, axis=0)) > 9


def test_ten_classes_keep_their_faces_and_number_them_from_0():
    ten, all_43 = (
        _compose(np.array(labels), kind, np.random.default_rng(1))
        for labels, kind in ((range(10), TEN), (TEN.classes, SIGNS))
    )
    assert np.array_equal(ten, all_43)
    assert TEN.class_names[4] == "stop"


def test_a_grey_sign_is_the_coloured_one_s_luma_but_for_its_noise():
    coloured, grey = (stream(86, 5, kind=Kind(channels=channels))[0].astype(float) for channels in (3, 1))
    luma = coloured @ [0.299, 0.587, 0.114]
    assert np.abs(luma - grey[..., 0]).mean() < 6
    assert np.abs(luma.mean((1, 2)) - grey.mean((1, 2, 3))).max() < 4


def test_a_larger_sign_is_the_same_picture():
    small, large = (stream(43, 5, kind=Kind(side=side))[0].astype(float) for side in (32, 64))
    shrunk = large.reshape(43, 32, 2, 32, 2, 3).mean((2, 4))
    for ours, theirs in zip(small, shrunk, strict=True):
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.8


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Kind(side=8), "sides are 16 to 128"),
        (lambda: Kind(channels=2), "channels 1 or 3"),
        (lambda: stream(-1, 0), "-1 signs of seed 0"),
        (lambda: stream(1, -1), "seed -1"),
    ],
)
def test_signs_that_cannot_be_drawn_are_refused(make, said):
    with pytest.raises(UsageError, match=said):
        make()


def test_drawing_signs_leaves_the_global_generators_alone():
    before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()
    signs(1, seed=0)
    assert np.array_equal(before, np.random.get_state()[1])
    assert torch.equal(torch_before, torch.get_rng_state())


def test_one_sign_follows_its_generator():
    first, again = (sign(14, np.random.default_rng(1)) for _ in range(2))
    assert first.shape == (SIDE, SIDE, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, sign(14, np.random.default_rng(2)))


def test_the_clean_faces_of_any_two_classes_differ_visibly():
    faces = np.stack([template(label) for label in range(43)])
    for one, other in combinations(range(43), 2):
        differing = (np.abs(faces[one] - faces[other]).max(0) > 0.3).sum()
        assert differing >= 32, (CLASS_NAMES[one], CLASS_NAMES[other])  # of 64 x 64


@pytest.mark.parametrize(
    ("label", "colour"),
    [("stop", 0), ("no-entry", 0), ("keep-right", 2), ("straight-on", 2)],
)
def test_red_signs_are_red_and_blue_signs_blue(label, colour):
    red, green, blue, cover = template(CLASS_NAMES.index(label))
    solid = cover == 1
    mean = [channel[solid].mean() for channel in (red, green, blue)]
    assert int(np.argmax(mean)) == colour


def test_the_priority_road_is_yellow_in_the_middle():
    red, green, blue, _ = template(12)[:, 32, 32]
    assert min(red, green) > 0.6
    assert blue < 0.2


def test_left_and_right_signs_mirror_each_other():
    for left, right in (("turn-left", "turn-right"), ("keep-left", "keep-right"), ("curve-left", "curve-right")):
        one, other = template(CLASS_NAMES.index(left)), template(CLASS_NAMES.index(right))
        assert np.abs(one - other[:, :, ::-1]).mean() < 0.01
        assert np.abs(one - other).mean() > 0.02


def test_a_sign_s_shape_stays_when_poses_and_backgrounds_are_averaged_away():
    images = np.stack([sign(15, np.random.default_rng(seed)) for seed in range(60)]).mean(0)
    white_middle, red_ring = images[14:18, 14:18], images[14:18, 5:8]
    assert np.ptp(white_middle.mean((0, 1))) < 0.1 * white_middle.mean()
    assert red_ring[..., 0].mean() > 1.2 * red_ring[..., 1:].mean()


def test_every_character_of_the_signs_has_strokes():
    assert set("2030506070801001202STOP") <= set(STROKES)


def test_a_sheet_keeps_coverage_and_colour_together():
    sheet = Sheet(128)
    sheet.box(-1.08, -1.08, 0.0, 1.08, (255, 0, 0))
    red, green, _, cover = sheet.reduced(32)
    assert cover[:, :15].min() == 1
    assert cover[:, 17:].max() == 0
    assert np.array_equal(red, cover)
    assert green.max() == 0
