"""Arrays in an .npz. The zip is checked before a byte of an array is read; nothing is ever unpickled."""

from __future__ import annotations

import contextlib
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch

from agnes.errors import AgnesError, Refused, UsageError
from agnes.reading.parts import Part, Size, check_total, limit_note, open_regular, spread
from agnes.text import printable

MAX_FILE_BYTES = 64 * 2**30
MAX_ARRAY_BYTES = 4 * 2**30  # declared size of one array
MAX_MEMBERS = 1000
BOMB_BYTES, BOMB_RATIO = 64 * 2**20, 200  # a large array that shrinks this much is no set of photographs

# names by which people store arrays, most telling first
_IMAGES = ("images", "x", "train_images", "x_train", "data", "arr_0")
_LABELS = ("labels", "y", "train_labels", "y_train", "targets", "label", "arr_1")
_TEST_IMAGES = ("test_images", "x_test", "images_test")
_TEST_LABELS = ("test_labels", "y_test", "labels_test")


@dataclass(frozen=True)
class Archive:
    """An opened .npz: its arrays by lower-case name."""

    zip: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]
    source: str

    def first(self, names: tuple[str, ...]) -> str | None:
        return next((name for name in names if name in self.members), None)

    def array(self, name: str) -> np.ndarray:
        """One array, read only when its declared type and size are what its storage can hold."""
        info, source = self.members[name], f"{self.source}: {printable(name, 40)}"
        with self.zip.open(info) as file:
            shape, dtype = _declared(file)
            size, stored = math.prod(shape) * dtype.itemsize, info.file_size - file.tell()
            if dtype.hasobject or dtype.names is not None:
                raise Refused(f"{source}: holds Python objects or records, not numbers; store a plain array")
            if size > MAX_ARRAY_BYTES:
                raise Refused(
                    f"{source}: declares {size} bytes; AGNES reads at most {MAX_ARRAY_BYTES}; store fewer images"
                )
            if size != stored:
                raise Refused(f"{source}: declares {size} bytes and stores {stored}; write it again with numpy.savez")
            if size > BOMB_BYTES and size > BOMB_RATIO * info.compress_size:
                raise Refused(f"{source}: {size} bytes packed into {info.compress_size}; store it with numpy.savez")
        with self.zip.open(info) as file:
            return np.lib.format.read_array(file, allow_pickle=False)


def read_npz(path: Path, input_shape: Size | None, limit: int | None) -> Part:
    """Images, labels and the test part if there is one, exactly as they are stored."""
    with opened(path) as archive:
        return _read(archive, input_shape, limit)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """An opened .npz whose list of arrays is checked; what its reading raises becomes one line that names the file."""
    source = printable(path)
    try:
        with open_regular(path, most=MAX_FILE_BYTES) as file, zipfile.ZipFile(file) as zipped:
            yield Archive(zipped, _members(zipped, source), source)
    except AgnesError:
        raise
    # zipfile raises RuntimeError for encryption, NotImplementedError for odd compression
    except (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{source}: not a sound .npz ({printable(error, 80)}); write it again with numpy.savez"
        ) from error


def _members(zipped: zipfile.ZipFile, source: str) -> dict[str, zipfile.ZipInfo]:
    infos = zipped.infolist()
    if len(infos) > MAX_MEMBERS:
        raise Refused(f"{source}: {len(infos)} arrays; AGNES reads at most {MAX_MEMBERS}; keep images and labels only")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.removesuffix(".npy").lower()
        if name in members:
            raise Refused(f"{source}: array '{printable(name)}' occurs twice; write each array once")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refused(f"{source}: packed in a way numpy does not; write it again with numpy.savez")
        members[name] = info
    return members


def _read(archive: Archive, shape: Size | None, limit: int | None) -> Part:
    source = archive.source
    names = archive.first(_IMAGES), archive.first(_LABELS)
    test_names = archive.first(_TEST_IMAGES), archive.first(_TEST_LABELS)
    if names[0] is None and test_names[0] is None and len(archive.members) == 1:
        names = next(iter(archive.members)), None
    if names[0] is None:
        names, test_names = test_names, (None, None)
    if names[0] is None:
        held = ", ".join(printable(name, 40) for name in list(archive.members)[:8]) or "nothing"
        raise UsageError(f"{source}: no images among its arrays ({held}); name them 'images' and 'labels'")
    part = _part(archive, names[0], names[1], shape, limit)
    if test_names[0] is None or test_names[1] is None:
        return part
    size = tuple(part.images.shape[1:])
    test = _part(archive, test_names[0], test_names[1], (size[0], size[1], size[2]), limit)
    return Part(part.images, part.labels, part.notes, test)


