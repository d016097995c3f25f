"""Architectures that plugins register by name, and whether a file's weights fit one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import nn

from agnes.errors import AgnesError, Refused, UsageError, suggestion
from agnes.registry import BrokenPlugin, Plugin, Registry
from agnes.text import printable

if TYPE_CHECKING:
    Shapes = Mapping[str, tuple[int, ...]]

PREFIXES = ("module.", "model.", "state_dict.", "_orig_mod.")  # that wrappers put before every key
_COUNTER = "num_batches_tracked"  # of a BatchNorm; old files lack it and nothing reads it


@dataclass(frozen=True)
class Architecture:
    """A way to make a network, under the name that a user types."""

    name: str
    make: Callable[[int], nn.Module]

    def blank(self, classes: int) -> nn.Module:
        """The module without memory for its weights."""
        try:
            with torch.device("meta"):
                return self.make(classes)
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            raise BrokenPlugin(f"architecture '{self.name}' cannot be made for {classes} classes: {reason}") from error

    @cached_property
    def of_two(self) -> Shapes:
        """The shapes of its weights for two classes."""
        return shapes_in(self.blank(2))

    @cached_property
    def of_three(self) -> Shapes:
        """Those for three: what differs grows with the classes."""
        return shapes_in(self.blank(3))

    def class_count(self, shapes: Shapes) -> int | None:
        """The number of classes that weights were made for, read where the shape grows with it; None: nowhere."""
        for key, shape in self.of_two.items():
            for dim, (a, b) in enumerate(zip(shape, self.of_three[key], strict=True)):
                if (a, b) == (2, 3) and len(shapes.get(key, ())) == len(shape):
                    return shapes[key][dim]
        return None

    def misfit(self, shapes: Shapes) -> str | None:
        """The first key in which weights differ from this architecture, in words; None where they fit."""
        classes = self.class_count(shapes)
        wanted = shapes_in(self.blank(classes if classes and classes > 1 else 2))
        for key, shape in wanted.items():
            if key not in shapes and not key.endswith(_COUNTER):
                return f"'{printable(key)}' of {_written(shape)} is missing"
            if key in shapes and shapes[key] != shape:
                return f"'{printable(key)}' is {_written(shapes[key])} and not {_written(shape)}"
        extra = next((key for key in shapes if key not in wanted), None)
        return None if extra is None else f"'{printable(extra)}' is no weight of it"

    def fits(self, shapes: Shapes) -> bool:
        """Whether weights are of this architecture; their names alone tell most apart."""
        needed = {key for key in self.of_two if not key.endswith(_COUNTER)}
        return needed <= shapes.keys() <= self.of_two.keys() and self.misfit(shapes) is None


def plugins(block: Iterable[str] = ()) -> tuple[Plugin, ...]:
    """What brings architectures here; nothing is imported."""
    return Registry.discover(block).of_stage("architecture")


def installed(block: Iterable[str] = ()) -> tuple[dict[str, Architecture], list[str]]:
    """Every architecture by name, and what went wrong with those that cannot be imported."""
    found, broken = {}, []
    for plugin in plugins(block):
        try:
            found[plugin.name] = Architecture(plugin.name, plugin.load())
        except BrokenPlugin as error:
            broken.append(str(error))
    return found, broken


def named(name: str, block: Iterable[str] = ()) -> Architecture:
    """The architecture a user typed; no other is imported."""
    known = {plugin.name: plugin for plugin in plugins(block)}
    if name not in known:
        hint = suggestion(name, known) if known else "; none is installed, agnes-zoo brings some"
        raise UsageError(f"there is no architecture '{printable(name)}'{hint}")
    return Architecture(name, known[name].load())


def fitting(shapes: Shapes, file: str, block: Iterable[str] = ()) -> Architecture:
    """The one installed architecture that weights fit."""
    architectures, broken = installed(block)
    fits = []
    for architecture in architectures.values():
        try:
            if architecture.fits(shapes):
                fits.append(architecture)
        except AgnesError as error:
            broken.append(str(error))
    if len(fits) == 1:
        return fits[0]
    if fits:
        names = ", ".join(architecture.name for architecture in fits)
        raise Refused(f"refused: the weights in {file} fit several architectures ({names}); say which with --arch")
    known = ", ".join(architectures) or "none"
    reasons = "".join(f"; {reason}" for reason in broken)
    raise Refused(
        f"refused: the weights in {file} fit no installed architecture (known: {known}{reasons}); "
        "install a plugin that has it, or export the model to ONNX"
    )


def shapes_in(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each entry of a module's state dict."""
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def prefix_of(keys: Mapping[str, object]) -> str:
    """What wrappers put before every key."""
    prefix = ""
    while True:
        more = next((p for p in PREFIXES if all(key.startswith(prefix + p) for key in keys)), None)
        if more is None:
            return prefix
        prefix += more


def _written(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "a single number"
