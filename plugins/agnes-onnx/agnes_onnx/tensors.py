"""Tensors of an ONNX file as arrays, believed only as far as the bytes that are there."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from agnes.errors import Refused
from agnes.text import printable

_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8}  # TensorProto.DataType
_FIELDS = {1: "float_data", 7: "int64_data", 11: "double_data", 12: "uint64_data", 13: "uint64_data"}  # int32_data else


def tensors_of(model: Any) -> Iterator[Any]:
    """Every tensor stored in a model's graph: the initialisers, and what nodes hold as attributes."""
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def check(tensor: Any) -> None:
    """Refuse a tensor of an unknown type, or whose declared size is not that of its data."""
    name = printable(tensor.name) or "without a name"
    if tensor.data_type not in _ITEM_BYTES:
        raise Refused(f"refused: tensor {name} has data type {tensor.data_type}; AGNES reads float, integer and bool")
    if any(size < 0 for size in tensor.dims):
        raise Refused(f"refused: tensor {name} declares a negative size")
    declared = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        stored, remainder = divmod(len(tensor.raw_data), _ITEM_BYTES[tensor.data_type])
        stored = -1 if remainder else stored
    else:
        stored = len(getattr(tensor, _FIELDS.get(tensor.data_type, "int32_data")))
    if stored != declared:
        raise Refused(f"refused: tensor {name} declares {declared} numbers and its data does not hold that many")


def array_of(tensor: Any) -> np.ndarray:
    """A checked tensor's values; floats of any width as float32."""
    from onnx import numpy_helper

    array = numpy_helper.to_array(tensor)
    return array.astype(np.float32) if array.dtype in (np.float16, np.float64) else array


def read_external(tensors: Iterable[Any], folder: Path, limit: int) -> int:
    """Put external data into the tensors that point to it; return how many bytes were read."""
    total = 0
    for tensor in tensors:
        if tensor.data_location != 1:  # TensorProto.EXTERNAL
            continue
        if tensor.data_type not in _ITEM_BYTES or any(size < 0 for size in tensor.dims):
            check(tensor)
        length = math.prod(tensor.dims) * _ITEM_BYTES[tensor.data_type]
        total += length
        if total > limit:
            raise Refused(f"refused: the external data is larger than onnx.size_limit ({limit} bytes)")
        tensor.raw_data = _read(tensor, folder, length)
        del tensor.external_data[:]
        tensor.data_location = 0
    return total


def _read(tensor: Any, folder: Path, length: int) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location, name = entries.get("location", ""), printable(tensor.name)
    try:
        offset = int(entries.get("offset", "0"))
        said = int(entries.get("length", str(length)))
    except ValueError:
        raise Refused(f"refused: tensor {name} has external data whose offset or length is no number") from None
    if said != length or offset < 0:
        raise Refused(f"refused: tensor {name} has external data of {said} bytes at {offset} and needs {length}")
    path = _inside(location, folder)
    with _open_regular(path, location) as file:
        if offset + length > os.fstat(file.fileno()).st_size:
            raise Refused(f"refused: external data {printable(location)} is too short for tensor {name}")
        file.seek(offset)
        return file.read(length)


def _inside(location: str, folder: Path) -> Path:
    """The path of external data, which must lie inside the model's folder and be reached without links."""
    parts = PurePosixPath(location).parts
    climbs = not parts or ".." in parts or "\\" in location or "\0" in location
    if climbs or PurePosixPath(location).is_absolute() or PureWindowsPath(location).drive:
        raise Refused(f"refused: external data {printable(location)!r} is not a path inside the model's folder")
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise Refused(f"refused: external data {printable(location)} is reached through a link")
    return path


def _open_regular(path: Path, location: str) -> Any:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        reason = error.strerror or "it cannot be opened"
        raise Refused(f"refused: external data {printable(location)}: {reason}; keep it beside the model") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refused(f"refused: external data {printable(location)} is not a regular file")
    return os.fdopen(descriptor, "rb")
