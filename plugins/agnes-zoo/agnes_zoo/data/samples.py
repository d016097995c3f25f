"""Whatever else the engine reads: image folders, lists and .npz files, as training data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from agnes.errors import UsageError
from agnes.reading.folders import list_folder
from agnes.reading.images import opened
from agnes.samples import Samples, read_samples
from agnes.text import printable
from agnes_zoo.data.dataset import Images, Parts

LAYOUTS = (
    "a folder of images, one folder per class, with train/ and test/ or without",
    "an .npz of train_images, train_labels, test_images and test_labels, or of images and labels",
)
SIDE = 32  # of images that differ in size, unless asked otherwise


def read(path: Path, side: int | None = None) -> Parts:
    if path.suffix.lower() == ".npz":
        check_size_is_free(path, side)
    samples = read_samples(path, input_shape=_shape(path, side))
    if samples.labels is None:
        raise UsageError(f"{printable(path)}: images without labels; put them in one folder per class")
    test = None if samples.test is None or samples.test.labels is None else _images(samples.test)
    return Parts(_images(samples), test, samples.class_names, samples.notes)


def check_size_is_free(path: Path, side: int | None) -> None:
    """Arrays have their size, and no other is given to them."""
    if side is not None:
        raise UsageError(f"{printable(path)}: arrays keep their size; leave the side of {side} out or resize them")


def _images(samples: Samples) -> Images:
    assert samples.labels is not None
    pixels = (samples.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return np.ascontiguousarray(pixels.numpy()), samples.labels.numpy()


def _shape(path: Path, side: int | None) -> tuple[int, int, int] | None:
    """What images of several sizes are brought to; None where all agree."""
    if not path.is_dir():
        return None if side is None else (3, side, side)
    listing = list_folder(path, None, printable(path))
    sizes, colour = set(), False
    for file in listing.files:
        with opened(file) as image:
            sizes.add(image.size)
            colour |= image.mode not in ("1", "L", "LA", "I;16", "I")
        if len(sizes) > 1 and colour:
            break
    if side is None and len(sizes) == 1:
        return None
    return (3 if colour else 1), side or SIDE, side or SIDE
