"""What runs in the confined child: torch reads the file there, and plain arrays leave it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from agnes.errors import Refused
from agnes.text import printable

if TYPE_CHECKING:
    import numpy

USUAL = (  # keys under which checkpoints hold their state dict
    *("state_dict", "model_state_dict", "model_state", "model", "net_state_dict", "net", "network"),
    *("weights", "params", "module"),
)
_DEPTH = 4  # keys above the state dict
_COUNT = 50_000  # tensors
_NAME = 500  # characters of a tensor's name
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


def weights(path: Path, whole: bool, name: str) -> dict[str, Any]:
    """The state dict in a file that was checked; `whole`: an old file, which torch is to read from memory."""
    source: Any = io.BytesIO(path.read_bytes()) if whole else path
    return state_in(torch.load(source, map_location="cpu", weights_only=True), path.stat().st_size, name)


def state_in(loaded: Any, size: int, name: str) -> dict[str, Any]:
    """The arrays of a state dict, the keys above it, and the kinds of number in it."""
    above, state = found(loaded, name)
    arrays: dict[str, numpy.ndarray] = {}
    kinds, left = set(), 2 * size  # weights that are tied count twice
    if len(state) > _COUNT:
        raise Refused(f"refused: {name} holds {len(state)} tensors, more than {_COUNT}")
    for key, value in state.items():
        if not isinstance(key, str) or len(key) > _NAME:
            raise Refused(f"refused: {name} holds a tensor whose name is no text, or too long")
        tensor = f"tensor '{printable(key)}' in {name}"
        _check(value, tensor)
        left -= value.numel() * value.element_size()
        if left < 0:
            raise Refused(f"refused: {name} declares more numbers than it holds, in {tensor}")
        kinds.add(str(value.dtype).removeprefix("torch."))
        plain = value.detach().to(torch.float32) if value.dtype in _FLOATS else value.detach()
        arrays[key] = plain.contiguous().numpy()
    return {"above": list(above), "kinds": sorted(kinds), "arrays": arrays}


def found(loaded: Any, name: str) -> tuple[tuple[str, ...], dict[Any, Any]]:
    """The state dict in what a file holds, and the keys above it."""
    above: tuple[str, ...] = ()
    for _ in range(_DEPTH):
        if not isinstance(loaded, dict) or not dict.__len__(loaded):
            break
        state = dict(dict.items(loaded))
        other = next((key for key, value in state.items() if not isinstance(value, torch.Tensor)), None)
        if other is None:
            return above, state
        inner = next((key for key in USUAL if isinstance(state.get(key), dict)), None)
        if inner is None:
            if any(isinstance(value, torch.Tensor) for value in state.values()):
                kind = type(state[other]).__name__
                raise Refused(f"refused: '{printable(other)}' in {name} is of type {kind} and no tensor")
            break
        above, loaded = (*above, inner), state[inner]
    raise Refused(f"refused: {name} holds no state dict, neither by itself nor under {', '.join(USUAL)}")


def _check(value: Any, what: str) -> None:
    """A tensor must be a plain block of numbers that are there."""
    odd = None
    if type(value) not in (torch.Tensor, nn.Parameter):
        odd = f"of type {type(value).__name__}"
    elif value.layout is not torch.strided:
        odd = f"stored as {str(value.layout).removeprefix('torch.')}"
    elif value.device.type != "cpu":
        odd = f"on the device {value.device.type}"
    elif value.is_quantized or value.is_nested or value.dtype not in (*_FLOATS, *_WHOLE):
        odd = f"of {str(value.dtype).removeprefix('torch.')}"
    elif value.dim() > 8:
        odd = f"of {value.dim()} dimensions"
    if odd is not None:
        raise Refused(f"refused: {what} is {odd}; AGNES reads plain, dense numbers")
    end = (value.storage_offset() + value.numel()) * value.element_size()
    if end > value.untyped_storage().nbytes() or not _dense(value.shape, value.stride()):
        raise Refused(f"refused: {what} declares {_shape(value)} numbers, which the file does not hold one by one")


def _dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the numbers lie side by side, in whatever order of dimensions, none of them shared."""
    step = 1
    for stride, size in sorted((stride, size) for stride, size in zip(strides, shape, strict=True) if size > 1):
        if stride != step:
            return False
        step *= size
    return True


def _shape(value: torch.Tensor) -> str:
    return "x".join(map(str, value.shape))
