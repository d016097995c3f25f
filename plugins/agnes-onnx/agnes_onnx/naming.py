"""Module paths that a reader of the original model recognises, made from the names in an ONNX file."""

from __future__ import annotations

import re

from torch import nn

from agnes.text import printable

_TAKEN_BY_TORCH = frozenset(dir(nn.Module())) | {"graph"}
_LONGEST = 120


class Namer:
    """Hands out module paths, each once, none of them inside another's module."""

    def __init__(self) -> None:
        self._leaves: set[str] = set()
        self._folders: set[str] = set()

    def path(self, *wishes: str | None) -> str:
        """A free path after the first wish that has something left when made safe."""
        wanted = next((safe for wish in wishes if wish and (safe := _safe(wish))), "node")
        path, number = wanted, 1
        while path in self._leaves or path in self._folders or self._below_a_leaf(path):
            number += 1
            path = f"{wanted.replace('.', '_') if self._below_a_leaf(wanted) else wanted}_{number}"
        self._leaves.add(path)
        parts = path.split(".")
        self._folders.update(".".join(parts[:end]) for end in range(1, len(parts)))
        return path

    def _below_a_leaf(self, path: str) -> bool:
        parts = path.split(".")
        return any(".".join(parts[:end]) in self._leaves for end in range(1, len(parts)))


def from_weight(name: str) -> str | None:
    """The module that a weight's name tells of: 'features.0.weight' is of 'features.0'."""
    module, dot, kind = name.rpartition(".")
    return module if dot and kind == "weight" and "::" not in name else None


def from_node(name: str, operator: str) -> str:
    """The module that a node's name tells of: '/layer1/layer1.0/conv1/Conv' is of 'layer1.0.conv1'."""
    parts = [part for part in name.strip("/").split("/") if part]
    if len(parts) > 1:
        parts.pop()
    path: list[str] = []
    for part in parts:
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(part)
    return ".".join(path) or operator.lower()


def _safe(name: str) -> str:
    text = printable(name, _LONGEST).replace("/", ".")
    parts = [re.sub(r"[^A-Za-z0-9_]+", "_", part).strip("_") for part in text.split(".")]
    return ".".join(f"{part}_" if part in _TAKEN_BY_TORCH else part for part in parts if part)
