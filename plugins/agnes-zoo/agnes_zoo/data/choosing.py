"""Data sets by name: the embedded signs in their kinds, or a path to anything that is read from a disk."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from functools import cache, partial
from importlib import metadata, resources
from pathlib import Path

from agnes.errors import UsageError, suggestion
from agnes.text import printable
from agnes_zoo.data import cifar, gtsrb, idx, samples
from agnes_zoo.data.cache import kept
from agnes_zoo.data.dataset import Dataset, Images, Parts, assembled, drawn
from agnes_zoo.signs import TEST, TRAINING, Kind, stream

TRAIN_PER_CLASS, TEST_PER_CLASS = 200, 40  # signs, where no other counts are asked for
TEN = (1, 5, 12, 13, 14, 17, 18, 25, 33, 39)  # of every shape and colour, and some that are easily confused

KINDS: dict[str, tuple[Kind, str]] = {
    "signs": (Kind(), "43 classes of traffic signs, 32x32 RGB"),
    "signs10": (Kind(TEN), "10 of the classes, 32x32 RGB"),
    "signs-grey": (Kind(side=28, channels=1), "the 43 classes, 28x28 grey, the shape of MNIST"),
    "signs10-grey": (Kind(TEN, 28, 1), "10 of the classes, 28x28 grey, the shape of MNIST"),
}
NAMES = {name: said for name, (_, said) in KINDS.items()}
LAYOUTS = (gtsrb.LAYOUT, cifar.LAYOUT, idx.LAYOUT, *samples.LAYOUTS)
_DRAWN_BY = ("signs", "faces", "pictograms", "lettering", "drawing")


def dataset(
    name: str | os.PathLike[str],
    *,
    seed: int = 0,  # of the signs, of which images are taken and of the split where there is no test part
    train: int | None = None,  # images; of signs 200 a class, else all
    test: int | None = None,  # images; of signs 40 a class, else all
    side: int | None = None,  # of signs and image files, in pixels
) -> Dataset:
    """The data set of a name or a path."""
    name = os.fspath(name)
    if seed < 0:
        raise UsageError(f"seed {seed}: give one of 0 or more")
    if side is not None and not 1 <= side <= 1024:
        raise UsageError(f"images of side {side}: give 1 to 1024 pixels")
    if name in KINDS:
        return _signs(name, seed, train, test, side)
    path = Path(name)
    if not path.exists():
        raise UsageError(
            f"there is no data set '{printable(name)}', nor a file or folder of that name{suggestion(name, NAMES)} "
            f"(names: {', '.join(NAMES)}; on disk: {'; '.join(LAYOUTS)})"
        )
    return drawn(assembled(name, _read(path, side), seed), seed, train, test)


def _signs(name: str, seed: int, train: int | None, test: int | None, side: int | None) -> Dataset:
    kind, _ = KINDS[name]
    kind = kind if side is None else replace(kind, side=side)
    classes = len(kind.classes)
    parts = [
        _kept(kind, seed, part, count)
        for part, count in (
            (TRAINING, TRAIN_PER_CLASS * classes if train is None else train),
            (TEST, TEST_PER_CLASS * classes if test is None else test),
        )
    ]
    return Dataset(name, *parts[0], *parts[1], kind.class_names)


def _kept(kind: Kind, seed: int, part: int, count: int) -> Images:
    return kept(f"{fingerprint()} {kind} {seed} {part} {count}", lambda: stream(count, seed, part, kind))


@cache
def fingerprint() -> str:
    """All that a sign's pixels depend on but its seed: the modules that draw it and the libraries they draw with."""
    package = resources.files("agnes_zoo")
    sources = [package.joinpath(f"{module}.py").read_text(encoding="utf-8") for module in _DRAWN_BY]
    versions = [f"{library} {metadata.version(library)}" for library in ("numpy", "pillow", "torch")]
    return hashlib.sha256("\n".join([*versions, *sources]).encode()).hexdigest()


def _read(path: Path, side: int | None) -> Parts:
    """By the one layout that lies there."""
    if not path.is_dir():
        _check_file(path)
        return samples.read(path, side)
    photographs = [(place, partial(gtsrb.read, place, training, side)) for place, training in gtsrb.find(path)]
    arrays = [(place, partial(cifar.read, place, version)) for place, version in cifar.find(path)]
    arrays += [(place, partial(idx.read, place, kind)) for place, kind in idx.find(path)]
    found = [*photographs, *arrays]
    if len(found) > 1:
        places = ", ".join(printable(place) for place, _ in found)
        raise UsageError(f"{printable(path)}: more than one data set lies there ({places}); name the folder of one")
    if arrays:
        samples.check_size_is_free(path, side)
    if found:
        return found[0][1]()
    try:
        return samples.read(path, side)
    except UsageError as error:
        raise UsageError(f"{error} (layouts read: {'; '.join(LAYOUTS)})") from error


def _check_file(path: Path) -> None:
    name = path.name.lower()
    if name.endswith((".tar.gz", ".tgz", ".tar", ".zip")):
        raise UsageError(f"{printable(path)}: a packed archive; unpack it and name the folder")
    if name.endswith((".gz", ".bin", "ubyte", "_batch")) or name.startswith("data_batch"):
        raise UsageError(f"{printable(path)}: one file of a data set; name the folder it lies in")
