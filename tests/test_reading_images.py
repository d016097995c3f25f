"""Promises of read_samples: pixels keep their worth, whatever the format."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import folders, picture
from PIL import Image

from agnes.errors import UsageError
from agnes.samples import read_samples


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


def test_image_files_serve_no_network_of_four_channels(tmp_path):
    with pytest.raises(UsageError, match="takes 4 channels"):
        read_samples(picture(tmp_path / "x.png"), input_shape=(4, 8, 8))


@pytest.mark.parametrize("options", [{"limit": 0}, {"input_shape": (3, 8)}, {"input_shape": (0, 8, 8)}])
def test_impossible_requests_are_refused(tmp_path, options):
    with pytest.raises(UsageError):
        read_samples(picture(tmp_path / "x.png"), **options)
