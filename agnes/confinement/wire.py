"""What passes between parent and child: plain values, bytes and arrays, never objects.

A message is a magic word, the length of a header, the header, and the raw bytes that the header announces. The header
is JSON: scalars stand for themselves, all else is a list that begins with its kind. The reader trusts nothing.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

MAGIC = b"AGNES-1\n"
HEADER_BYTES = 8 << 20  # of names and numbers; what is large travels as bytes or arrays
_LENGTH = struct.Struct("<Q")
_DEPTH = 100  # lists within lists
_DIMENSIONS = 32
_KEY = 1 << 53  # a whole number as a key stays below, so that no set of keys is slow to look up
_DTYPE = re.compile(r"[<>|][biufc][0-9]{1,2}")
_ITEM_SIZES = {  # kind of number -> bytes it may have
    "b": (1,),
    "i": (1, 2, 4, 8),
    "u": (1, 2, 4, 8),
    "f": (2, 4, 8),
    "c": (8, 16),
}


class Garbage(Exception):
    """What came is no message."""


def message(value: Any) -> list[Any]:
    """One message, in pieces to be written one after the other; a TypeError for what is not plain data."""
    blobs: list[Any] = []
    header = json.dumps(_node(value, blobs, 0)).encode("ascii")
    if len(header) > HEADER_BYTES:
        raise TypeError(f"{len(header)} bytes of plain values are too many; hand over bytes or arrays")
    return [MAGIC + _LENGTH.pack(len(header)) + header, *blobs]


def send(to: IO[bytes], pieces: Iterable[Any]) -> None:
    """Write one message."""
    for piece in pieces:
        to.write(piece)
    to.flush()


def receive(source: IO[bytes], most: int) -> Any:
    """Read one message of at most `most` bytes beside its header; Garbage if it is none."""
    if _exactly(source, len(MAGIC)) != MAGIC:
        raise Garbage("it does not begin like a message")
    (length,) = _LENGTH.unpack(_exactly(source, _LENGTH.size))
    if length > HEADER_BYTES:
        raise Garbage(f"its header has {length} bytes")
    header = _exactly(source, length)
    try:
        return _Reader(source, most).value(json.loads(header), 0)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise Garbage(f"its header makes no sense: {type(error).__name__}") from None
    except MemoryError:
        raise Garbage("it is larger than memory") from None


def _node(value: Any, blobs: list[Any], depth: int) -> Any:
    if depth > _DEPTH:
        raise TypeError(f"plain data nested deeper than {_DEPTH}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        blobs.append(bytes(value))
        return ["bytes", len(blobs[-1])]
    if isinstance(value, os.PathLike):
        return ["path", os.fspath(value)]
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return [kind, *(_node(item, blobs, depth + 1) for item in value)]
    if isinstance(value, dict):
        if not all(map(_is_key, value)):
            raise TypeError("keys of plain data are text or whole numbers below 2^53")
        return ["dict", list(value), *(_node(item, blobs, depth + 1) for item in value.values())]
    if type(value).__module__ == "numpy" and type(value).__name__ == "ndarray":
        return _array(value, blobs)
    raise TypeError(f"only plain data passes between parent and child, not {type(value).__qualname__}")


def _array(array: numpy.ndarray, blobs: list[Any]) -> list[Any]:
    import numpy as np

    if not _is_plain(array.dtype):
        raise TypeError(f"arrays of {array.dtype} do not pass between parent and child")
    if array.ndim > _DIMENSIONS:
        raise TypeError(f"an array has {array.ndim} dimensions; {_DIMENSIONS} may pass")
    blobs.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return ["array", array.dtype.str, list(array.shape)]


def _is_key(key: Any) -> bool:
    return isinstance(key, str) or (isinstance(key, int) and not isinstance(key, bool) and abs(key) < _KEY)


def _is_plain(dtype: numpy.dtype) -> bool:
    return dtype.itemsize in _ITEM_SIZES.get(dtype.kind, ())


class _Reader:
    """Turns a header into values, taking the bytes that it announces from the stream while the budget lasts."""

    def __init__(self, source: IO[bytes], budget: int) -> None:
        self._source = source
        self._budget = budget

    def value(self, node: Any, depth: int) -> Any:
        if not isinstance(node, list):
            if isinstance(node, dict):
                raise Garbage("its header holds an object")
            return node
        if depth > _DEPTH:
            raise Garbage(f"it is nested deeper than {_DEPTH}")
        match node:
            case ["bytes", int(size)]:
                return _exactly(self._source, self._take(size))
            case ["path", str(text)]:
                return Path(text)
            case ["array", str(kind), list(shape)]:
                return self._array(kind, shape)
            case ["list", *items]:
                return list(self._values(items, depth))
            case ["tuple", *items]:
                return tuple(self._values(items, depth))
            case ["dict", list(keys), *items] if len(items) == len(keys) and all(map(_is_key, keys)):
                if len(set(keys)) < len(keys):
                    raise Garbage("a key comes twice")
                return dict(zip(keys, self._values(items, depth), strict=True))
        raise Garbage("it holds something of no known kind")

    def _values(self, nodes: list[Any], depth: int) -> Iterator[Any]:
        return (self.value(node, depth + 1) for node in nodes)

    def _take(self, size: int) -> int:
        if isinstance(size, bool) or not 0 <= size <= self._budget:
            raise Garbage(f"it announces {size} bytes and {self._budget} are left to it")
        self._budget -= size
        return size

    def _array(self, kind: str, shape: list[Any]) -> numpy.ndarray:
        import numpy as np

        known = len(shape) <= _DIMENSIONS and all(type(n) is int and 0 <= n < 1 << 40 for n in shape)
        if not known or not _DTYPE.fullmatch(kind) or not _is_plain(dtype := np.dtype(kind)):
            raise Garbage("an array's type or shape makes no sense")
        size = self._take(math.prod(shape) * dtype.itemsize)
        array = np.empty(shape, dtype)
        _fill(self._source, array.reshape(-1).view(np.uint8).data if size else memoryview(b""))
        if dtype.kind == "b" and bool((array.view(np.uint8) > 1).any()):
            raise Garbage("a truth value is neither 0 nor 1")
        return array


def _exactly(source: IO[bytes], size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise Garbage("it ends early")
    return data


def _fill(source: IO[bytes], room: memoryview) -> None:
    done = 0
    while done < len(room):
        count = source.readinto(room[done:])  # type: ignore[attr-defined]
        if not count:
            raise Garbage("it ends early")
        done += count
