"""CIFAR's Python batches, which are pickles: read by hand-picked instructions, so that no file runs anything."""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from agnes.errors import AgnesError, Refused, UsageError
from agnes.reading.parts import open_regular
from agnes.text import printable

MAX_BYTES = 512 * 2**20  # of one batch; CIFAR-100's training file has 155 MB
MAX_TUPLES = 64  # a batch has about ten; a deep nest of them could overrun the stack
MAX_MEMO = 2_000_000  # objects a pickle may number

_TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
_PLAIN = {
    *("PROTO", "FRAME", "MARK", "STOP", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINUNICODE", "SHORT_BINUNICODE"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_TUPLE", *_TUPLES),
    *("BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
}
_ADVICE = "take CIFAR's binary version, or the original files"


class _Named:
    """What a pickle gets for a name it may use: it can be called, and cannot be given a state."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a name is given a state")


class _Kind(_Named):
    """Stands for numpy.ndarray."""

    __slots__ = ()


class _Bytes:
    """Stands for the one type of number that batches hold: unsigned bytes."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and the like, of no meaning for single bytes


class _Types(_Named):
    """Stands for numpy.dtype."""

    __slots__ = ()

    def __call__(self, code: Any, *_: Any) -> _Bytes:
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError("an array of something else than bytes")
        return _Bytes()


class _Array:
    """An array while it is read: nothing of numpy runs before its size is known to fit its bytes."""

    __slots__ = ("values",)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, raw = state
        if not isinstance(kind, _Bytes) or not isinstance(raw, bytes):
            raise pickle.UnpicklingError("an array of something else than bytes")
        self.values = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if by_columns else "C")


class _Arrays(_Named):
    """Stands for numpy's _reconstruct."""

    __slots__ = ()

    def __call__(self, *_: Any) -> _Array:
        return _Array()


_NAMES: dict[tuple[str, str], type[_Named]] = {
    ("numpy", "ndarray"): _Kind,
    ("numpy", "dtype"): _Types,
    ("numpy.core.multiarray", "_reconstruct"): _Arrays,
    ("numpy._core.multiarray", "_reconstruct"): _Arrays,
}


class _Reader(pickle.Unpickler):
    """Knows four names of numpy's, and for each a stand-in of ours."""

    def __init__(self, data: bytes, source: str) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        self.source = source

    def find_class(self, module: str, name: str) -> Any:
        found = _NAMES.get((module, name))
        if found is None:
            asked = printable(f"{module}.{name}", 60)
            raise Refused(f"{self.source}: a pickle that asks for {asked}, which no CIFAR batch needs; {_ADVICE}")
        return found()


def read_batch(path: Path) -> dict[str, Any]:
    """A pickled batch: arrays of bytes, lists, numbers and text by their names."""
    source = printable(path)
    with open_regular(path, most=MAX_BYTES) as file:
        data = file.read()
    try:
        _look_over(data, source)
        found = _Reader(data, source).load()
    except AgnesError:
        raise
    except Exception as error:  # a damaged pickle raises whatever its next instruction does
        reason = printable(error, 60) or type(error).__name__
        raise UsageError(f"{source}: not a sound CIFAR batch ({reason}); {_ADVICE}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{source}: not a CIFAR batch, which is a dictionary; {_ADVICE}")
    return {_text(name): _opened(value) for name, value in found.items()}


def _look_over(data: bytes, source: str) -> None:
    """Refuse a pickle with instructions, nests or numbers that no batch has, before any of it is carried out."""
    tuples = 0
    for instruction, argument, _ in pickletools.genops(data):
        name = instruction.name
        tuples += name in _TUPLES
        if name not in _PLAIN or tuples > MAX_TUPLES:
            raise Refused(f"{source}: a pickle with {name}, more than a CIFAR batch needs; {_ADVICE}")
        if name == "LONG_BINPUT" and (argument is None or argument >= MAX_MEMO):
            raise Refused(f"{source}: a pickle that numbers an object {argument}; {_ADVICE}")


def _opened(value: Any) -> Any:
    if isinstance(value, _Array):
        return getattr(value, "values", None)
    if isinstance(value, list):
        return [_text(item) for item in value]
    return _text(value)


def _text(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, bytes) else value
