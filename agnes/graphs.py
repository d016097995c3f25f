"""From a module to one canonical graph: traced, nothing in place, the softmax tail peeled, every value's batch known."""

from __future__ import annotations

import copy
import linecache
import operator
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from agnes.errors import Refused

PROBES = (2, 3)  # batch sizes whose comparison tells what depends on the batch

_OUT_OF_PLACE: Mapping[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
_SOFTMAX_CALLS = (torch.softmax, functional.softmax, torch.log_softmax, functional.log_softmax)
_SOFTMAX_MODULES = (nn.Softmax, nn.LogSoftmax)
_SOFTMAX_METHODS = ("softmax", "log_softmax")


def trace(module: nn.Module) -> fx.GraphModule:
    """A private, frozen copy of the module as a graph, in eval mode."""
    module = copy.deepcopy(module).eval().requires_grad_(False)
    graph_module = module if isinstance(module, fx.GraphModule) else _trace(module)
    _remove_in_place(graph_module)
    return graph_module


def _trace(module: nn.Module) -> fx.GraphModule:
    tracer = fx.Tracer()
    try:
        graph = tracer.trace(module)
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise Refused(
            f"{type(module).__name__} cannot be traced: its control flow depends on the data at {_user_line(error)}; "
            "rewrite that line without it, or export the model to ONNX"
        ) from error
    return fx.GraphModule(module, graph)


def _user_line(error: BaseException) -> str:
    """The last line of the traceback that is neither torch's nor ours: where the model's author wrote it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/torch/" not in frame.filename.replace("\\", "/") and frame.filename != __file__]
    if not ours:
        return f"a line torch does not name ({error})"
    line = (ours[-1].line or linecache.getline(ours[-1].filename, ours[-1].lineno or 0)).strip()
    return f"{ours[-1].filename}:{ours[-1].lineno} `{line}`"


def _remove_in_place(graph_module: fx.GraphModule) -> None:
    """Values are kept and read again after the cut, so no operation may overwrite its input."""
    for submodule in graph_module.modules():
        if getattr(submodule, "inplace", False):
            submodule.inplace = False  # type: ignore[assignment]
    for node in graph_module.graph.nodes:
        if node.op == "call_function":
            node.target = _OUT_OF_PLACE.get(node.target, node.target)
            if str(getattr(node.target, "__name__", "")).endswith("_") and hasattr(torch, node.target.__name__[:-1]):
                node.target = getattr(torch, node.target.__name__[:-1])  # torch.relu_ -> torch.relu
        elif node.op == "call_method" and node.target.endswith("_") and not node.target.startswith("__"):
            node.target = node.target.rstrip("_")
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
    graph_module.recompile()


def output_value(graph_module: fx.GraphModule) -> fx.Node:
    """The node that holds the logits."""
    output = next(node for node in reversed(graph_module.graph.nodes) if node.op == "output")
    value = output.args[0]
    while isinstance(value, (tuple, list)) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping) and len(value) == 1:
        value = next(iter(value.values()))
    if not isinstance(value, fx.Node):
        raise Refused("the model has more than one output; AGNES scans classifiers with one output of logits")
    return value


def peel_softmax(graph_module: fx.GraphModule) -> str | None:
    """Make the logits the output where the file ends in softmax; return what was peeled."""
    node = output_value(graph_module)
    peeled = None
    while (name := _softmax_name(graph_module, node)) is not None:
        peeled = name
        node = node.all_input_nodes[0]
    _set_output(graph_module, node)
    return peeled


def _softmax_name(graph_module: fx.GraphModule, node: fx.Node) -> str | None:
    if node.op == "call_module" and isinstance(module := graph_module.get_submodule(str(node.target)), _SOFTMAX_MODULES):
        return "log_softmax" if isinstance(module, nn.LogSoftmax) else "softmax"
    if node.op == "call_function" and node.target in _SOFTMAX_CALLS:
        return "log_softmax" if "log" in node.target.__name__ else "softmax"  # type: ignore[union-attr]
    if node.op == "call_method" and node.target in _SOFTMAX_METHODS:
        return str(node.target)
    return None


def _set_output(graph_module: fx.GraphModule, node: fx.Node) -> None:
    output = next(n for n in reversed(graph_module.graph.nodes) if n.op == "output")
    output.args = (node,)
    graph_module.graph.eliminate_dead_code()
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()


def flatten_output(graph_module: fx.GraphModule) -> None:
    """Give logits of the shape (batch, classes, 1, 1) their two dimensions."""
    node = output_value(graph_module)
    with graph_module.graph.inserting_after(node):
        flat = graph_module.graph.call_function(torch.flatten, (node, 1))
    _set_output(graph_module, flat)


def prepend(graph_module: fx.GraphModule, name: str, module: nn.Module) -> None:
    """Put a module between the input and all that reads it."""
    graph_module.add_submodule(name, module)
    graph = graph_module.graph
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    with graph.inserting_after(inputs[-1]):
        call = graph.call_module(name, (inputs[0],))
    inputs[0].replace_all_uses_with(call, delete_user_cb=lambda user: user is not call)
    graph_module.recompile()


# What a value is, as the batch grows -------------------------------------------------------------------------------


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
    """An integer that is a multiple of the batch size."""

    factor: int


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
    if isinstance(two, int) and not isinstance(two, bool) and two != three:
        if two * PROBES[1] != three * PROBES[0]:
            raise Unsupported
        return Scaled(two // PROBES[0])
    return Constant(two)


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


def probe(graph_module: fx.GraphModule, input_shape: tuple[int, ...]) -> dict[fx.Node, tuple[Any, Any]]:
    """Every node's value at both probe batch sizes, on seeded noise."""
    generator = torch.Generator().manual_seed(0)
    runs = []
    for batch in PROBES:
        recorder = _Recorder(graph_module)
        images = torch.rand(batch, *input_shape, generator=generator)
        try:
            with torch.no_grad():
                recorder.run(images)
        except Exception as error:
            shape = "x".join(str(size) for size in input_shape)
            reason = str(error).strip().partition("\n")[0]
            raise Refused(f"the network does not run on {batch} images of {shape} in [0, 1]: {reason}") from error
        runs.append(recorder.values)
    return {node: (runs[0][node], runs[1][node]) for node in runs[0]}
