"""Pickles, read without being run: every step and every import is on a list, or the file is refused."""

from __future__ import annotations

import io
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agnes.errors import Refused
from agnes.text import printable
from agnes_pytorch import storages

WAY_OUT = (
    "AGNES does not run code from model files. Ask for safetensors or ONNX, or, if you trust the author, use"
    " --trust-model-code."
)
MAGIC = 0x1950A86A20F9469CFC6C  # how a file of torch.save before 1.6 begins
_AGAIN = "load it where it was made, and save its state dict as safetensors"
_VERSION = 1001


class RunsCode(Refused):
    """A file that could be opened only by running what it says; its author's word may do."""


_STEPS = frozenset(
    [
        *("PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
        *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
        *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINSTRING", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
    ]
)
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_IMPORTS = frozenset(
    [
        "collections OrderedDict",
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        "torch Size",
        *storages.SIZES,
        *(f"torch {kind}" for kind in _DTYPES),
    ]
)


def check(data: bytes, name: str) -> dict[str, int]:
    """Refuse the one pickle in these bytes unless all that it does is on the lists; the bytes that each block needs."""
    stream = io.BytesIO(data)
    found = _blocks(stream, name)
    if stream.read(1):
        raise Refused(f"refused: {name} holds bytes behind the end of its pickle")
    return found


def check_legacy(path: Path, limit: int, size_limit: int) -> None:
    """Refuse a file of torch.save before 1.6 unless all that its five pickles do is on the lists."""
    name, size = printable(path.name), path.stat().st_size
    if size > size_limit:
        raise Refused(f"refused: {name} has {size} bytes, more than pytorch.size_limit ({size_limit})")
    with path.open("rb") as file:
        stream = io.BytesIO(file.read(limit))
    for wanted in (MAGIC, _VERSION):
        steps = [argument for step, argument in _checked(stream, name) if step != "PROTO"]
        if steps != [wanted, None]:
            raise Refused(f"refused: {name} is no file that torch.save wrote; {_AGAIN}")
    for _ in ("the system", "the object", "the names of the blocks"):
        blocks = _blocks(stream, name)
        if sum(blocks.values()) > size:
            raise Refused(f"refused: {name} declares more numbers than it holds")


def check_other(path: Path, limit: int) -> None:
    """Refuse a file that torch.save did not write, by what it would import where it is a pickle."""
    name = printable(path.name)
    with path.open("rb") as file:
        stream = io.BytesIO(file.read(limit))
    try:
        for _ in _checked(stream, name):
            pass
    except RunsCode:
        raise
    except Refused:
        pass
    raise Refused(f"refused: {name} is neither a zip file nor a pickle as torch.save writes them; {_AGAIN}")


def is_legacy(path: Path) -> bool:
    """Whether a file begins as torch.save did before 1.6."""
    with path.open("rb") as file:
        return file.read(14)[2:] == b"\x8a\x0a" + MAGIC.to_bytes(10, "little")


def _blocks(stream: io.BytesIO, name: str) -> dict[str, int]:
    try:
        return storages.wanted(_checked(stream, name))
    except storages.Nonsense:
        raise Refused(f"refused: {name} holds a pickle whose steps make no sense") from None


def _checked(stream: io.BytesIO, name: str) -> Iterator[tuple[str, Any]]:
    """The steps of a pickle with their arguments; Refused for an import or a step that is on no list."""
    words: list[str] = []  # the last two texts, of which an import may be made
    odd = None
    for step, argument in _steps(stream, name):
        imports = " ".join(words) if step == "STACK_GLOBAL" else argument if step in ("GLOBAL", "INST") else None
        if imports is not None and imports not in _IMPORTS:
            wanted = printable(imports.replace(" ", "."))
            raise RunsCode(f"refused: {name} is a Python pickle that would import '{wanted}'. {WAY_OUT}")
        if odd is None and step not in _STEPS:
            odd = step
        if "UNICODE" in step:
            words = [*words, argument][-2:]
        if odd is None:
            yield step, argument
    if odd is not None:
        raise RunsCode(f"refused: {name} is a Python pickle with the step {odd}, which no weights need. {WAY_OUT}")


def _steps(stream: io.BytesIO, name: str) -> Iterator[tuple[str, Any]]:
    steps = pickletools.genops(stream)
    while True:
        try:
            step, argument, _ = next(steps)
        except StopIteration:
            return
        except Exception as error:  # whatever noise makes it raise
            raise Refused(f"refused: {name} holds a broken pickle, or one that does not end") from error
        yield step.name, argument
