"""Drawn images kept on disk, so that a zoo of many networks draws them once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from agnes_zoo.data.dataset import Images, sha256

VARIABLE = "AGNES_CACHE"  # another folder for what is kept; empty: nothing is kept
MOST_BYTES = 2 * 2**30  # beyond this the files longest unused are removed


def folder() -> Path | None:
    """Where images are kept: $AGNES_CACHE, else agnes in the user's cache folder; None where nothing is to be kept."""
    said = os.environ.get(VARIABLE)
    if said is not None:
        return Path(said) if said else None
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        return (Path(home) if home else Path.home() / ".cache") / "agnes"
    except RuntimeError:  # a user without a home
        return None


def kept(key: str, draw: Callable[[], Images]) -> Images:
    """Images by a key that names all they depend on: read if they are kept and sound, else drawn and kept."""
    place = folder()
    if place is None:
        return draw()
    path = place / "images" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
    found = _read(path)
    if found is not None:
        return found
    images, labels = draw()
    with contextlib.suppress(OSError):  # a full or read-only disk costs time, nothing else
        _write(path, images, labels)
        _make_room(path.parent, path)
    return images, labels


def _read(path: Path) -> Images | None:
    """What was kept, if every byte is as it was written."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            images, labels, digest = held["images"], held["labels"], held["digest"]
    except Exception:  # a file cut short, overwritten or never written: numpy and zipfile raise a dozen kinds
        return None
    if digest.shape != () or str(digest) != sha256(images, labels):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return images, labels


def _write(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Under another name first, so that nobody reads half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, images=images, labels=labels, digest=np.array(sha256(images, labels)))
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _make_room(place: Path, new: Path) -> None:
    files = sorted(_files(place), key=lambda entry: -entry[0])
    taken = 0
    for _, size, path in files:
        taken += size
        if taken > MOST_BYTES and path != new:
            with contextlib.suppress(OSError):
                path.unlink()


def _files(place: Path) -> Iterator[tuple[float, int, Path]]:
    """When each file was last used, its size and its path; what another process removes meanwhile is not there."""
    for path in place.glob("*.npz"):
        with contextlib.suppress(OSError):
            found = path.stat()
            yield found.st_mtime, found.st_size, path
