"""The one shape of all data sets, and how they are chosen."""

import numpy as np
import pytest
from agnes_zoo import signs as drawing
from agnes_zoo.data import NAMES, Dataset, choosing, dataset
from agnes_zoo.data.dataset import Parts, assembled, drawn, split

from agnes.errors import UsageError


def images(count, side=4, channels=3):
    return (np.arange(count * side * side * channels) % 251).astype(np.uint8).reshape(count, side, side, channels)


def made(**changes):
    parts = {
        "train_images": images(6),
        "train_labels": np.array([0, 1, 2, 0, 1, 2]),
        "test_images": images(3),
        "test_labels": np.array([2, 1, 0]),
    }
    return Dataset("mine", **{**parts, **changes}, class_names=("a", "b", "c"))


def numbered(per_class, classes=5):
    """Images whose first pixel is their index."""
    labels = np.repeat(np.arange(classes), per_class)
    pixels = np.zeros((len(labels), 2, 2, 1), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(len(labels))
    return pixels, labels


def test_a_data_set_knows_its_shape():
    data = made(train_images=images(6, 5, 1), test_images=images(3, 5, 1))
    assert (data.shape, data.channels, data.size, data.class_count) == ((1, 5, 5), 1, (5, 5), 3)


def test_the_digest_follows_every_array_and_nothing_else():
    changes = [
        {"train_images": images(6) ^ 1},
        {"train_labels": np.array([0, 1, 2, 0, 2, 1])},
        {"test_images": images(3) ^ 1},
        {"test_labels": np.array([0, 1, 2])},
    ]
    digests = [made(**change).digest for change in ({}, *changes)]
    assert len(set(digests)) == 5
    assert made().digest == digests[0]
    assert len(digests[0]) == 64


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_images": images(6).astype(np.float32)}, "training images: float32 of shape"),
        ({"train_images": images(6)[..., :2]}, "1 or 3 channels"),
        ({"test_labels": np.array([2, 1])}, "test images: 3, with labels int64 of shape"),
        ({"test_labels": np.array([2, 1, 3])}, "a label is 3, but there are 3 classes"),
        ({"train_labels": np.array([0, 1, 2, 0, 1, -1])}, "a label is -1"),
        ({"test_images": images(3, 8)}, "bring them to one size"),
        ({"test_images": images(0), "test_labels": np.array([], np.int64)}, "there are none"),
    ],
)
def test_what_does_not_fit_together_is_refused_in_one_line(changes, said):
    with pytest.raises(UsageError, match=said) as caught:
        made(**changes)
    assert "\n" not in str(caught.value)


def test_a_split_puts_every_image_into_one_part_and_each_class_in_proportion():
    pixels, labels = numbered(10)
    (train, train_labels), (test, test_labels) = split("mine", pixels, labels, seed=3)
    both = np.concatenate([train, test])[:, 0, 0, 0]
    assert sorted(both) == list(range(50))
    assert np.bincount(test_labels).tolist() == [2] * 5
    for part, known in ((train, train_labels), (test, test_labels)):
        assert np.array_equal(labels[part[:, 0, 0, 0]], known)


def test_a_split_follows_its_seed():
    pixels, labels = numbered(10)
    tests = [split("mine", pixels, labels, seed)[1][0][:, 0, 0, 0].tolist() for seed in (0, 0, 1)]
    assert tests[0] == tests[1] != tests[2]


def test_one_image_cannot_be_split():
    with pytest.raises(UsageError, match="1 image cannot be a training and a test part"):
        split("mine", *numbered(1, 1), seed=0)


def test_unnamed_classes_are_numbered_and_a_drawn_test_part_is_said():
    data = assembled("mine", Parts(numbered(10)), seed=4)
    assert data.class_names == ("0", "1", "2", "3", "4")
    assert data.notes == ("20% of the images are the test part, drawn by seed 4",)
    assert not assembled("mine", Parts(numbered(2), numbered(1)), seed=4).notes


def test_some_of_the_images_are_drawn_class_by_class_in_turn():
    data = assembled("mine", Parts(numbered(20), numbered(10)), seed=0)
    some = drawn(data, seed=1, train=12, test=5)
    assert sorted(np.bincount(some.train_labels)) == [2, 2, 2, 3, 3]
    assert np.bincount(some.test_labels).tolist() == [1] * 5
    taken = some.train_images[:, 0, 0, 0]
    assert len(set(taken)) == 12
    assert np.array_equal(data.train_labels[taken], some.train_labels)
    assert not np.array_equal(taken, drawn(data, seed=2, train=12, test=5).train_images[:, 0, 0, 0])
    assert drawn(data, 1, None, None).digest == data.digest


