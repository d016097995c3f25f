"""A stand-in for torchvision while onnx2torch is imported, for where torchvision does not fit the installed torch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

_USED_BY_ONNX2TORCH = ("roi_align", "nms", "box_convert")


@contextlib.contextmanager
def torchvision_or_stub() -> Iterator[None]:
    """Make `import torchvision.ops` work; what was put in is taken out again."""
    before = {name for name in sys.modules if name.partition(".")[0] == "torchvision"}
    try:
        import torchvision.ops  # noqa: F401  # pyright: ignore[reportMissingImports]
    except Exception:
        _take_out(before)
    else:
        yield
        return
    stub, ops = ModuleType("torchvision"), ModuleType("torchvision.ops")
    for name in _USED_BY_ONNX2TORCH:
        setattr(ops, name, _missing)
    stub.ops = ops  # type: ignore[attr-defined]
    sys.modules.update({"torchvision": stub, "torchvision.ops": ops})
    try:
        yield
    finally:
        _take_out(before)


def _take_out(but: set[str]) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision" and name not in but]:
        del sys.modules[name]


def _missing(*args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError("this operator needs a torchvision that fits the installed torch")
