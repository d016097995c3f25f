"""GTSRB's official folders, image folders and .npz files as training data."""

import json
import os

import numpy as np
import pytest
from agnes_zoo.data import dataset, gtsrb
from agnes_zoo.signs import CLASS_NAMES
from PIL import Image

from agnes.errors import UsageError

HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"


def photograph(path, colour, width=40, height=50, region=(5, 6, 34, 43)):
    """A black image, the region (both corners inside) of one colour."""
    pixels = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = region
    pixels[top : bottom + 1, left : right + 1] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return f"{path.name};{width};{height};{left};{top};{right};{bottom}"


def official(root, classes=(0, 14, 42), each=2, tests=3):
    """GTSRB as its three archives unpack."""
    for label in classes:
        folder = root / "Final_Training" / "Images" / f"{label:05d}"
        rows = [photograph(folder / f"00000_{i:05d}.ppm", (label, 100, 200)) + f";{label}" for i in range(each)]
        (folder / f"GT-{label:05d}.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    folder = root / "Final_Test" / "Images"
    rows = [photograph(folder / f"{i:05d}.ppm", (40 + i, 0, 0), 30, 30, (2, 2, 20, 20)) for i in range(tests)]
    (folder / "GT-final_test.test.csv").write_text("\n".join([HEADER.removesuffix(";ClassId"), *rows]) + "\n")
    (root / "GT-final_test.csv").write_text("\n".join([HEADER, *(f"{r};{40 + i}" for i, r in enumerate(rows))]) + "\n")
    return root


def test_gtsrb_s_signs_are_cropped_by_their_lists(tmp_path):
    data = dataset(str(official(tmp_path)))
    assert data.shape == (3, 32, 32)
    assert data.class_names == CLASS_NAMES
    assert data.train_labels.tolist() == [0, 0, 14, 14, 42, 42]
    assert data.test_labels.tolist() == [40, 41, 42]
    for images, labels, colour in (
        (data.train_images, data.train_labels, (100, 200)),
        (data.test_images, data.test_labels, (0, 0)),
    ):
        for image, label in zip(images, labels, strict=True):
            assert np.array_equal(image, np.broadcast_to((label, *colour), (32, 32, 3)))  # no black border left


@pytest.mark.parametrize("at", ["Final_Test/Images", "Final_Test", ".", ".."])
def test_the_test_labels_are_found_wherever_their_archive_was_unpacked(tmp_path, at):
    root = official(tmp_path / "data" / "GTSRB")
    (root / "GT-final_test.csv").rename(root / at / "GT-final_test.csv")
    assert len(dataset(str(root)).test_labels) == 3
    assert len(dataset(str(root.parent)).test_labels) == 3


def test_without_test_labels_whole_tracks_of_the_training_images_are_the_test(tmp_path):
    root = official(tmp_path)
    (root / "GT-final_test.csv").unlink()
    for label in (0, 14, 42):  # five signs of each class, three photographs of each
        folder = root / "Final_Training" / "Images" / f"{label:05d}"
        names = [f"{track:05d}_{i:05d}.ppm" for track in range(5) for i in range(3)]
        rows = [photograph(folder / name, (label, int(name[:5]), 200)) + f";{label}" for name in names]
        (folder / f"GT-{label:05d}.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    data = dataset(str(root))
    assert (len(data.train_labels), len(data.test_labels)) == (36, 9)
    tracks = [{tuple(image[0, 0]) for image in images} for images in (data.train_images, data.test_images)]
    assert not tracks[0] & tracks[1]
    assert sorted(label for label, _, _ in tracks[1]) == [0, 14, 42]
    assert any("no GT-final_test.csv" in note for note in data.notes)


def test_the_side_is_what_is_asked_for(tmp_path):
    assert dataset(str(official(tmp_path)), side=48).shape == (3, 48, 48)


def test_gtsrb_is_decoded_once_as_long_as_no_file_changes(tmp_path, monkeypatch):
    root = official(tmp_path)
    first = dataset(str(root)).digest
    calls = []
    read = gtsrb._images
    monkeypatch.setattr(gtsrb, "_images", lambda *all: calls.append(all) or read(*all))
    assert dataset(str(root)).digest == first
    assert not calls
    file = next(root.glob("Final_Training/Images/00000/*.ppm"))
    photograph(file, (9, 9, 9))
    os.utime(file, (1, 1))
    assert dataset(str(root)).digest != first
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("../../x.ppm;9;9;0;0;8;8;1", "is no file of the list's folder"),
        (";9;9;0;0;8;8;1", "is no file of the list's folder"),
        ("none.ppm;9;9;0;0;8;8;0", "listed, but not there"),
        ("00000_00000.ppm;9;9;0;0;8;8;43", "class 43, of 43"),
        ("00000_00000.ppm;9;9;0;0;8;x;0", "no whole number"),
        ("00000_00000.ppm;9;9", "no whole number"),
        ("00000_00000.ppm;9;9;0;0;900;8;0", "does not lie in 40x50"),
        ("00000_00000.ppm;9;9;8;0;2;8;0", "does not lie in 40x50"),
    ],
)
def test_a_list_that_is_not_gtsrb_s_is_refused(tmp_path, row, said):
    listed = official(tmp_path) / "Final_Training" / "Images" / "00000" / "GT-00000.csv"
    listed.write_text(f"{HEADER}\n{row}\n")
    with pytest.raises(UsageError, match=said):
        dataset(str(tmp_path))


