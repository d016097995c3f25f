"""What the readers hand on: files before they are decoded, and pixels after."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import torch

from agnes.errors import Refused, UsageError
from agnes.text import counted, printable

LabelRule = Literal["names", "numbers", "sorted"]  # known class names, numbers in the names, sorted order
Size = tuple[int, int, int]  # channels, height, width

MAX_VALUES = 2**30  # of one part in memory: 4 GiB of float32
MAX_FILE_BYTES = 256 * 2**20  # of one image file; 25 MP of 16-bit RGBA is 200 MB


@dataclass(frozen=True)
class Listing:
    """Image files and their labels, none of them opened yet."""

    files: tuple[Path, ...]
    labels: tuple[int, ...] | None = None
    class_names: tuple[str, ...] | None = None
    label_rule: LabelRule | None = None
    notes: tuple[str, ...] = ()
    test: Listing | None = None


@dataclass(frozen=True)
class Part:
    """Pixels and labels as they were read."""

    images: torch.Tensor = field(compare=False, repr=False)  # N, C, H, W float32
    labels: torch.Tensor | None = field(default=None, compare=False, repr=False)  # N int64
    notes: tuple[str, ...] = ()
    test: Part | None = None


def open_regular(path: Path, most: int = MAX_FILE_BYTES) -> BinaryIO:
    """Open a regular file for reading; a device, a pipe or a link to one is refused unopened."""
    try:
        _check_regular(os.stat(path), path)
        # O_NONBLOCK: should a pipe take the file's place in between, opening it must not hang
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise UsageError(f"{printable(path)}: no such file; check the name") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{printable(path)}: cannot be read ({printable(reason)}); check its permissions") from error
    opened = os.fdopen(handle, "rb")
    try:
        found = os.fstat(handle)
        _check_regular(found, path)
        if found.st_size > most:
            raise Refused(f"{printable(path)}: {found.st_size} bytes; AGNES reads at most {most} bytes of such a file")
    except BaseException:
        opened.close()
        raise
    return opened


def _check_regular(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"{printable(path)}: not a regular file; AGNES reads no devices, pipes or sockets; leave it out")


def check_total(count: int, size: Sequence[int], source: str) -> None:
    """Images that do not fit in memory are an error before the first is read."""
    each = max(1, math.prod(size))
    if count * each > MAX_VALUES:
        fit = MAX_VALUES // each
        what = f"{counted(count, 'image')} of {'x'.join(map(str, size))} are more than memory should hold"
        raise UsageError(f"{source}: {what}; set a limit of {fit} images or fewer")


def ranks(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each item, its rank among the items of its class, and how many the class has."""
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    rank = np.empty(len(labels), dtype=np.int64)
    rank[order] = np.arange(len(labels)) - np.repeat(starts, counts)
    sizes = np.empty(len(labels), dtype=np.int64)
    sizes[order] = np.repeat(counts, counts)
    return rank, sizes


def spread(labels: Sequence[int] | np.ndarray | None, count: int, limit: int | None) -> np.ndarray:
    """Which items to keep under a limit: class by class in turn, so that none is left out early."""
    if limit is None or count <= limit:
        return np.arange(count)
    if labels is None:
        return np.arange(limit)
    rank, _ = ranks(np.asarray(labels))
    return np.sort(np.argsort(rank, kind="stable")[:limit])


def limit_note(kept: int, total: int) -> str:
    return f"kept {kept} of {total} images, as limited"
