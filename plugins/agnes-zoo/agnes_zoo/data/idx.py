"""MNIST, FashionMNIST and their like: idx files, packed by gzip or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from agnes.errors import UsageError
from agnes.reading.parts import check_total, open_regular
from agnes.text import printable
from agnes_zoo.data.dataset import Images, Parts

LAYOUT = "MNIST or FashionMNIST, idx files (train-images-idx3-ubyte[.gz], ...)"
FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")

_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_BELOW = ("", "raw", "MNIST/raw", "FashionMNIST/raw")  # where torchvision unpacks them
_UNSIGNED_BYTES = 0x08
_MAX_BYTES = 2**31


def find(path: Path) -> list[tuple[Path, str]]:
    """The folders, the one named or in it, that hold idx files; and whether they are of clothes or digits."""
    found = []
    for below in _BELOW:
        place = path / below
        if any(_file(place, name) is not None for name in _FILES):
            found.append((place, "fashion" if "fashion" in str(place.absolute()).lower() else ""))
    return found


def read(path: Path, kind: str) -> Parts:
    files = {name: _file(path, name) for name in _FILES}
    missing = [name for name, file in files.items() if file is None]
    if missing:
        raise UsageError(f"{printable(path)}: no {', '.join(missing)} (or .gz); put the four files into the folder")
    arrays = [_array(file) for file in files.values() if file is not None]
    parts = [_part(path, images, labels) for images, labels in (arrays[:2], arrays[2:])]
    return Parts(parts[0], parts[1], FASHION if kind else None)


def _file(folder: Path, name: str) -> Path | None:
    """The file as published, unpacked or not, or as some mirrors spell it."""
    for spelt in (name, name.replace("-idx", ".idx")):
        for ending in ("", ".gz"):
            if (folder / f"{spelt}{ending}").is_file():
                return folder / f"{spelt}{ending}"
    return None


def _part(folder: Path, images: np.ndarray, labels: np.ndarray) -> Images:
    if images.ndim != 3 or labels.shape != (len(images),):
        raise UsageError(
            f"{printable(folder)}: images of shape {images.shape} and labels of shape {labels.shape}; take files that "
            "belong together"
        )
    return images[..., None], labels.astype(np.int64)


def _array(path: Path) -> np.ndarray:
    """The bytes of an idx file in their shape."""
    with open_regular(path, most=_MAX_BYTES) as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            if packed:
                with gzip.open(file) as unpacked:
                    return _bytes(unpacked, path)  # type: ignore[arg-type]
            return _bytes(file, path)
        except (OSError, EOFError, zlib.error, struct.error) as error:
            raise UsageError(f"{printable(path)}: damaged ({printable(error, 60)}); fetch it again") from error


def _bytes(file: IO[bytes], path: Path) -> np.ndarray:
    source = printable(path)
    zeros, kind, dimensions = struct.unpack(">HBB", file.read(4))
    if zeros or kind != _UNSIGNED_BYTES or dimensions not in (1, 3):
        raise UsageError(f"{source}: not an idx file of bytes; take the original file")
    shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
    check_total(shape[0], shape[1:] or (1,), source)
    length = math.prod(shape)
    content = file.read(length + 1)
    if len(content) != length:
        raise UsageError(f"{source}: declares {length} bytes and holds others; fetch it again")
    return np.frombuffer(content, np.uint8).reshape(shape)
