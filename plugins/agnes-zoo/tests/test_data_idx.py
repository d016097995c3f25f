"""MNIST's and FashionMNIST's files."""

import gzip
import struct

import numpy as np
import pytest
from agnes_zoo.data import dataset, idx

from agnes.errors import UsageError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def packed(array):
    """Two zero bytes, the type of the numbers, how many dimensions, each length, the numbers."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def four(folder, names=NAMES, ending=""):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        np.arange(20, dtype=np.uint8) % 10,
        rng.integers(0, 256, (10, 28, 28), dtype=np.uint8),
        np.arange(10, dtype=np.uint8)[::-1].copy(),
    ]
    for name, array in zip(names, arrays, strict=True):
        content = packed(array)
        (folder / f"{name}{ending}").write_bytes(gzip.compress(content) if ending else content)
    return arrays


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("dotted", [False, True])
def test_the_four_files_are_read_as_they_were_written(tmp_path, ending, dotted):
    arrays = four(tmp_path, [name.replace("-idx", ".idx") if dotted else name for name in NAMES], ending)
    data = dataset(str(tmp_path))
    assert data.shape == (1, 28, 28)
    for found, written in zip(
        (data.train_images[..., 0], data.train_labels, data.test_images[..., 0], data.test_labels), arrays, strict=True
    ):
        assert np.array_equal(found, written)
    assert data.class_names == tuple("0123456789")


@pytest.mark.parametrize("below", ["raw", "MNIST/raw"])
def test_torchvision_s_folders_are_looked_into(tmp_path, below):
    four(tmp_path / below)
    assert len(dataset(str(tmp_path)).train_images) == 20


def test_clothes_have_names(tmp_path):
    four(tmp_path / "FashionMNIST" / "raw", ending=".gz")
    assert dataset(str(tmp_path)).class_names[9] == "ankle-boot"
    assert dataset(str(tmp_path / "FashionMNIST" / "raw")).class_names[0] == "t-shirt"


def test_a_missing_file_is_named(tmp_path):
    four(tmp_path)
    (tmp_path / NAMES[3]).unlink()
    with pytest.raises(UsageError, match=rf"no {NAMES[3]} \(or \.gz\)"):
        dataset(str(tmp_path))


def test_one_file_of_a_set_is_told_to_be_one(tmp_path):
    four(tmp_path)
    with pytest.raises(UsageError, match="one file of a data set; name the folder"):
        dataset(str(tmp_path / NAMES[0]))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\x00\x08",
        b"\x00\x00\x0d\x01" + struct.pack(">I", 1) + b"\x00" * 4,  # floats
        b"\x01\x00\x08\x01" + struct.pack(">I", 1) + b"\x00",
        b"\x00\x00\x08\x02" + struct.pack(">II", 1, 1) + b"\x00",
        b"\x00\x00\x08\x01" + struct.pack(">I", 20) + b"\x00" * 19,
        b"\x00\x00\x08\x01" + struct.pack(">I", 20) + b"\x00" * 21,
        b"\x00\x00\x08\x03" + struct.pack(">III", *(2**31,) * 3),
        b"\x00\x00\x08\x01" + struct.pack(">I", 2**32 - 1),
        gzip.compress(packed(np.zeros(20, np.uint8)), mtime=0)[:-6],
        b"\x1f\x8bnot gzip at all",
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, content):
    four(tmp_path)
    (tmp_path / NAMES[1]).write_bytes(content)
    with pytest.raises(UsageError, match=NAMES[1]) as caught:
        dataset(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_small_file_that_unpacks_to_much_is_read_no_further_than_it_declares(tmp_path):
    four(tmp_path)
    header = struct.pack(">HBBI", 0, 8, 1, 20)
    (tmp_path / NAMES[1]).write_bytes(gzip.compress(header + bytes(50_000_000)))
    with pytest.raises(UsageError, match="declares 20 bytes and holds others"):
        dataset(str(tmp_path))


def test_labels_of_another_set_are_refused(tmp_path):
    four(tmp_path)
    (tmp_path / NAMES[1]).write_bytes(packed(np.zeros(19, np.uint8)))
    with pytest.raises(UsageError, match="take files that belong together"):
        dataset(str(tmp_path))


def test_the_names_are_those_of_the_files():
    assert idx._FILES == NAMES
