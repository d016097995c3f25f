"""State dicts in safetensors files, in and out of modules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from agnes.errors import Refused
from agnes.text import printable
from agnes_pytorch.architectures import Architecture


def read(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checked file, floats as float32."""
    import safetensors
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        reason = printable(str(error).strip().partition("\n")[0])
        raise Refused(f"refused: {printable(path.name)} is not a sound safetensors file: {reason}") from error
    return {key: _usable(key, value) for key, value in state.items()}


def of_arrays(arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Every array that a child handed back, as read() gives those of a file."""
    return {key: _usable(key, torch.from_numpy(value)) for key, value in arrays.items()}


def _usable(key: str, value: torch.Tensor) -> torch.Tensor:
    if not value.is_floating_point():
        return value
    value = value.to(torch.float32)
    if value.numel() and not all(torch.isfinite(end) for end in value.aminmax()):
        raise Refused(f"refused: weight '{printable(key)}' holds numbers that are not finite in float32")
    return value


def filled(architecture: Architecture, classes: int, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """The architecture with these weights, which fit it."""
    module = architecture.blank(classes)
    module.load_state_dict(dict(state), strict=False, assign=True)
    if any(value.is_meta for value in [*module.parameters(), *module.buffers()]):
        with torch.random.fork_rng(devices=[]):  # what no file holds must be computed by the architecture itself
            module = architecture.make(classes)
        module.load_state_dict(dict(state), strict=False)
    return module.eval()
