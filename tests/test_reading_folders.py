"""Promises of read_samples: folders and lists in every shape, every image with its own label."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import folders, picture

from agnes.errors import UsageError
from agnes.reading import parts
from agnes.samples import read_samples


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
