"""The header of a safetensors file, checked before any weight is read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agnes.errors import Refused
from agnes.text import printable

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True)
class Entry:
    """What the header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def looks_like(path: Path) -> bool:
    """Whether a file starts with a length and a JSON object, as safetensors files do."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def read(path: Path, limit: int) -> dict[str, Entry]:
    """Every tensor of a file; Refused unless together they are exactly the bytes that follow the header."""
    name, size = printable(path.name), path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise Refused(f"refused: {name} is no safetensors file, or is cut short")
        if length > limit:
            raise Refused(
                f"refused: {name} has a header of {length} bytes, more than safetensors.header_limit ({limit})"
            )
        text = file.read(length)
    try:
        parsed = json.loads(text.decode("utf-8"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        raise Refused(f"refused: the header of {name} is not JSON, or says one thing twice") from None
    if not isinstance(parsed, dict):
        raise Refused(f"refused: the header of {name} is not a JSON object")
    parsed.pop("__metadata__", None)
    entries = {key: _entry(key, value) for key, value in parsed.items()}
    if not entries:
        raise Refused(f"refused: {name} holds no tensors")
    _check_layout(name, entries, size - 8 - length)
    return entries


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is repeated")
    return found


def _entry(key: str, value: Any) -> Entry:
    tensor = f"tensor {printable(key)}"
    if not isinstance(value, Mapping) or not {"dtype", "shape", "data_offsets"} <= set(value):
        raise Refused(f"refused: {tensor} lacks its type, shape or place in the file")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BYTES:
        raise Refused(f"refused: {tensor} is of type {printable(dtype)}; AGNES reads {', '.join(_BYTES)}")
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
        raise Refused(f"refused: {tensor} has a shape or place that is not made of whole numbers")
    if len(shape) > 8 or math.prod(shape) * _BYTES[dtype] != offsets[1] - offsets[0]:
        raise Refused(f"refused: {tensor} declares a shape that its {offsets[1] - offsets[0]} bytes do not hold")
    return Entry(dtype, tuple(shape), offsets[0], offsets[1])


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 63 for value in values)


def _check_layout(name: str, entries: Mapping[str, Entry], size: int) -> None:
    end = 0
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != end:
            raise Refused(f"refused: tensor {printable(key)} overlaps another, or leaves bytes unused")
        end = entry.end
    if end != size:
        raise Refused(f"refused: {name} has {size} bytes of weights and its header speaks of {end}")
