"""onnxruntime, in the child process: a model run from its bytes. Neither torch nor onnx is imported here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from agnes.errors import Refused
from agnes.text import printable

PROVIDERS = ("CPUExecutionProvider",)  # named, for a GPU build lists devices that are not there
_THREADS = 8
_LIMITS = (  # what onnxruntime says of files newer than itself
    ("opset", re.compile(r"is till opset (\d+)")),
    ("ir", re.compile(r"max supported IR version: (\d+)")),
)


class _TooNew(Exception):
    """A file of a version that onnxruntime does not know: of what, and the newest that it knows."""


def outputs(content: bytes, images: np.ndarray, fixed_batch: int | None) -> dict[str, Any]:
    """Every output for images as the file takes them, in the sizes of batch that it takes; or what it is too new in."""
    import onnxruntime

    try:
        session = _opened(content)
    except _TooNew as error:
        return {"too_new": error.args[0], "newest": error.args[1]}
    source = session.get_inputs()[0].name
    try:
        parts = [
            [value[:count] for value in session.run(None, {source: part})]
            for part, count in _batches(images, fixed_batch or len(images))
        ]
    except Exception as error:
        raise Refused(f"refused: onnxruntime does not run the model: {_first_line(error)}") from error
    values = [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]
    return {"version": f"onnxruntime {onnxruntime.__version__}", "outputs": values}


def _opened(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = min(_THREADS, os.cpu_count() or 1)
    try:
        return onnxruntime.InferenceSession(content, options, providers=list(PROVIDERS))
    except Exception as error:
        for kind, words in _LIMITS:
            if found := words.search(str(error)):
                raise _TooNew(kind, int(found[1])) from error
        raise Refused(f"refused: onnxruntime does not open the model: {_first_line(error)}") from error


def _batches(images: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Images in batches of one size, the last filled up, and how many of each count."""
    for start in range(0, len(images), size):
        part = images[start : start + size]
        filling = np.broadcast_to(part[-1:], (size - len(part), *part.shape[1:]))
        yield np.ascontiguousarray(np.concatenate([part, filling])), len(part)


def _first_line(error: Exception) -> str:
    return printable(str(error).strip().partition("\n")[0])
