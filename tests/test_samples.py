"""Promises of agnes.samples: every shape that images come in is read, and no hostile one gets through."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from agnes.errors import AgnesError, Refused, UsageError
from agnes.reading import arrays, parts
from agnes.samples import Samples, read_samples
from agnes.text import printable

RGB = (200, 100, 50)


def picture(path: Path, colour=RGB, size=(8, 8), mode="RGB", **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)
    return path


def folders(root: Path, names, each: int = 2) -> Path:
    """Class folders whose i-th class is painted in red i."""
    for i, name in enumerate(names):
        for j in range(each):
            picture(root / name / f"{j}.png", (i, j, 0))
    return root


def samples_of(labels, size=(3, 4, 4)) -> Samples:
    images = torch.rand((len(labels), *size), generator=torch.Generator().manual_seed(0))
    return Samples(images, torch.tensor(labels), source="mine")


# --- shapes that are read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "known", "labels", "class_names", "rule"),
    [
        (["cat", "ant"], None, [0, 0, 1, 1], ("ant", "cat"), "sorted"),
        (["00014", "00002"], None, [2, 2, 14, 14], None, "numbers"),
        (["10", "9"], None, [9, 9, 10, 10], None, "numbers"),
        (["2-stop", "0-go"], None, [0, 0, 2, 2], ("go", "1", "stop"), "numbers"),
        (["dog"], ["ant", "cat", "dog"], [2, 2], ("ant", "cat", "dog"), "names"),
        (["1", "2"], ["2", "1"], [0, 0, 1, 1], ("2", "1"), "names"),
        (["x", "y"], ["first", "second"], [0, 0, 1, 1], ("first", "second"), "sorted"),
        (["999999999", "3"], None, [0, 0, 1, 1], ("3", "999999999"), "sorted"),
        (["n01443537"], None, [0, 0], ("n01443537",), "sorted"),
    ],
)
def test_class_folders_are_numbered_by_one_stated_rule(tmp_path, names, known, labels, class_names, rule):
    found = read_samples(folders(tmp_path / "set", names), class_names=known)
    assert found.labels.tolist() == labels
    assert found.class_names == class_names
    assert found.label_rule == rule
    assert any(note.startswith("labels ") for note in found.notes)
    assert found.shape == (3, 8, 8)


def test_every_image_keeps_its_own_label(tmp_path):
    found = read_samples(folders(tmp_path / "set", ["a", "b", "c"], each=3))
    assert (found.images[:, 0, 0, 0] * 255).round().long().tolist() == found.labels.tolist()


def test_an_empty_class_folder_does_not_shift_the_others(tmp_path):
    root = folders(tmp_path / "set", ["a", "c"])
    (root / "b").mkdir()
    found = read_samples(root)
    assert found.labels.tolist() == [0, 0, 2, 2]
    assert "1 subfolder without images" in found.notes


def test_hidden_files_and_archive_leavings_are_not_there(tmp_path):
    root = folders(tmp_path / "set", ["a", "b"])
    (root / "a" / "._0.png").write_text("resource fork")
    picture(root / "__MACOSX" / "0.png")
    picture(root / ".cache" / "0.png")
    assert read_samples(root).class_names == ("a", "b")


def test_formats_that_are_not_read_are_counted(tmp_path):
    root = folders(tmp_path / "set", ["a"])
    (root / "a" / "x.gif").write_bytes(b"GIF89a")
    assert any("1 file of formats" in note and ".gif" in note for note in read_samples(root).notes)


@pytest.mark.parametrize("place", ["set/classes.json", "classes.json"])
def test_classes_json_in_or_beside_the_folder_names_the_classes(tmp_path, place):
    root = folders(tmp_path / "set", ["1", "2"])
    (tmp_path / place).write_text(json.dumps(["zero", "one\x1b[31m", "two"]))
    found = read_samples(root)
    assert found.labels.tolist() == [1, 1, 2, 2]
    assert found.class_names == ("zero", "one[31m", "two")
    assert any("classes.json" in note for note in found.notes)


def test_class_names_given_win_over_classes_json(tmp_path):
    root = folders(tmp_path / "set", ["a"])
    (root / "classes.json").write_text("broken")
    assert read_samples(root, class_names=["b", "a"]).labels.tolist() == [1, 1]


def test_a_flat_folder_and_a_single_image_have_no_labels(tmp_path):
    for i in range(3):
        picture(tmp_path / "flat" / f"{i}.png", (i, 0, 0))
    flat, single = read_samples(tmp_path / "flat"), read_samples(tmp_path / "flat" / "2.png")
    assert not flat.labelled
    assert not single.labelled
    assert (len(flat), len(single)) == (3, 1)
    assert torch.equal(flat.images[2], single.images[0])


@pytest.mark.parametrize("ending", ["png", "jpg", "JPEG", "bmp", "ppm", "webp"])
def test_every_listed_format_is_read(tmp_path, ending):
    found = read_samples(picture(tmp_path / f"x.{ending}", (128, 128, 128)))
    assert found.shape == (3, 8, 8)
    assert found.images.dtype == torch.float32
    assert torch.allclose(found.images, torch.tensor(128 / 255), atol=2 / 255)


def test_train_and_test_side_by_side_are_numbered_alike(tmp_path):
    folders(tmp_path / "set" / "train", ["ant", "bee", "cat"])
    folders(tmp_path / "set" / "test", ["cat"], each=1)
    folders(tmp_path / "set" / "val", ["ant"], each=1)
    found = read_samples(tmp_path / "set")
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.test is not None
    assert found.test.labels.tolist() == [2]
    assert found.test.class_names == ("ant", "bee", "cat")


def test_a_test_part_without_labels_is_left_out_and_said(tmp_path):
    folders(tmp_path / "set" / "train", ["ant"])
    picture(tmp_path / "set" / "test" / "0.png")
    found = read_samples(tmp_path / "set")
    assert found.test is None
    assert any("test/" in note for note in found.notes)


def gtsrb(root: Path, final_list: str = "Final_Test/Images/GT-final_test.csv") -> Path:
    head = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2"
    for label in (0, 14):
        folder = root / "Final_Training" / "Images" / f"{label:05d}"
        rows = [f"{head};ClassId"]
        for j in range(2):
            picture(folder / f"00000_0000{j}.ppm", (label, 0, 0), (20 + j, 25))
            rows.append(f"00000_0000{j}.ppm;20;25;5;5;15;15;{label}")
        (folder / f"GT-{label:05d}.csv").write_text("\r\n".join(rows))
    folder = root / "Final_Test" / "Images"
    for j, red in enumerate((14, 0)):
        picture(folder / f"0000{j}.ppm", (red, 0, 0), (30, 30))
    (folder / "GT-final_test.test.csv").write_text(f"{head}\n00000.ppm;30;30;5;5;9;9\n00001.ppm;30;30;5;5;9;9\n")
    (root / final_list).write_text(f"{head};ClassId\n00000.ppm;30;30;5;5;9;9;14\n00001.ppm;30;30;5;5;9;9;0\n")
    return root


@pytest.mark.parametrize("final_list", ["Final_Test/Images/GT-final_test.csv", "GT-final_test.csv"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_gtsrbs_official_folders_are_read_whole(tmp_path, final_list, wrapped):
    root = gtsrb(tmp_path / "up" / "GTSRB", final_list)
    found = read_samples(root.parent if wrapped else root, input_shape=(3, 32, 32))
    assert found.labels.tolist() == [0, 0, 14, 14]
    assert (found.images[:, 0, 0, 0] * 255).round().tolist() == [0, 0, 14, 14]
    assert found.test.labels.tolist() == [14, 0]
    assert (found.test.images[:, 0, 0, 0] * 255).round().tolist() == [14, 0]
    assert "resized 4 images to 32x32" in found.notes
    assert any("not cropped" in note for note in found.notes)
    found.check_against((3, 32, 32), 43)


@pytest.mark.parametrize(
    ("below", "labels"),
    [
        ("Final_Training", [0, 0, 14, 14]),
        ("Final_Training/Images", [0, 0, 14, 14]),
        ("Final_Training/Images/00014", [14, 14]),
        ("Final_Test", [14, 0]),
        ("Final_Test/Images/GT-final_test.csv", [14, 0]),
    ],
)
def test_any_of_gtsrbs_folders_may_be_named(tmp_path, below, labels):
    found = read_samples(gtsrb(tmp_path) / below, input_shape=(3, 16, 16))
    assert found.labels.tolist() == labels


@pytest.mark.parametrize(
    ("content", "labels", "count"),
    [
        ("path,label\na/0.png,4\nb/1.png,2\n", [4, 2], 2),
        ("a/0.png,4\nb/1.png,2\n", [4, 2], 2),
        ("Filename;ClassId\na/0.png;4\n\nb/1.png;2\n", [4, 2], 2),
        ("ClassId;Width;Path\n4;8;a/0.png\n", [4], 1),
        ("\ufeffpath\tclass\na/0.png\tdog\nb/1.png\tcat\n", [1, 0], 2),
        ('"path","label"\n"a/0.png",""\nb/1.png,\n', None, 2),
        ("a/0.png\nb/1.png\n", None, 2),
        ("path\n./a/../b/1.png\n", None, 1),
    ],
)
def test_csv_lists_in_every_spelling(tmp_path, content, labels, count):
    picture(tmp_path / "a" / "0.png")
    picture(tmp_path / "b" / "1.png")
    (tmp_path / "list.csv").write_text(content, encoding="utf-8")
    found = read_samples(tmp_path / "list.csv")
    assert (None if found.labels is None else found.labels.tolist()) == labels
    assert len(found) == count


def test_a_labels_csv_labels_the_flat_folder_it_lies_in(tmp_path):
    for i in range(3):
        picture(tmp_path / f"{i}.png", (i, 0, 0))
    (tmp_path / "labels.csv").write_text("filename,label\n2.png,7\n0.png,5\n")
    found = read_samples(tmp_path)
    assert found.labels.tolist() == [7, 5]
    assert any("left out 1 image" in note for note in found.notes)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 4),
    height=st.integers(4, 7),
    width=st.integers(4, 7),
    channels=st.sampled_from([1, 3]),
    layout=st.sampled_from(["NCHW", "NHWC", "NHW"]),
    dtype=st.sampled_from(["uint8", "<f4", ">f4", "f8", "f2"]),
    packed=st.booleans(),
    told=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_npz_arrays_are_taken_exactly_as_they_are(
    tmp_path, count, height, width, channels, layout, dtype, packed, told, seed
):
    channels = 1 if layout == "NHW" else channels
    bytes_ = np.random.default_rng(seed).integers(0, 256, (count, channels, height, width), dtype=np.uint8)
    stored = bytes_ if dtype == "uint8" else (bytes_ / 255).astype(dtype)
    expected = (stored / np.float32(255) if dtype == "uint8" else stored).astype(np.float32)
    laid = {"NCHW": stored, "NHWC": stored.transpose(0, 2, 3, 1), "NHW": stored[:, 0]}[layout]
    labels = np.arange(count)
    (np.savez_compressed if packed else np.savez)(tmp_path / "x.npz", images=laid, labels=labels)
    found = read_samples(tmp_path / "x.npz", input_shape=(channels, height, width) if told else None)
    assert np.array_equal(found.images.numpy(), expected)
    assert found.images.is_contiguous()
    assert found.labels.tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("names", "test"),
    [
        (("images", "labels"), None),
        (("x", "y"), None),
        (("X", "Y"), None),
        (("x_test", "y_test"), None),
        (("test_images", "test_labels"), None),
        (("arr_0", "arr_1"), None),
        (("images", "labels"), ("test_images", "test_labels")),
        (("x_train", "y_train"), ("x_test", "y_test")),
    ],
)
def test_npz_arrays_are_known_by_their_usual_names(tmp_path, names, test):
    zeros, ones = np.zeros((2, 4, 5, 3), np.uint8), np.full((1, 4, 5, 3), 255, np.uint8)
    held = {names[0]: zeros, names[1]: [3, 1]} | ({test[0]: ones, test[1]: [2]} if test else {})
    np.savez(tmp_path / "x.npz", **held)
    found = read_samples(tmp_path / "x.npz")
    assert found.labels.tolist() == [3, 1]
    assert found.shape == (3, 4, 5)
    assert (found.test is None) == (test is None)
    if found.test is not None:
        assert found.test.labels.tolist() == [2]
        assert found.test.images.min() == 1


def test_one_array_alone_is_the_images(tmp_path):
    np.savez(tmp_path / "x.npz", digits=np.zeros((2, 4, 5), np.uint8))
    found = read_samples(tmp_path / "x.npz")
    assert found.shape == (1, 4, 5)
    assert not found.labelled


@pytest.mark.parametrize("labels", [[[2], [0]], [[0, 0, 1], [1, 0, 0]], [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]])
def test_label_columns_and_one_hot_rows_are_understood(tmp_path, labels):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 4, 5, 3), np.uint8), y=np.array(labels))
    assert read_samples(tmp_path / "x.npz").labels.tolist() == [2, 0]


def test_the_networks_shape_settles_an_ambiguous_layout(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 3, 9, 1), np.uint8))
    assert read_samples(tmp_path / "x.npz", input_shape=(3, 9, 1)).shape == (3, 9, 1)
    assert read_samples(tmp_path / "x.npz", input_shape=(1, 3, 9)).shape == (1, 3, 9)


# --- pixels ----------------------------------------------------------------------------------------------------------


def test_grey_and_colour_are_fitted_to_the_network_and_said(tmp_path):
    picture(tmp_path / "set" / "0.png", 90, mode="L")
    picture(tmp_path / "set" / "1.png")
    colour, grey = (read_samples(tmp_path / "set", input_shape=(c, 8, 8)) for c in (3, 1))
    assert torch.equal(colour.images[0], torch.full((3, 8, 8), 90 / 255))
    luma = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)  # ITU-R 601
    assert torch.allclose(grey.images[1] * 255, torch.tensor(float(luma)), atol=1)
    assert "repeated the grey of 1 image to 3 channels" in colour.notes
    assert "turned the colours of 1 image to grey" in grey.notes


def test_images_of_grey_alone_stay_grey_and_one_of_colour_makes_all_colour(tmp_path):
    picture(tmp_path / "0.png", 90, mode="L")
    assert read_samples(tmp_path).shape == (1, 8, 8)
    picture(tmp_path / "1.png")
    assert read_samples(tmp_path).shape == (3, 8, 8)


def deep(path: Path) -> None:
    Image.fromarray(np.array([[0, 65535], [32768, 1]], np.uint16)).save(path)


def deep_pgm(path: Path) -> None:
    path.write_bytes(b"P5 2 2 65535\n" + struct.pack(">4H", 0, 65535, 32768, 1))


@pytest.mark.parametrize(("write", "name"), [(deep, "x.png"), (deep_pgm, "x.pgm")])
def test_sixteen_bits_keep_their_precision(tmp_path, write, name):
    write(tmp_path / name)
    found = read_samples(tmp_path / name)
    assert found.shape == (1, 2, 2)
    expected = torch.tensor([0, 65535, 32768, 1]) / 65535
    assert torch.allclose(found.images.flatten(), expected, atol=1e-7)


def test_sixteen_bits_stay_in_range_when_resized(tmp_path):
    Image.fromarray(np.full((7, 5), 65535, np.uint16)).save(tmp_path / "x.png")
    assert read_samples(tmp_path / "x.png", input_shape=(3, 3, 3)).images.min() > 0.9999


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_dropped_and_said(tmp_path, mode):
    image = Image.new("RGBA", (8, 8), (200, 200, 200, 0))
    if mode == "PA":
        image = Image.new("P", (8, 8))
        image.putpalette([200, 200, 200] * 4)
        image.save(tmp_path / "x.png", transparency=b"\x00\x10")
    else:
        image.convert(mode).save(tmp_path / "x.png")
    found = read_samples(tmp_path / "x.png", input_shape=(3, 8, 8))
    assert torch.allclose(found.images, torch.tensor(200 / 255))
    assert "dropped the transparency of 1 image" in found.notes


@pytest.mark.parametrize("mode", ["1", "P", "CMYK"])
def test_other_modes_are_converted(tmp_path, mode):
    name = "x.jpg" if mode == "CMYK" else "x.png"
    Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode).save(tmp_path / name)
    assert read_samples(tmp_path / name, input_shape=(3, 8, 8)).images.min() > 0.98


@pytest.mark.parametrize("told", [True, False])
def test_the_exif_orientation_is_respected(tmp_path, told):
    image = Image.new("RGB", (8, 4))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: the corner moves to the right
    image.save(tmp_path / "x.png", exif=exif)
    found = read_samples(tmp_path / "x.png", input_shape=(3, 8, 4) if told else None)
    assert found.shape == (3, 8, 4)
    assert found.images[0, :, 0, 3].tolist() == [1, 1, 1]
    assert found.images.sum() == 3


def test_resizing_averages_as_antialiasing_does(tmp_path):
    checks = (np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(checks).save(tmp_path / "x.png")
    found = read_samples(tmp_path / "x.png", input_shape=(1, 8, 8))
    assert torch.allclose(found.images[..., 1:-1, 1:-1], torch.tensor(0.5), atol=0.02)  # one pixel in four: 0 or 1
    assert "resized 1 image to 8x8" in found.notes


def test_reading_twice_gives_the_same(tmp_path):
    root = folders(tmp_path / "set", ["b", "a"])
    assert read_samples(root).sha256 == read_samples(root).sha256


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_a_limit_takes_every_class_in_turn(tmp_path, kind):
    root = folders(tmp_path / "set", ["0", "1", "2"], each=3)
    if kind == "npz":
        np.savez(tmp_path / "x.npz", x=np.zeros((9, 4, 4, 3), np.uint8), y=[0, 0, 0, 1, 1, 1, 2, 2, 2])
        root = tmp_path / "x.npz"
    assert read_samples(root, limit=3).labels.tolist() == [0, 1, 2]
    assert read_samples(root, limit=5).labels.tolist() == [0, 0, 1, 1, 2]
    assert "kept 5 of 9 images, as limited" in read_samples(root, limit=5).notes
    assert len(read_samples(root, limit=100)) == 9


def test_more_images_than_memory_name_the_limit_that_fits(tmp_path, monkeypatch):
    root = folders(tmp_path / "set", ["0", "1"])
    monkeypatch.setattr(parts, "MAX_VALUES", 3 * 8 * 8 * 3)
    with pytest.raises(UsageError, match="set a limit of 3 images or fewer"):
        read_samples(root)
    assert len(read_samples(root, limit=3)) == 3


# --- data that is wrong ----------------------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def npy(shape, descr: str, body: bytes = b"") -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
    return out.getvalue() + body


def npz(path: Path, *members: tuple[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", packing) as file:
        for name, body in members:
            file.writestr(name, body)
    return path


def object_npz(path: Path) -> Path:
    np.savez(path / "x.npz", images=np.array([{"a": 1}, None], dtype=object))
    return path / "x.npz"


def repeated_npz(path: Path) -> Path:
    one = ("images.npy", npy((1, 4, 4), "|u1", bytes(16)))
    with pytest.warns(UserWarning, match="Duplicate name"):
        return npz(path / "x.npz", one, one)


def text_as_png(path: Path) -> Path:
    (path / "x.png").write_text("not a picture")
    return path / "x.png"


def truncated(path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path / "x.png")
    (path / "x.png").write_bytes((path / "x.png").read_bytes()[:3000])
    return path / "x.png"


def file(name: str, content: bytes):
    def write(path: Path) -> Path:
        (path / name).write_bytes(content)
        return path / name

    return write


def fifo(path: Path) -> Path:
    os.mkfifo(path / "x.png")
    return path


def device_link(path: Path) -> Path:
    (path / "x.png").symlink_to("/dev/zero")
    return path


def listed(row: str):
    def write(path: Path) -> Path:
        outside = picture(path / "outside.png")
        (path / "set").mkdir()
        (path / "set" / "link.png").symlink_to(outside)
        (path / "set" / "list.csv").write_text(f"path,label\n{row.replace('HERE', str(path))},0\n")
        return path / "set" / "list.csv"

    return write


def eps(path: Path) -> Path:
    (path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    return path / "x.png"


HOSTILE = [
    ("objects in an npz", object_npz, Refused, "Python objects"),
    ("records in an npz", lambda p: npz(p / "x.npz", ("x.npy", npy((1,), "O"))), Refused, "Python objects"),
    ("a huge shape", lambda p: npz(p / "x.npz", ("x.npy", npy((10**6, 999, 999, 3), "|u1"))), Refused, "at most"),
    ("an absurd shape", lambda p: npz(p / "x.npz", ("x.npy", npy((10**30, 0), "|u1"))), UsageError, "absurd"),
    ("a shape it does not hold", lambda p: npz(p / "x.npz", ("x.npy", npy((9, 4, 4), "|u1"))), Refused, "stores 0"),
    ("an array twice", repeated_npz, Refused, "twice"),
    ("odd packing", lambda p: npz(p / "x.npz", ("x.npy", b""), packing=zipfile.ZIP_LZMA), Refused, "packed"),
    (
        "a header of code",
        lambda p: npz(p / "x.npz", ("x.npy", b"\x93NUMPY\x01\x00\x05\x00[]()(")),
        UsageError,
        "header",
    ),
    ("no zip", file("x.npz", b"PK nothing"), UsageError, "not a sound .npz"),
    ("177 MP declared", file("x.png", png_header(13300, 13300)), Refused, "million pixels"),
    ("26 MP declared", file("x.png", png_header(26000, 1000)), Refused, "26000x1000"),
    ("over Pillow's cap", file("x.png", png_header(30000, 30000)), Refused, "million pixels"),
    ("a fifo", fifo, Refused, "not a regular file"),
    ("a link to a device", device_link, Refused, "not a regular file"),
    ("climbing", listed("../outside.png"), Refused, "outside the list's folder"),
    ("absolute", listed("HERE/outside.png"), Refused, "outside the list's folder"),
    ("absolute, inside", listed("HERE/set/list.csv"), Refused, "outside the list's folder"),
    ("a drive", listed("C:\\x.png"), Refused, "outside the list's folder"),
    ("a link out", listed("link.png"), Refused, "outside the list's folder"),
    ("a null byte", listed("a\x00b.png"), UsageError, "not a path|not a CSV"),
    ("a missing file in a list", listed("gone.png"), UsageError, "no such file"),
    ("truncated", truncated, UsageError, "x.png: damaged image"),
    ("text", text_as_png, UsageError, "x.png: not an image"),
    ("PostScript", eps, UsageError, "x.png: not an image"),
    ("float pixels", file("x.ppm", b"Pf\n2 2\n-1.0\n" + bytes(16)), UsageError, "damaged image"),
]


@pytest.mark.parametrize(("write", "kind", "match"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_hostile_files_leave_with_one_line(tmp_path, write, kind, match):
    path = write(tmp_path)
    with pytest.raises(kind, match=match) as caught:
        read_samples(path, input_shape=(3, 8, 8) if path.suffix != ".npz" else None)
    assert len(str(caught.value).splitlines()) == 1


def test_a_bomb_is_refused_before_it_unfolds(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "BOMB_BYTES", 2**16)
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((100, 64, 64), np.uint8))
    with pytest.raises(Refused, match="packed into"):
        read_samples(tmp_path / "x.npz")


def test_damage_inside_a_zip_is_noticed(tmp_path):
    body = np.random.default_rng(0).integers(0, 256, 4 * 64 * 64, dtype=np.uint8).tobytes()
    path = npz(tmp_path / "x.npz", ("x.npy", npy((4, 64, 64), "|u1", body)), packing=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[5000] ^= 255
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"not a sound \.npz"):
        read_samples(path)


def test_an_image_far_too_large_on_disk_is_refused(tmp_path, monkeypatch):
    picture(tmp_path / "x.png")
    monkeypatch.setattr(parts.open_regular, "__defaults__", (10,))
    with pytest.raises(Refused, match="at most 10 bytes"):
        read_samples(tmp_path / "x.png")


def test_what_may_not_be_read_is_said(tmp_path, monkeypatch):
    picture(tmp_path / "x.png")

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(UsageError, match=r"x.png: cannot be read \(Permission denied\)"):
        read_samples(tmp_path / "x.png")


def arrays_file(**held):
    def write(path: Path) -> Path:
        np.savez(path / "x.npz", **held)
        return path / "x.npz"

    return write


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


ZEROS = np.zeros((2, 4, 5, 3), np.uint8)
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


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 5), (4, 4, 5)])
def test_arrays_are_never_resized(tmp_path, shape):
    path = arrays_file(images=ZEROS)(tmp_path)
    with pytest.raises(UsageError, match=r"images of 3x4x5, but the network takes .* a folder of image files"):
        read_samples(path, input_shape=shape)


def test_image_files_serve_no_network_of_four_channels(tmp_path):
    with pytest.raises(UsageError, match="takes 4 channels"):
        read_samples(picture(tmp_path / "x.png"), input_shape=(4, 8, 8))


@pytest.mark.parametrize("options", [{"limit": 0}, {"input_shape": (3, 8)}, {"input_shape": (0, 8, 8)}])
def test_impossible_requests_are_refused(tmp_path, options):
    with pytest.raises(UsageError):
        read_samples(picture(tmp_path / "x.png"), **options)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ending=st.sampled_from([".png", ".jpg", ".npz", ".csv", ".ppm"]), cut=st.data())
def test_damage_anywhere_is_an_agnes_error_or_no_harm(tmp_path, ending, cut):
    path = tmp_path / f"x{ending}"
    if ending == ".npz":
        np.savez_compressed(path, images=ZEROS, labels=[0, 1])
    elif ending == ".csv":
        picture(tmp_path / "a.png")
        path.write_text("path,label\na.png,1\n")
    else:
        picture(path)
    content = bytearray(path.read_bytes())
    for _ in range(cut.draw(st.integers(1, 3))):
        content[cut.draw(st.integers(0, len(content) - 1))] = cut.draw(st.integers(0, 255))
    path.write_bytes(content[: cut.draw(st.integers(0, len(content)))])
    try:
        found = read_samples(path, input_shape=(3, 4, 5))
    except AgnesError as error:
        lines = str(error).splitlines()
    else:
        lines = [found.source]
        assert found.shape == (3, 4, 5)
    assert len(lines) == 1


# --- names -----------------------------------------------------------------------------------------------------------


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


# --- Samples ---------------------------------------------------------------------------------------------------------


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
