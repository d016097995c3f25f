"""Promises of read_samples: data that is wrong is told with a remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import ZEROS, arrays_file, file, folders, picture

from agnes.errors import UsageError
from agnes.samples import read_samples


def listing(content: str):
    return file("x.csv", content.encode())


def mixed_sizes(path: Path) -> Path:
    picture(path / "0.png")
    picture(path / "1.png", size=(9, 8))
    return path


def two_of_one_number(path: Path) -> Path:
    return folders(path / "set", ["1-a", "01-b"])


def half_known(path: Path) -> Path:
    (path / "classes.json").write_text('["ant", "bee"]')
    return folders(path / "set", ["ant", "eel"])


def other_count(path: Path) -> Path:
    (path / "classes.json").write_text('["ant", "bee"]')
    return folders(path / "set", ["x", "y", "z"])


def few_names(path: Path) -> Path:
    (path / "classes.json").write_text('["ant", "bee"]')
    return folders(path / "set", ["5"])


def bad_names(path: Path) -> Path:
    (path / "classes.json").write_text('{"a": 1}')
    return folders(path / "set", ["a"])


def empty(path: Path) -> Path:
    (path / "a").mkdir()
    return path


def gifs(path: Path) -> Path:
    (path / "x.gif").write_bytes(b"GIF89a")
    return path


WRONG = [
    ("missing", lambda p: p / "gone", "gone: no such file or folder; give a folder"),
    ("empty folder", empty, "no images found; give a folder of images"),
    ("only gifs", gifs, "convert them to PNG"),
    ("a gif", lambda p: gifs(p) / "x.gif", "convert the image"),
    ("some other file", file("x.txt", b"hello"), "not a kind of file"),
    ("sizes differ", mixed_sizes, "images differ in size"),
    ("a number twice", two_of_one_number, "two class folders have the number 1"),
    ("names known by half", half_known, "'eel' is not among the known class names"),
    ("names of another count", other_count, "none in common"),
    ("fewer names than labels", few_names, "class counts disagree"),
    ("classes.json is no list", bad_names, "not a list of class names"),
    ("an empty list", listing("\n\n"), "an empty list"),
    ("a header alone", listing("path,label\n"), "a header and no images"),
    ("no path column", listing("size,label\n3,4\n"), "no column holds the images"),
    ("a row without label", listing("a.png,1\nb.png,\n"), "line 2: no label"),
    ("a row without path", listing("path,label\n,1\n"), "line 2: no path"),
    ("a negative label", listing("a.png,-1\n"), "'-1' is not a class number"),
    ("a fractional label", listing("a.png,3.0\n"), "'3.0' is not a class number"),
    ("numbers and names mixed", listing("a.png,3\nb.png,cat\n"), "'cat' is not a class number"),
    ("not text", file("x.csv", b"\xff\xfe\x00"), "not a CSV list"),
    ("no images in npz", arrays_file(a=ZEROS, b=ZEROS), r"no images among its arrays \(a, b\)"),
    ("zero images", arrays_file(images=ZEROS[:0]), "no images; store at least one"),
    ("floats to 255", arrays_file(images=ZEROS + 200.0), "divide by 255"),
    ("negative floats", arrays_file(images=ZEROS - 0.5), "scale or clip"),
    ("NaN", arrays_file(images=ZEROS + np.nan), "NaN"),
    ("integers", arrays_file(images=ZEROS.astype(int)), "pixels of type int64; store uint8"),
    ("flat rows", arrays_file(images=ZEROS.reshape(2, -1)), "store images x height x width x channels"),
    ("no channels to tell", arrays_file(images=np.zeros((2, 5, 6, 7), np.uint8)), "cannot tell the channels"),
    ("labels too few", arrays_file(images=ZEROS, labels=[1]), "2 images and 1 labels"),
    ("negative labels", arrays_file(images=ZEROS, labels=[1, -1]), "a label is -1"),
    ("fractional labels", arrays_file(images=ZEROS, labels=[0.5, 1]), "store one whole number an image"),
    ("word labels", arrays_file(images=ZEROS, labels=["a", "b"]), "store one whole number an image"),
]


@pytest.mark.parametrize(("write", "match"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_wrong_data_is_told_with_a_remedy(tmp_path, write, match):
    with pytest.raises(UsageError, match=match) as caught:
        read_samples(write(tmp_path))
    assert len(str(caught.value).splitlines()) == 1
