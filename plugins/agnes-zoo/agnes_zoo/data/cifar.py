"""CIFAR-10 and CIFAR-100 as they are published: binary files, or Python's pickled batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agnes.errors import UsageError
from agnes.reading.parts import open_regular
from agnes.text import counted, printable
from agnes_zoo.data.dataset import Images, Parts
from agnes_zoo.data.pickles import read_batch

LAYOUT = "CIFAR-10 or CIFAR-100, binary or Python version (data_batch_1.bin, data_batch_1, train.bin, ...)"
_PLANES = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_MAX_BYTES = 2**30  # of one file of records


@dataclass(frozen=True)
class Version:
    """One published form of one of the two sets."""

    folder: str
    train: tuple[str, ...]
    test: str
    names: str  # the file of the class names
    labels: str | int  # the batches' key, or how many bytes of labels begin a record, the last of them ours
    names_key: str = ""

    def read(self, folder: Path) -> Parts:
        missing = [name for name in (*self.train, self.test) if not (folder / name).is_file()]
        if missing:
            raise UsageError(
                f"{printable(folder)}: no {', '.join(missing)}; unpack the whole of {self.folder} into the folder"
            )
        parts = [self._file(folder / name) for name in (*self.train, self.test)]
        images, labels = (np.concatenate(arrays) for arrays in zip(*parts[:-1], strict=True))
        return Parts((images, labels), parts[-1], self._class_names(folder))

    def _file(self, path: Path) -> Images:
        if isinstance(self.labels, int):
            return _records(path, self.labels)
        return _batch(path, self.labels)

    def _class_names(self, folder: Path) -> tuple[str, ...] | None:
        path = folder / self.names
        if not path.is_file():
            return None
        if self.names_key:
            found: Any = read_batch(path).get(self.names_key)
        else:
            with open_regular(path, most=2**20) as file:
                found = file.read().decode("latin-1").split("\n")
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise UsageError(f"{printable(path)}: no class names in it; take the original file")
        return tuple(printable(name.strip()) for name in found if name.strip())


_FIVE = tuple(f"data_batch_{number}" for number in range(1, 6))
VERSIONS = (
    Version("cifar-10-batches-bin", tuple(f"{n}.bin" for n in _FIVE), "test_batch.bin", "batches.meta.txt", 1),
    Version("cifar-100-binary", ("train.bin",), "test.bin", "fine_label_names.txt", 2),
    Version("cifar-10-batches-py", _FIVE, "test_batch", "batches.meta", "labels", "label_names"),
    Version("cifar-100-python", ("train",), "test", "meta", "fine_labels", "fine_label_names"),
)


def find(path: Path) -> list[tuple[Path, Version]]:
    """The versions that lie in a folder, or in folders of it under their published names."""
    places = [(path, version) for version in VERSIONS] + [(path / v.folder, v) for v in VERSIONS]
    return [(place, v) for place, v in places if any((place / n).is_file() for n in (*v.train, v.test))]


def read(path: Path, version: Version) -> Parts:
    return version.read(path)


def _records(path: Path, label_bytes: int) -> Images:
    """Records of labels and the red, green and blue plane of an image."""
    with open_regular(path, most=_MAX_BYTES) as file:
        data = np.frombuffer(file.read(), np.uint8)
    length = label_bytes + _PIXELS
    if not len(data) or len(data) % length:
        raise UsageError(
            f"{printable(path)}: {counted(len(data), 'byte')} are no whole records of {length}; unpack it again"
        )
    records = data.reshape(-1, length)
    return _upright(records[:, label_bytes:]), records[:, label_bytes - 1].astype(np.int64)


def _batch(path: Path, key: str) -> Images:
    found = read_batch(path)
    pixels, labels = found.get("data"), found.get(key)
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != _PIXELS:
        raise UsageError(f"{printable(path)}: no 'data' of {_PIXELS} bytes an image; take the original file")
    if (
        not isinstance(labels, list)
        or len(labels) != len(pixels)
        or not all(type(label) is int and 0 <= label < 1000 for label in labels)
    ):
        raise UsageError(f"{printable(path)}: no '{key}', one class number an image; take the original file")
    return _upright(pixels), np.array(labels, np.int64)


def _upright(rows: np.ndarray) -> np.ndarray:
    """N, 3072 planes as N, 32, 32, 3."""
    return np.ascontiguousarray(rows.reshape(-1, *_PLANES).transpose(0, 2, 3, 1))
