"""What a method must leave as it found it, written down before and compared after."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from agnes.network import Network

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)


def network_facts(network: Network) -> dict[str, Any]:
    """Weights, mode, requires_grad, gradients, hooks and graph of a network, by words for an error message."""
    module = network.module
    facts: dict[str, Any] = {"the graph": str(module.graph)}
    for name, tensor in module.state_dict().items():
        facts[f"the weight '{name}'"] = bits(tensor)
    for name, parameter in module.named_parameters():
        facts[f"requires_grad of '{name}'"] = parameter.requires_grad
        facts[f"the gradient of '{name}'"] = bits(parameter.grad)
    for name, part in module.named_modules():
        facts[f"the mode of '{name}'"] = part.training
        facts[f"the hooks of '{name}'"] = tuple(len(getattr(part, hooks, ())) for hooks in _HOOKS)
    return facts


def global_facts() -> dict[str, Any]:
    """The random states and switches that all of a process shares."""
    numpy_state = np.random.get_state(legacy=False)
    facts = {
        "torch's random state": bits(torch.get_rng_state()),
        "numpy's random state": fingerprint(numpy_state),
        "random's state": random.getstate(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "torch's number of threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        facts["CUDA's random state"] = bits(torch.cuda.get_rng_state())
    return facts


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What is no longer as it was."""
    return [name for name in {**before, **after} if name not in before or before[name] != after.get(name)]


def fingerprint(value: Any) -> Any:
    """A value as something that is equal only when every bit of it is: tensors and networks by their bytes."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return bits(torch.as_tensor(value))
    if isinstance(value, Network):
        return tuple(network_facts(value).items())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((field.name, fingerprint(getattr(value, field.name))) for field in dataclasses.fields(value))
        return type(value).__qualname__, tuple(fields)
    if isinstance(value, Mapping):
        return tuple((key, fingerprint(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(fingerprint(item) for item in value)
    return repr(value)  # of floats, exact, and of NaN equal to itself


def bits(tensor: torch.Tensor | None) -> tuple[Any, ...] | None:
    """Type, shape and bytes of a tensor."""
    if tensor is None:
        return None
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return str(tensor.dtype), tuple(tensor.shape), raw


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor that a result holds, networks left out."""
    if isinstance(value, torch.Tensor):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
