"""What each value of a graph is, as the batch grows: data of images, a size, or always the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from agnes.errors import Refused
from agnes.graphs import close, reason

PROBES = (2, 3)  # batch sizes whose comparison tells what depends on the batch


@dataclass(frozen=True)
class Batched:
    """A tensor with `per_image` rows for each image along `dim`, the rows of an image side by side."""

    dim: int
    per_image: int

    def rows(self, value: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """The rows of the chosen images, in that order."""
        images = images.to(value.device)
        if self.per_image > 1:
            images = (images[:, None] * self.per_image + torch.arange(self.per_image, device=value.device)).flatten()
        return value.index_select(self.dim, images)

    def count(self, value: torch.Tensor) -> int:
        return value.shape[self.dim] // self.per_image


@dataclass(frozen=True)
class Scaled:
    """A number that is a multiple of the batch size."""

    factor: int | float


@dataclass(frozen=True)
class Constant:
    """The same whatever the input."""

    value: Any


@dataclass(frozen=True)
class ScaledTensor:
    """An integer tensor, such as a shape, some of whose entries are multiples of the batch size."""

    value: torch.Tensor  # at batch size 0
    factor: torch.Tensor


@dataclass(frozen=True)
class Several:
    """A tuple, list or torch.Size of values."""

    kind: Callable[[list], Any]
    items: tuple[Any, ...]


class Unsupported(Exception):
    """A value whose dependence on the batch has no simple form."""


def compare(two: Any, three: Any) -> Any:
    """What a value is, from what it was at the two probes."""
    if isinstance(two, torch.Tensor):
        return _compare_tensors(two, three)
    if isinstance(two, (tuple, list)):
        if len(two) != len(three):
            raise Unsupported
        kind = torch.Size if isinstance(two, torch.Size) else type(two)
        return Several(kind, tuple(compare(a, b) for a, b in zip(two, three, strict=True)))
    if isinstance(two, Mapping):
        raise Unsupported
    if not isinstance(two, (int, float)) or two == three:
        return Constant(two)
    if isinstance(two, bool) or two * PROBES[1] != three * PROBES[0]:
        raise Unsupported
    return Scaled(two / PROBES[0] if isinstance(two, float) else two // PROBES[0])


def _compare_tensors(two: torch.Tensor, three: torch.Tensor) -> Any:
    if two.dim() != three.dim():
        raise Unsupported
    differing = [d for d in range(two.dim()) if two.shape[d] != three.shape[d]]
    if not differing:
        if torch.equal(two, three):
            return Constant(two)
        if two.is_floating_point():
            raise Unsupported
        factor = (three - two) // (PROBES[1] - PROBES[0])
        return ScaledTensor(two - PROBES[0] * factor, factor)
    dim = differing[0]
    if len(differing) > 1 or two.shape[dim] * PROBES[1] != three.shape[dim] * PROBES[0]:
        raise Unsupported
    return Batched(dim, two.shape[dim] // PROBES[0])


def is_data(form: Any) -> bool:
    """Whether a value carries image content, and so must be kept across a cut."""
    return isinstance(form, Batched) or (isinstance(form, Several) and any(is_data(item) for item in form.items))


def select(form: Any, value: Any, images: torch.Tensor) -> Any:
    """The value for the chosen images only, in that order."""
    if isinstance(form, Batched):
        return form.rows(value, images)
    if isinstance(form, Several):
        return form.kind([select(item, part, images) for item, part in zip(form.items, value, strict=True)])
    return rebuild(form, len(images), images.device)


def rebuild(form: Any, batch: int, device: torch.device) -> Any:
    """A value that depends on nothing but the batch size."""
    if isinstance(form, Scaled):
        return form.factor * batch
    if isinstance(form, Several):
        return form.kind([rebuild(item, batch, device) for item in form.items])
    if isinstance(form, ScaledTensor):
        return (form.value + batch * form.factor).to(device)
    value = form.value
    return value.to(device) if isinstance(value, torch.Tensor) else value


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps what each node gave."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module, garbage_collect_values=False)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.values[n] = value
        return value


def noise(input_shape: tuple[int, ...]) -> dict[int, torch.Tensor]:
    """Images of both probes: those of the first, turned round, and one of extremes between them."""
    generator = torch.Generator().manual_seed(0)
    first, second, third = torch.rand(3, *input_shape, generator=generator)
    return {2: torch.stack([first, second]), 3: torch.stack([second, third.round(), first])}


def probe(graph_module: fx.GraphModule, images: Mapping[int, torch.Tensor]) -> dict[fx.Node, tuple[Any, Any]]:
    """Every node's value at both probe batch sizes."""
    runs = []
    for batch in PROBES:
        recorder = _Recorder(graph_module)
        try:
            with torch.no_grad():
                recorder.run(images[batch])
        except Exception as error:
            raise Refused(f"refused: the network does not run on a batch of {batch} images: {reason(error)}") from error
        runs.append(recorder.values)
    return {node: (runs[0][node], runs[1][node]) for node in runs[0]}


def mixes_images(values: tuple[torch.Tensor, torch.Tensor]) -> bool:
    """Whether the rows of the images that both probes show depend on the company they are in."""
    two, three = values
    return not close(two, three[[2, 0]])


def describe(values: Mapping[fx.Node, tuple[Any, Any]]) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """Every node's form and, where it holds one batch of images in its first dimension, the shape for one image."""
    found: dict[str, Any] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for node, (two, three) in values.items():
        try:
            form = compare(two, three)
        except Unsupported:
            continue
        found[node.name] = form
        if form == Batched(0, 1):
            shapes[node.name] = tuple(two.shape[1:])
    return found, shapes