@pytest.mark.parametrize("wanted", [0, -1, 101])
def test_more_images_than_there_are_cannot_be_drawn(wanted):
    data = assembled("mine", Parts(numbered(20), numbered(10)), seed=0)
    with pytest.raises(UsageError, match=f"mine: training images: {wanted} asked for, of 100"):
        drawn(data, 0, wanted, None)


def test_the_signs_are_a_data_set_by_name_of_any_size():
    data = dataset("signs", seed=5, train=100, test=50)
    assert (data.name, data.shape, data.class_names) == ("signs", (3, 32, 32), drawing.CLASS_NAMES)
    drawn_now = drawing.stream(100, 5), drawing.stream(50, 5, drawing.TEST)
    assert np.array_equal(data.train_images, drawn_now[0][0])
    assert np.array_equal(data.train_labels, drawn_now[0][1])
    assert np.array_equal(data.test_images, drawn_now[1][0])
    assert np.array_equal(data.test_labels, drawn_now[1][1])


def test_the_signs_are_200_a_class_and_40_for_the_test_unless_asked_otherwise(monkeypatch):
    asked = []
    monkeypatch.setattr(choosing, "stream", lambda count, *rest: asked.append(count) or drawing.stream(43, *rest))
    dataset("signs", seed=123)
    dataset("signs10", seed=123)
    assert asked == [8600, 1720, 2000, 400]


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("signs", (3, 32, 32), 43),
        ("signs10", (3, 32, 32), 10),
        ("signs-grey", (1, 28, 28), 43),
        ("signs10-grey", (1, 28, 28), 10),
    ],
)
def test_every_kind_of_signs_has_its_shape_and_classes(name, shape, classes):
    data = dataset(name, train=classes, test=classes)
    assert data.shape == shape
    assert data.class_count == classes
    assert sorted(data.train_labels) == list(range(classes))
    assert set(data.class_names) <= set(drawing.CLASS_NAMES)
    assert name in NAMES


def test_signs_can_be_larger():
    assert dataset("signs10", train=10, test=10, side=48).shape == (3, 48, 48)


def test_signs_are_drawn_once_and_again_when_what_draws_them_changes(monkeypatch):
    counts = []
    monkeypatch.setattr(choosing, "stream", lambda *all: counts.append(all) or drawing.stream(*all))
    first = dataset("signs", seed=77, train=43, test=43).digest
    assert dataset("signs", seed=77, train=43, test=43).digest == first
    assert len(counts) == 2
    monkeypatch.setattr(choosing, "fingerprint", lambda: "another way of drawing")
    assert dataset("signs", seed=77, train=43, test=43).digest == first
    assert len(counts) == 4


def test_the_fingerprint_is_of_every_module_that_the_signs_import():
    names = {name.rpartition(".")[2] for name in vars(drawing) if name.startswith("agnes_zoo")}
    text = "".join((choosing.resources.files("agnes_zoo") / f"{m}.py").read_text() for m in choosing._DRAWN_BY)
    imported = {line.split()[1].rpartition(".")[2] for line in text.splitlines() if line.startswith("from agnes_zoo.")}
    assert imported | names <= set(choosing._DRAWN_BY)
    assert imported


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sings", "there is no data set 'sings', nor a file or folder of that name; did you mean 'signs'"),
        ("nowhere/at/all", "CIFAR-10"),
        ("nowhere/at/all", "GTSRB's official folders"),
        ("nowhere/at/all", "train-images-idx3-ubyte"),
    ],
)
def test_an_unknown_name_is_told_what_there_is(name, said):
    with pytest.raises(UsageError, match=said):
        dataset(name)


@pytest.mark.parametrize(("options", "said"), [({"seed": -1}, "seed -1"), ({"side": 0}, "images of side 0")])
def test_absurd_options_are_refused(options, said):
    with pytest.raises(UsageError, match=said):
        dataset("signs", **options)


def test_a_part_of_no_signs_is_refused():
    with pytest.raises(UsageError, match="signs: test images: there are none"):
        dataset("signs", train=43, test=0)
