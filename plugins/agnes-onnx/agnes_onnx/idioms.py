"""Activations that a file spells out in small steps, known again by what they compute."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn

from agnes_onnx.operators.pointwise import Affine, HardSigmoid

_KNOWN: tuple[Callable[[], nn.Module], ...] = (
    nn.SiLU,
    nn.Hardswish,
    nn.GELU,
    lambda: nn.GELU("tanh"),
    nn.Mish,
)
_STEPS = (torch.add, torch.sub, torch.mul, torch.div, torch.pow, torch.erf, torch.exp, torch.tanh)
_STEP_MODULES = (Affine, HardSigmoid, nn.Sigmoid, nn.Tanh, nn.Hardsigmoid, nn.Hardtanh, nn.ReLU6, nn.Softplus)
_MOST = 16  # values that are tried as the input
_DEEPEST = 10  # steps between an activation's input and its output
_GRID = torch.linspace(-6, 6, 121, dtype=torch.float64)


class _Leaves(Exception):
    """A value that does not follow from the input assumed."""


def recognised(
    end: fx.Node, modules: Mapping[fx.Node, nn.Module], constants: Callable[[fx.Node], torch.Tensor]
) -> tuple[fx.Node, nn.Module] | None:
    """The input and the activation that a chain of steps ending in a node amounts to; None where it is none."""
    for source in _sources(end, modules):
        try:
            values = _value(end, source, modules, constants, {})
        except _Leaves:
            continue
        for make, expected in zip(_KNOWN, _expected(), strict=True):
            if values.shape == _GRID.shape and torch.allclose(values, expected, rtol=0, atol=1e-5):
                return source, make()
    return None


@functools.cache
def _expected() -> tuple[torch.Tensor, ...]:
    return tuple(make()(_GRID) for make in _KNOWN)


def _sources(end: fx.Node, modules: Mapping[fx.Node, nn.Module]) -> list[fx.Node]:
    """What may be the activation's input: the nodes before it, as far as single steps lead back."""
    found: dict[fx.Node, int] = {end: 0}
    waiting = [end]
    while waiting and len(found) <= _MOST:
        node = waiting.pop(0)
        if not _is_step(node, modules) or found[node] == _DEEPEST:
            continue
        for before in node.all_input_nodes:
            if before not in found and before.op != "get_attr":
                found[before] = found[node] + 1
                waiting.append(before)
    return [node for node in found if node is not end]


def _is_step(node: fx.Node, modules: Mapping[fx.Node, nn.Module]) -> bool:
    return isinstance(modules.get(node), _STEP_MODULES) or (node.op == "call_function" and node.target in _STEPS)


def _value(
    node: fx.Node,
    source: fx.Node,
    modules: Mapping[fx.Node, nn.Module],
    constants: Callable[[fx.Node], torch.Tensor],
    known: dict[fx.Node, torch.Tensor],
) -> torch.Tensor:
    """A node's value for the grid at the source; constants must be single numbers."""
    if node is source:
        return _GRID
    if node.op == "get_attr":
        constant = constants(node)
        if constant.numel() != 1:
            raise _Leaves
        return constant.reshape(()).double()
    if not _is_step(node, modules):
        raise _Leaves
    if node not in known:
        args: list[Any] = [
            _value(arg, source, modules, constants, known) if isinstance(arg, fx.Node) else arg for arg in node.args
        ]
        module = modules.get(node)
        if any(buffer.numel() != 1 for buffer in (module.buffers() if module is not None else ())):
            raise _Leaves
        target: Any = node.target if module is None else module
        known[node] = target(*args).reshape(-1)
    return known[node]
