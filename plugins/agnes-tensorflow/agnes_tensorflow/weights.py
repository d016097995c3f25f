"""Keras weights in the order of dimensions that torch keeps them in, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def to_torch(array: np.ndarray, depthwise: bool) -> np.ndarray:
    """A kernel as torch's module of the same kind holds it."""
    if array.ndim == 4 and depthwise:  # height, width, channel, multiplier
        height, width, channels, times = array.shape
        return array.transpose(2, 3, 0, 1).reshape(channels * times, 1, height, width)
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T


def to_keras(array: np.ndarray, shape: Sequence[int], depthwise: bool) -> np.ndarray:
    """The inverse, for a Keras weight of that shape."""
    if len(shape) == 4 and depthwise:
        height, width, channels, times = shape
        return array.reshape(channels, times, height, width).transpose(2, 3, 0, 1)
    if len(shape) == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T


def digest(array: np.ndarray) -> str:
    """What tells weights apart: their shape and their values."""
    plain = np.ascontiguousarray(array, dtype=np.float32)
    return hashlib.sha256(str(plain.shape).encode() + plain.tobytes()).hexdigest()


def paired(state: Mapping[str, Any], named: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Which of the file's weights, given as (path, digest), each of a network's tensors is; only equal ones are paired.

    Equal tensors, such as untrained ones, go by the layer of their neighbours, then by order.
    """
    waiting: dict[str, list[int]] = {}
    for index, (_, known) in enumerate(named):
        waiting.setdefault(known, []).append(index)
    tensors = {key: np.asarray(value) for key, value in state.items() if not key.endswith("num_batches_tracked")}
    digests = {key: digest(value) for key, value in tensors.items()}
    layer_of = {
        module_of(key): folder(named[waiting[known][0]][0])
        for key, known in digests.items()
        if len(waiting.get(known, ())) == 1
    }
    pairs: dict[str, int] = {}
    for key, known in digests.items():
        candidates = waiting.get(known, [])
        own = layer_of.get(module_of(key))
        best = next((index for index in candidates if folder(named[index][0]) == own), next(iter(candidates), None))
        if best is not None:
            candidates.remove(best)
            pairs[key] = best
            layer_of.setdefault(module_of(key), folder(named[best][0]))
    return pairs


def module_of(key: str) -> str:
    """The module that an entry of a state dict belongs to."""
    return key.rpartition(".")[0]


def folder(path: str) -> str:
    """The layer that a Keras weight belongs to."""
    return path.rpartition("/")[0]
