"""From a module to one canonical graph: traced, nothing in place, one input, the softmax tail peeled."""

from __future__ import annotations

import copy
import inspect
import linecache
import operator
import os
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.fx._symbolic_trace import _assert_is_none
from torch.fx.proxy import TraceError
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from agnes.errors import Refused
from agnes.layers import RESHAPING, kind_of

_TORCH = os.path.join(os.path.dirname(torch.__file__), "")

_OUT_OF_PLACE: Mapping[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
_SOFTMAX_CALLS = (torch.softmax, functional.softmax, torch.log_softmax, functional.log_softmax)
_SOFTMAX_MODULES = (nn.Softmax, nn.LogSoftmax)
_SOFTMAX_METHODS = ("softmax", "log_softmax")


def trace(module: nn.Module, images: torch.Tensor) -> fx.GraphModule:
    """A private, frozen float32 copy of the module as a graph, in eval mode; on the images it gives the same."""
    try:
        module = copy.deepcopy(module).float().eval().requires_grad_(False)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise Refused(
            f"refused: {type(module).__name__} cannot be copied: {reason(error)}; export it to ONNX"
        ) from error
    expected = _outputs(module, images)
    graph_module = module if isinstance(module, fx.GraphModule) else _trace(module)
    _remove_in_place(graph_module)
    _allow_any_memory_format(graph_module)
    _keep_one_input(graph_module)
    if not _alike(expected, _outputs(graph_module, images)):
        if not _alike(expected, _outputs(module, images)):
            raise Refused(
                "refused: the network gives other logits each time it sees the same image; let it obey eval mode"
            )
        raise Refused(
            "refused: the network computes something else as a graph: a value is overwritten in place and used again; "
            "rewrite it without operations in place, or export the model to ONNX"
        )
    return graph_module


class _Tracer(fx.Tracer):
    """Looks inside modules that are made while the network runs, such as `nn.Softmax(1)(x)`."""

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if all(m is not part for part in self.root.modules()):
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


def _trace(module: nn.Module) -> fx.GraphModule:
    arguments = list(inspect.signature(module.forward).parameters.values())[1:]
    settled = {
        a.name: a.default for a in arguments if a.default is None or isinstance(a.default, (bool, int, float, str))
    }
    try:
        graph = _Tracer().trace(module, settled)
    except TraceError as error:
        raise Refused(
            f"refused: {type(module).__name__} cannot be traced: its control flow depends on the data at "
            f"{_user_line(error)}; rewrite that line without it, or export the model to ONNX"
        ) from error
    except Exception as error:
        raise Refused(
            f"refused: {type(module).__name__} cannot be traced at {_user_line(error)}: {reason(error)}; "
            "rewrite that line, or export the model to ONNX"
        ) from error
    return fx.GraphModule(module, graph).eval()


def _user_line(error: BaseException) -> str:
    """The last line of the traceback that is neither torch's nor ours: where the model's author wrote it."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith((_TORCH, __file__))]
    if not theirs:
        return f"a line torch does not name ({reason(error)})"
    line = (theirs[-1].line or linecache.getline(theirs[-1].filename, theirs[-1].lineno or 0)).strip()
    return f"{theirs[-1].filename}:{theirs[-1].lineno} `{line}`"


def reason(error: BaseException) -> str:
    """The first line of an error."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _outputs(module: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """The tensors a module gives for images that it may overwrite."""
    try:
        with torch.no_grad():
            outputs = module(images.clone())
    except Exception as error:
        shape = "x".join(str(size) for size in images.shape[1:])
        raise Refused(
            f"refused: the network does not run on {len(images)} images of {shape}: {reason(error)}; "
            "check the input shape"
        ) from error
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]


def _alike(ones: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return len(ones) == len(others) and all(close(one, other) for one, other in zip(ones, others, strict=True))


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors differ by no more than rounding does."""
    if one.shape != other.shape:
        return False
    one, other = one.float(), other.float()
    finite = one[one.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    return torch.allclose(one, other, rtol=1e-3, atol=1e-4 * scale, equal_nan=True)


def _keep_one_input(graph_module: fx.GraphModule) -> None:
    """Take out the inputs that have a settled value, and the checks that they keep it."""
    graph = graph_module.graph
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    for node in reversed(graph.nodes):
        if node.op == "call_function" and node.target in (torch._assert, _assert_is_none):
            graph.erase_node(node)
    graph.eliminate_dead_code()
    for node in inputs[1:]:
        if node.users:
            raise Refused(
                f"refused: the network takes {len(inputs)} inputs; AGNES scans classifiers with one input of images"
            )
        graph.erase_node(node)
    if not inputs or not inputs[0].users:
        raise Refused("refused: the network does not read its images; AGNES scans classifiers with one input of images")
    graph_module.recompile()


def _remove_in_place(graph_module: fx.GraphModule) -> None:
    """Values are kept and read again after the cut, so no operation may overwrite its input."""
    order = {node: position for position, node in enumerate(graph_module.graph.nodes)}
    for node in graph_module.graph.nodes:
        overwritten = next(iter(node.all_input_nodes), None)
        if not _made_pure(graph_module, node) or overwritten is None:
            continue
        for user in list(overwritten.users):
            if order[user] > order[node]:  # it read what the operation had written there
                user.replace_input_with(overwritten, node)
    for submodule in graph_module.modules():
        if getattr(submodule, "inplace", False):
            submodule.inplace = False  # type: ignore[assignment]
    graph_module.recompile()


def _made_pure(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Make a node give a new value; False where it did already."""
    if node.op == "call_module":
        return bool(getattr(graph_module.get_submodule(str(node.target)), "inplace", False))
    target = node.target
    if node.op == "call_function":
        name = str(getattr(target, "__name__", ""))
        if target in _OUT_OF_PLACE:
            node.target = _OUT_OF_PLACE[target]
        elif name.endswith("_") and not name.endswith("__"):
            node.target = getattr(torch, name[:-1], None) or getattr(functional, name[:-1], target)
    elif node.op == "call_method" and str(target).endswith("_") and not str(target).endswith("__"):
        node.target = str(target)[:-1]
    if node.kwargs.get("inplace"):
        node.kwargs = {**node.kwargs, "inplace": False}
        return True
    return node.target != target


def _allow_any_memory_format(graph_module: fx.GraphModule) -> None:
    """`view` wants its input contiguous, and methods may compute in another memory format: `reshape` does the same."""
    for node in graph_module.graph.find_nodes(op="call_method", target="view"):
        if not any(isinstance(argument, torch.dtype) for argument in node.args):
            node.target = "reshape"
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
        raise Refused("refused: the model has more than one output; AGNES scans classifiers with one output of logits")
    return value


def peel_softmax(graph_module: fx.GraphModule) -> str | None:
    """Make the logits the output where the file ends in softmax; return what was peeled."""
    node = output_value(graph_module)
    _set_output(graph_module, node)
    peeled = None
    while True:
        if (name := _softmax_name(graph_module, node)) is not None:
            peeled = name
            node.replace_all_uses_with(node.all_input_nodes[0])
        elif len(node.all_input_nodes) != 1 or kind_of(graph_module, node) not in RESHAPING:
            break
        node = node.all_input_nodes[0]
    _set_output(graph_module, output_value(graph_module))
    return peeled


def _softmax_name(graph_module: fx.GraphModule, node: fx.Node) -> str | None:
    if node.op == "call_module" and isinstance(
        module := graph_module.get_submodule(str(node.target)), _SOFTMAX_MODULES
    ):
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


def reach(nodes: Iterable[fx.Node], back: bool = False) -> set[fx.Node]:
    """The nodes and all that they lead to, or that lead to them."""
    seen = set(nodes)
    waiting = list(seen)
    while waiting:
        node = waiting.pop()
        for other in node.all_input_nodes if back else node.users:
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return seen