def _part(archive: Archive, images: str, labels: str | None, shape: Size | None, limit: int | None) -> Part:
    source, notes = f"{archive.source}: {printable(images, 40)}", []
    pixels = archive.array(images)
    if pixels.ndim == 0 or not len(pixels):
        raise UsageError(f"{source}: no images; store at least one")
    known = None
    if labels is not None:
        known, note = _labels(archive.array(labels), f"{archive.source}: {printable(labels, 40)}")
        notes += [note] if note else []
        if len(known) != len(pixels):
            raise UsageError(f"{source}: {len(pixels)} images and {len(known)} labels; store one label an image")
    nchw, layout = _channels_first(pixels, shape, source)
    notes += [f"{printable(images, 40)} read as {layout}"]
    chosen = spread(known, len(nchw), limit)
    if len(chosen) < len(nchw):
        notes += [limit_note(len(chosen), len(nchw))]
    check_total(len(chosen), nchw.shape[1:], source)
    values = _unit(nchw if len(chosen) == len(nchw) else nchw[chosen], source)
    found = None if known is None else torch.from_numpy(known[chosen])
    return Part(torch.from_numpy(values), found, tuple(notes))


def _declared(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type by the array's header."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
    except Exception as error:  # a hostile header makes its parser raise many kinds
        raise ValueError("an array's header is damaged") from error
    if any(not 0 <= length < 2**48 for length in shape):
        raise ValueError("an array's length is absurd")
    return shape, dtype


def _labels(labels: np.ndarray, source: str) -> tuple[np.ndarray, str]:
    """Class numbers, from numbers, a column of numbers or one-hot rows."""
    note = ""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    elif labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "biuf" and _one_hot(labels):
        labels, note = labels.argmax(axis=1), "labels read as one-hot rows"
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UsageError(f"{source}: {labels.dtype} of shape {labels.shape}; store one whole number an image")
    numbers = labels.astype(np.int64)
    if len(numbers) and numbers.min() < 0:
        raise UsageError(f"{source}: a label is {numbers.min()}; count classes from 0")
    return numbers, note


def _one_hot(labels: np.ndarray) -> bool:
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all())


def _channels_first(pixels: np.ndarray, shape: Size | None, source: str) -> tuple[np.ndarray, str]:
    """NCHW, whatever the layout; where the network's input does not settle it, the short axis is the channels."""
    if pixels.ndim == 3:
        return _fitting(pixels[:, None], shape, source), "grey images"
    if pixels.ndim != 4:
        raise UsageError(f"{source}: shape {pixels.shape}; store images x height x width x channels")
    _, a, b, c = pixels.shape
    first, last = a in (1, 3), c in (1, 3)
    if shape is not None and shape in ((a, b, c), (c, a, b)):
        first = shape == (a, b, c)
    elif first == last and shape is not None:
        return _fitting(pixels, shape, source), ""  # fits neither way: raises
    elif first == last:
        raise UsageError(f"{source}: cannot tell the channels in shape {pixels.shape}; name the network's input shape")
    if first:
        return _fitting(pixels, shape, source), "channels first"
    return _fitting(pixels.transpose(0, 3, 1, 2), shape, source), "channels last"


def _fitting(pixels: np.ndarray, shape: Size | None, source: str) -> np.ndarray:
    if shape is None or pixels.shape[1:] == tuple(shape):
        return pixels
    found, wanted = "x".join(map(str, pixels.shape[1:])), "x".join(map(str, shape))
    raise UsageError(
        f"{source}: images of {found}, but the network takes {wanted} (channels, height, width); resize them before "
        "storing, or give a folder of image files, which are fitted"
    )


def _unit(pixels: np.ndarray, source: str) -> np.ndarray:
    """float32 in [0, 1], in memory order."""
    if pixels.dtype == np.uint8:
        values = np.ascontiguousarray(pixels).astype(np.float32)
        values /= np.float32(255)
        return values
    if pixels.dtype.kind not in "fb":
        raise UsageError(f"{source}: pixels of type {pixels.dtype}; store uint8 (0 to 255) or float (0 to 1)")
    return np.ascontiguousarray(pixels, dtype=np.float32)
