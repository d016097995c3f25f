"""GTSRB in its official folders, every image cropped to the sign by the region its list names."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from agnes.errors import UsageError
from agnes.reading.images import opened
from agnes.reading.parts import check_total, open_regular
from agnes.text import printable
from agnes_zoo.data.cache import kept
from agnes_zoo.data.dataset import Images, Parts
from agnes_zoo.faces import CLASS_NAMES

LAYOUT = "GTSRB's official folders (Final_Training/Images/00000/*.ppm with GT-00000.csv, Final_Test)"
SIDE = 32  # pixels, unless asked otherwise

_TRAINING = ("Final_Training/Images", "Training")  # the second of the competition's first stage
_TEST = "Final_Test/Images"
_LIST = "GT-final_test.csv"
_COLUMNS = ("Filename", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId")
_MAX_LIST_BYTES = 16 * 2**20


@dataclass(frozen=True)
class _Row:
    """One line of a list."""

    file: Path
    region: tuple[int, int, int, int]  # left, top, right, bottom, the last two outside
    label: int


def find(path: Path) -> list[tuple[Path, Path]]:
    """The folder, the one named or GTSRB in it, with that of the training images."""
    places = [(root, root / below) for root in (path, path / "GTSRB") for below in _TRAINING]
    return [(root, training) for root, training in places if next(training.glob("[0-9]*/GT-*.csv"), None)]


def read(path: Path, training: Path, side: int | None = None) -> Parts:
    lists = sorted(training.glob("[0-9]*/GT-*.csv"))
    rows = [row for found in lists for row in _rows(found, found.parent)]
    side = side or SIDE
    train = _kept(rows, side, printable(training))
    notes = (f"cropped to the sign by the lists' regions and resized to {side}x{side}",)
    tests, why = _test_rows(path)
    if not tests:
        return Parts(train, None, CLASS_NAMES, (*notes, why), _tracks(rows))
    return Parts(train, _kept(tests, side, printable(path / _TEST)), CLASS_NAMES, notes)


def _tracks(rows: list[_Row]) -> tuple[str, ...]:
    """Of each image, the sign it shows: a file's name is the number of the sign, then that of the photograph."""
    return tuple(f"{row.label} {row.file.name.partition('_')[0]}" for row in rows)


def _test_rows(path: Path) -> tuple[list[_Row], str]:
    """The test images with their labels, which come apart from them; or why there are none."""
    folder = path / _TEST
    if not folder.is_dir():
        return [], f"no {_TEST} folder"
    places = [place / _LIST for place in (folder, folder.parent, path, path.absolute().parent)]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        return [], f"{_TEST} left out: no {_LIST}, which has its labels"
    return _rows(found, folder), ""


def _rows(listed: Path, folder: Path) -> list[_Row]:
    source = printable(listed)
    with open_regular(listed, most=_MAX_LIST_BYTES) as file:
        content = file.read()
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=";")
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise UsageError(f"{source}: no column {', '.join(missing)}; take GTSRB's own list, with labels")
        return [_row(row, folder, f"{source} line {reader.line_num}") for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{source}: not a CSV list ({printable(error, 60)}); take GTSRB's own list") from error


def _row(row: dict[str, str], folder: Path, where: str) -> _Row:
    name = row["Filename"] or ""
    if Path(name).name != name or name in ("", ".", "..") or "\\" in name:
        raise UsageError(f"{where}: '{printable(name)}' is no file of the list's folder; take GTSRB's own list")
    try:
        left, top, right, bottom, label = (int(row[column]) for column in _COLUMNS[1:])
    except (TypeError, ValueError):
        raise UsageError(f"{where}: a region or class that is no whole number; take GTSRB's own list") from None
    if not 0 <= label < len(CLASS_NAMES):
        raise UsageError(f"{where}: class {label}, of {len(CLASS_NAMES)}; take GTSRB's own list")
    return _Row(folder / name, (left, top, right + 1, bottom + 1), label)


def _kept(rows: list[_Row], side: int, source: str) -> Images:
    """The signs of these rows, from the cache as long as no file has changed: decoding all takes a minute."""
    key = hashlib.sha256(f"GTSRB cropped, side {side}, Pillow {PIL.__version__}".encode())
    for row in rows:
        try:
            found = row.file.stat()
        except OSError:
            raise UsageError(f"{printable(row.file)}: listed, but not there; unpack the archive again") from None
        key.update(f"{row.file.absolute()} {row.region} {row.label} {found.st_size} {found.st_mtime_ns}\n".encode())
    return kept(key.hexdigest(), lambda: _images(rows, side, source))


def _images(rows: list[_Row], side: int, source: str) -> Images:
    check_total(len(rows), (side, side, 3), source)
    images = np.empty((len(rows), side, side, 3), np.uint8)
    for index, row in enumerate(rows):
        with opened(row.file) as image:
            left, top, right, bottom = row.region
            if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
                raise UsageError(
                    f"{printable(row.file)}: its list's region {row.region} does not lie in {image.width}x"
                    f"{image.height}; take GTSRB's own list"
                )
            sign = image.convert("RGB").crop(row.region)
            images[index] = np.asarray(sign.resize((side, side), Image.Resampling.BILINEAR))
    return images, np.array([row.label for row in rows], np.int64)
