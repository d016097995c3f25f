"""HDF5 files: plain arrays that are really there, and nothing that leads elsewhere. Runs in the confined child."""

# pyright: reportMissingImports=false

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agnes.errors import Refused
from agnes.text import printable

MAGIC = b"\x89HDF\r\n\x1a\n"
_DEPTH = 40
_OBJECTS = 200_000
_CONFIG_BYTES = 16 << 20


def looks_like(path: Path) -> bool:
    """Whether a file begins as HDF5 files do."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def check(path: Path, zipped: bool) -> str | None:
    """Refuse what is not plain; return the model's configuration where the file holds it."""
    import h5py

    from agnes_tensorflow import archive

    name = printable(path.name)
    content: Any = io.BytesIO(archive.weights_in(path)) if zipped else path
    size = len(content.getvalue()) if zipped else path.stat().st_size
    if zipped and not content.getvalue().startswith(MAGIC):
        raise Refused(f"refused: the weights in {name} are no HDF5 file")
    try:
        with h5py.File(content, "r", locking=None if zipped else False) as file:
            _Checker(name, size).group(file, 0)
            return None if zipped else _config(file, name)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, UnicodeError) as error:
        raise Refused(f"refused: the HDF5 data in {name} is broken ({printable(error, 120)})") from None


def _config(file: Any, name: str) -> str:
    config = file.attrs.get("model_config")
    if isinstance(config, bytes):
        config = config.decode("utf-8")
    if not isinstance(config, str):
        raise Refused(
            f"refused: {name} holds weights without their model; save the whole model with model.save('model.keras')"
        )
    if len(config) > _CONFIG_BYTES:
        raise Refused(f"refused: the configuration in {name} is larger than {_CONFIG_BYTES} bytes")
    return config


class _Checker:
    """Walks a file, counting objects and bytes."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._seen: set[int] = set()
        self._bytes = 0

    def group(self, group: Any, depth: int) -> None:
        """Refuse what is wrong in a group and below it."""
        import h5py

        if depth > _DEPTH:
            raise self._refusal(f"has groups nested deeper than {_DEPTH}")
        self._object(group)
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise self._refusal(f"has a link at {printable(name)!r}, which may lead to another file")
            below = group[name]
            if isinstance(below, h5py.Group):
                self.group(below, depth + 1)
            elif isinstance(below, h5py.Dataset):
                self._object(below)
                self._dataset(below)
            else:
                raise self._refusal(f"holds something of no known kind at {printable(name)!r}")

    def _object(self, found: Any) -> None:
        import h5py

        address = h5py.h5o.get_info(found.id).addr  # type: ignore[attr-defined]
        if address in self._seen:
            raise self._refusal(f"reaches {printable(found.name)!r} in two ways")
        self._seen.add(address)
        if len(self._seen) > _OBJECTS:
            raise self._refusal(f"holds more than {_OBJECTS} objects")
        for name, dtype in _attributes(found):
            if not _is_text(dtype) and dtype.kind not in "fiubS":
                raise self._refusal(f"has an attribute {printable(name)!r} that is neither text nor numbers")

    def _dataset(self, data: Any) -> None:
        import h5py
        import numpy as np

        where = f"weight {printable(data.name)!r}"
        made = data.id.get_create_plist()
        if made.get_external_count():
            raise self._refusal(f"keeps {where} in another file")
        if made.get_layout() not in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
            raise self._refusal(f"puts {where} together from other files")
        if made.get_nfilters():
            raise self._refusal(f"keeps {where} compressed or filtered; save the model without")
        if data.dtype.kind not in "fiub" or data.dtype.itemsize > 8:
            raise self._refusal(f"holds {where}, which is no array of plain numbers")
        declared = math.prod(data.shape or ()) * data.dtype.itemsize
        self._bytes += declared
        if data.id.get_storage_size() < declared or self._bytes > self._size:
            raise self._refusal(f"declares more numbers for {where} than it stores")
        if data.dtype.kind == "f" and declared and not np.isfinite(data[()]).all():
            raise self._refusal(f"holds {where} with values that are not finite")

    def _refusal(self, what: str) -> Refused:
        return Refused(f"refused: the HDF5 data in {self._name} {what}; save the model again with Keras")


def _attributes(found: Any) -> Iterator[tuple[str, Any]]:
    import h5py

    for index in range(h5py.h5a.get_num_attrs(found.id)):
        attribute = h5py.h5a.open(found.id, index=index)
        yield attribute.name.decode("utf-8", "replace"), attribute.dtype


def _is_text(dtype: Any) -> bool:
    import h5py

    return h5py.check_string_dtype(dtype) is not None