def test_a_list_without_classes_is_told_so(tmp_path):
    root = official(tmp_path)
    (root / "Final_Test" / "Images" / "GT-final_test.test.csv").replace(root / "GT-final_test.csv")
    with pytest.raises(UsageError, match="no column ClassId"):
        dataset(str(root))


def picture(path, value, size=(8, 8), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(path)


def test_class_folders_are_a_data_set(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        for index in range(10):
            picture(tmp_path / name / f"{index}.png", 100 * label + index)
    data = dataset(str(tmp_path), seed=2)
    assert (data.class_names, data.shape) == (("cat", "dog"), (3, 8, 8))
    assert (np.bincount(data.train_labels).tolist(), np.bincount(data.test_labels).tolist()) == ([8, 8], [2, 2])
    for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
        assert np.array_equal(images[:, 0, 0, 0] // 100, labels)


def test_train_and_test_folders_stay_apart(tmp_path):
    for part, value in (("train", 1), ("test", 2)):
        for name in ("a", "b"):
            picture(tmp_path / part / name / "0.png", value)
    data = dataset(str(tmp_path))
    assert set(data.train_images[..., 0].ravel()) == {1}
    assert set(data.test_images[..., 0].ravel()) == {2}


@pytest.mark.parametrize(
    ("modes", "sizes", "side", "shape"),
    [
        (("L", "L"), ((8, 8), (8, 8)), None, (1, 8, 8)),
        (("L", "L"), ((8, 8), (9, 9)), None, (1, 32, 32)),
        (("L", "RGB"), ((8, 8), (9, 9)), None, (3, 32, 32)),
        (("RGB", "RGB"), ((8, 8), (8, 8)), 16, (3, 16, 16)),
        (("RGB", "RGB"), ((8, 6), (8, 6)), None, (3, 6, 8)),
    ],
)
def test_images_are_brought_to_one_size_and_one_number_of_channels(tmp_path, modes, sizes, side, shape):
    for index, (mode, size) in enumerate(zip(modes, sizes, strict=True)):
        picture(tmp_path / f"{index}" / "0.png", 5, size, mode)
    assert dataset(str(tmp_path), side=side).shape == shape


def test_images_without_labels_are_refused(tmp_path):
    picture(tmp_path / "0.png", 1)
    with pytest.raises(UsageError, match="images without labels"):
        dataset(str(tmp_path))


@pytest.mark.parametrize("name", ["empty", "packed.tar.gz", "packed.zip", "data_batch_1"])
def test_what_holds_no_data_set_is_told_what_would(tmp_path, name):
    path = tmp_path / name
    path.mkdir() if name == "empty" else path.write_bytes(b"x")
    said = {"empty": r"no images found.*CIFAR-10.*\.npz", "data_batch_1": "name the folder"}.get(name, "unpack it")
    with pytest.raises(UsageError, match=said) as caught:
        dataset(str(path))
    assert "\n" not in str(caught.value)


def arrays(count, classes=4, kind=np.uint8):
    rng = np.random.default_rng(count)
    pixels = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return (pixels if kind == np.uint8 else (pixels / 255).astype(kind)), np.arange(count) % classes


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_an_npz_in_two_parts_keeps_every_pixel(tmp_path, kind):
    (train, train_labels), (test, test_labels) = arrays(12, kind=kind), arrays(8, kind=kind)
    np.savez(
        tmp_path / "a.npz",
        train_images=train,
        train_labels=train_labels.astype(np.uint8),
        test_images=test,
        test_labels=test_labels,
    )
    data = dataset(str(tmp_path / "a.npz"))
    assert np.array_equal(data.train_images, arrays(12)[0])
    assert np.array_equal(data.test_images, arrays(8)[0])
    assert np.array_equal(data.train_labels, train_labels)
    assert np.array_equal(data.test_labels, test_labels)
    assert data.class_names == ("0", "1", "2", "3")


def test_an_npz_in_one_part_is_split_by_the_seed_and_named_by_the_file_beside_it(tmp_path):
    images, labels = arrays(40)
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    (tmp_path / "classes.json").write_text(json.dumps(["e", "f", "g", "h"]))
    one, again, other = (dataset(str(tmp_path / "a.npz"), seed=seed) for seed in (1, 1, 2))
    assert one.digest == again.digest != other.digest
    assert np.bincount(one.test_labels).tolist() == [2] * 4
    assert one.class_names == ("e", "f", "g", "h")


def test_an_npz_is_not_given_another_size(tmp_path):
    np.savez(tmp_path / "a.npz", images=arrays(8)[0], labels=arrays(8)[1])
    with pytest.raises(UsageError, match="arrays keep their size"):
        dataset(str(tmp_path / "a.npz"), side=9)


@pytest.mark.skipif("AGNES_GTSRB_NPZ" not in os.environ, reason="AGNES_GTSRB_NPZ names no .npz of real GTSRB images")
def test_real_traffic_signs_are_a_data_set():
    data = dataset(os.environ["AGNES_GTSRB_NPZ"], train=430, test=86)
    assert (data.class_count, data.channels) == (43, 3)
    assert np.bincount(data.train_labels).tolist() == [10] * 43
    assert np.bincount(data.test_labels).tolist() == [2] * 43
