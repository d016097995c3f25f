"""CIFAR's published files, and pickles that only pretend to be one."""

import io
import os
import pickle
import struct

import numpy as np
import pytest
from agnes_zoo.data import dataset, pickles
from agnes_zoo.data.pickles import read_batch

from agnes.errors import AgnesError, Refused, UsageError

TEN = [f"class-{number}" for number in range(10)]
HUNDRED = [f"fine-{number}" for number in range(100)]


def pictures(count, start=0):
    """Images N, 32, 32, 3 and one label each."""
    rng = np.random.default_rng(start)
    return rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), [(start + i) % 10 for i in range(count)]


def planes(images):
    """Rows as CIFAR stores them: the red plane, the green, the blue."""
    return np.concatenate([images[..., channel].reshape(len(images), -1) for channel in range(3)], axis=1)


class Python2:
    """Writes a dictionary as cPickle of Python 2 does at protocol 2, which is how CIFAR was published."""

    def __init__(self):
        self.out, self.memo = io.BytesIO(), 0

    def put(self):
        self.out.write(b"q" + bytes([self.memo]) if self.memo < 256 else b"r" + struct.pack("<I", self.memo))
        self.memo += 1

    def text(self, value):
        short = len(value) < 256
        self.out.write((b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))) + value)
        self.put()

    def number(self, value):
        self.out.write(b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value))

    def list_of(self, values, write):
        self.out.write(b"]")
        self.put()
        self.out.write(b"(")
        for value in values:
            write(value)
        self.out.write(b"e")

    def array(self, rows):
        self.out.write(b"cnumpy.core.multiarray\n_reconstruct\n")
        self.put()
        self.out.write(b"cnumpy\nndarray\n")
        self.put()
        self.out.write(b"K\x00\x85")
        self.put()
        self.text(b"b")
        self.out.write(b"\x87")
        self.put()
        self.out.write(b"R")
        self.put()
        self.out.write(b"(K\x01")
        for length in rows.shape:
            self.number(length)
        self.out.write(b"\x86")
        self.put()
        self.out.write(b"cnumpy\ndtype\n")
        self.put()
        self.text(b"u1")
        self.out.write(b"K\x00K\x01\x87")
        self.put()
        self.out.write(b"R")
        self.put()
        self.out.write(b"(K\x03")
        self.text(b"|")
        self.out.write(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t")
        self.put()
        self.out.write(b"b\x89")
        self.text(rows.tobytes())
        self.out.write(b"t")
        self.put()
        self.out.write(b"b")

    def written(self, entries):
        self.out.write(b"\x80\x02}")
        self.put()
        self.out.write(b"(")
        for key, value in entries.items():
            self.text(key.encode())
            if isinstance(value, np.ndarray):
                self.array(value)
            elif isinstance(value, str):
                self.text(value.encode())
            elif isinstance(value[0], str):
                self.list_of([item.encode() for item in value], self.text)
            else:
                self.list_of(value, self.number)
        self.out.write(b"u.")
        return self.out.getvalue()


def python2(entries):
    return Python2().written(entries)


def ten_python(folder, write=python2):
    parts = {}
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        images, labels = parts[name] = pictures(3, number)
        entries = {
            "batch_label": f"batch {number}",
            "labels": labels,
            "data": planes(images),
            "filenames": [f"{i}_s.png" for i in range(3)],
        }
        (folder / name).write_bytes(write(entries))
    (folder / "batches.meta").write_bytes(write({"label_names": TEN}))
    return parts


def ten_binary(folder):
    parts = {}
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        images, labels = parts[name] = pictures(3, number)
        records = np.concatenate([np.array(labels, np.uint8)[:, None], planes(images)], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(TEN) + "\n\n")
    return parts


def hundred_python(folder):
    parts = {}
    for number, name in enumerate(["train", "test"]):
        images, labels = parts[name] = pictures(5, number)
        labels = [label * 9 for label in labels]
        parts[name] = images, labels
        (folder / name).write_bytes(
            python2({"fine_labels": labels, "coarse_labels": [1] * 5, "data": planes(images), "batch_label": name})
        )
    (folder / "meta").write_bytes(python2({"fine_label_names": HUNDRED, "coarse_label_names": ["a", "b"]}))
    return parts


def hundred_binary(folder):
    parts = {}
    for number, name in enumerate(["train", "test"]):
        images, labels = pictures(5, number)
        labels = [label * 9 for label in labels]
        parts[name] = images, labels
        heads = np.array([[19 - i, label] for i, label in enumerate(labels)], np.uint8)  # coarse, then fine
        (folder / f"{name}.bin").write_bytes(np.concatenate([heads, planes(images)], axis=1).tobytes())
    (folder / "fine_label_names.txt").write_text("\n".join(HUNDRED) + "\n")
    return parts


def python3(entries):
    """As somebody would write it today."""
    return pickle.dumps({key.encode(): value for key, value in entries.items()}, protocol=4)


@pytest.mark.parametrize(
    ("write", "names"),
    [
        (ten_python, TEN),
        (lambda folder: ten_python(folder, python3), TEN),
        (ten_binary, TEN),
        (hundred_python, HUNDRED),
        (hundred_binary, HUNDRED),
    ],
    ids=["10-python", "10-python-3", "10-binary", "100-python", "100-binary"],
)
def test_every_published_version_is_read_as_it_was_written(tmp_path, write, names):
    parts = write(tmp_path)
    data = dataset(str(tmp_path))
    *train, test = parts.values()
    assert np.array_equal(data.train_images, np.concatenate([images for images, _ in train]))
    assert data.train_labels.tolist() == [label for _, labels in train for label in labels]
    assert np.array_equal(data.test_images, test[0])
    assert data.test_labels.tolist() == test[1]
    assert data.class_names == tuple(names)
    assert data.shape == (3, 32, 32)


def test_a_folder_that_holds_the_published_one_is_enough(tmp_path):
    (tmp_path / "cifar-10-batches-bin").mkdir()
    ten_binary(tmp_path / "cifar-10-batches-bin")
    assert len(dataset(str(tmp_path)).train_images) == 15


def test_classes_without_names_are_numbered(tmp_path):
    ten_binary(tmp_path)
    (tmp_path / "batches.meta.txt").unlink()
    assert dataset(str(tmp_path)).class_names == tuple("01234567")  # as far as they occur


def test_what_is_missing_is_named(tmp_path):
    ten_binary(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    (tmp_path / "test_batch.bin").unlink()
    with pytest.raises(UsageError, match=r"no data_batch_3\.bin, test_batch\.bin; unpack the whole"):
        dataset(str(tmp_path))


def test_two_sets_in_one_folder_are_told_apart_by_the_user(tmp_path):
    for name, write in (("cifar-10-batches-bin", ten_binary), ("cifar-100-python", hundred_python)):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
    with pytest.raises(UsageError, match=r"more than one data set lies there .*cifar-10-batches-bin.*cifar-100-python"):
        dataset(str(tmp_path))
    assert dataset(str(tmp_path / "cifar-100-python")).class_names == tuple(HUNDRED)


def test_arrays_are_not_given_another_size(tmp_path):
    ten_binary(tmp_path)
    with pytest.raises(UsageError, match="arrays keep their size"):
        dataset(str(tmp_path), side=64)


@pytest.mark.parametrize("content", [b"", b"\x01" * 3072, b"\x01" * 3074])
def test_a_file_of_no_whole_records_is_refused(tmp_path, content):
    ten_binary(tmp_path)
    (tmp_path / "data_batch_2.bin").write_bytes(content)
    with pytest.raises(UsageError, match=r"data_batch_2\.bin: .* no whole records of 3073"):
        dataset(str(tmp_path))


@pytest.mark.parametrize(
    "entries",
    [
        {"labels": [1, 2]},
        {"labels": [1, 2], "data": np.zeros((2, 3071), np.uint8)},
        {"labels": [1], "data": np.zeros((2, 3072), np.uint8)},
        {"labels": ["a", "b"], "data": np.zeros((2, 3072), np.uint8)},
        {"labels": [1, 5000], "data": np.zeros((2, 3072), np.uint8)},
    ],
)
def test_a_batch_without_images_and_a_label_each_is_refused(tmp_path, entries):
    ten_python(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(python2(entries))
    with pytest.raises(UsageError, match=r"data_batch_1: no '(data|labels)'"):
        dataset(str(tmp_path))


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def refused(tmp_path, content):
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(AgnesError) as caught:
        read_batch(path)
    assert "\n" not in str(caught.value)
    assert "data_batch_1" in str(caught.value)
    return caught.value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (os.system, ("touch {mark}",), "system"),
        (eval, ("open({mark!r}, 'w')",), "eval"),
        (open, ("{mark}", "w"), "open"),
        (np.fromfile, ("{mark}",), "fromfile"),
        (getattr, (os, "system"), "getattr"),
    ],
    ids=["system", "eval", "open", "numpy", "getattr"],
)
def test_a_pickle_that_asks_for_anything_else_runs_nothing(tmp_path, function, arguments, named, protocol):
    mark = tmp_path / "mark"
    filled = tuple(a.format(mark=str(mark)) if isinstance(a, str) else a.__name__ for a in arguments)
    content = pickle.dumps({"data": Calls(function, *filled)}, protocol=protocol)
    error = refused(tmp_path, content)
    assert isinstance(error, Refused)
    assert named in str(error)
    assert not mark.exists()


def global_of(module, name):
    return f"c{module}\n{name}\n".encode()


RECONSTRUCT = global_of("numpy.core.multiarray", "_reconstruct")
NDARRAY, DTYPE = global_of("numpy", "ndarray"), global_of("numpy", "dtype")
EMPTY = RECONSTRUCT + NDARRAY + b"K\x00\x85U\x01b\x87R"


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}(U\x01a" + DTYPE + b"U\x01O\x85Ru.",  # an array of objects
        b"\x80\x02}(U\x01a" + EMPTY + b"(K\x01K\x05\x85" + DTYPE + b"U\x02f4\x85R\x89U\x00tbu.",
        b"\x80\x02}(U\x01a"
        + EMPTY
        + b"(K\x01\x8a\x06\xff\xff\xff\xff\xff\x00\x85"
        + DTYPE
        + b"U\x02u1\x85R\x89U\x00tbu.",
        b"\x80\x02}(U\x01a" + EMPTY + b"(K\x01K\x05\x85" + DTYPE + b"U\x02u1\x85R\x89]tbu.",
        b"\x80\x02}(U\x01a" + RECONSTRUCT + b"}U\x08__call__U\x00sbu.",  # a name given a state
        b"\x80\x02}(U\x01a" + RECONSTRUCT + b"N}U\x08__call__U\x00s\x86bu.",
        b"\x80\x02}(U\x01a" + NDARRAY + b"}bu.",
        b"\x80\x02]U\x01aa.",  # no dictionary
        b"\x80\x02K\x01.",
        b"\x80\x04\x96" + struct.pack("<Q", 2**40) + b".",  # room for a terabyte
        b"\x80\x02Nr\xff\xff\xff\xff.",  # an object numbered four thousand million
        b"\x80\x02}(U\x01a" + b"N" + b"\x85" * 100_000 + b"K\x01u.",  # tuples in tuples
        b"\x80\x02}(" + b")" + b"\x85" * 100_000 + b"K\x01u.",
        b"\x80\x02}(U\x01aU\xff",  # cut short
        b"",
        b"not a pickle",
        b"\x80\x02(U\x01xcos\nsystem\no.",
        b"\x80\x02(S'true'\nios\nsystem\n.",
        b"\x80\x02U\x01xQ.",
        b"\x80\x02\x82\x01.",
    ],
)
def test_hostile_instructions_are_refused_in_one_line(tmp_path, content):
    refused(tmp_path, content)


def test_what_a_pickle_may_name_is_never_numpy_itself():
    for module, name in pickles._NAMES:
        found = pickles._Reader(b"", "x").find_class(module, name)
        assert type(found).__module__ == "agnes_zoo.data.pickles"


def test_an_oversized_batch_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MAX_BYTES", 10)
    assert isinstance(refused(tmp_path, python2({"labels": [1]})), Refused)


def test_a_batch_with_any_byte_changed_is_read_or_refused_and_runs_nothing(tmp_path):
    images, labels = pictures(1)
    whole = python2({"labels": labels, "data": planes(images), "filenames": ["a.png"]})
    code = [i for i in range(len(whole)) if i < 250 or i > len(whole) - 60]  # the pixels may be anything
    rng = np.random.default_rng(0)
    path, refusals = tmp_path / "data_batch_1", 0
    for place in code:
        content = bytearray(whole)
        content[place] = rng.integers(256)
        path.write_bytes(content)
        try:
            found = read_batch(path)
        except AgnesError:
            refusals += 1
        else:
            kinds = {type(value) for value in found.values()}
            assert kinds <= {np.ndarray, list, str, int, type(None)}
    assert refusals > len(code) / 3
