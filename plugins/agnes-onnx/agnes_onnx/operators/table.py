"""The table that converters enter themselves into."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import fx

    from agnes_onnx.graph import Builder, Operation

    Converter = Callable[[Operation, Builder], fx.Node | tuple[fx.Node, ...]]

CONVERTERS: dict[str, Any] = {}


class Unsupported(Exception):
    """A use of an operator that a converter does not cover; the message says why."""


def converts(*operators: str) -> Callable[[Converter], Converter]:
    """Enter a function as the converter of operators."""

    def enter(converter: Converter) -> Converter:
        CONVERTERS.update(dict.fromkeys(operators, converter))
        return converter

    return enter
