"""Layers: the places of a graph where neurons are read and stimulated, and what kinds of operation a graph holds."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

_MODULE_KINDS: tuple[tuple[tuple[type, ...], str], ...] = (
    (CONVOLUTIONS, "conv"),
    ((nn.Linear,), "linear"),
    (BATCH_NORMS, "batch_norm"),
    ((nn.ReLU,), "relu"),
    ((nn.ReLU6, nn.Hardtanh), "clamp"),
    ((nn.LeakyReLU, nn.PReLU), "leaky_relu"),
    ((nn.ELU, nn.SELU, nn.CELU), "elu"),
    ((nn.GELU,), "gelu"),
    ((nn.SiLU,), "silu"),
    ((nn.Hardswish,), "hardswish"),
    ((nn.Sigmoid, nn.Hardsigmoid), "sigmoid"),
    ((nn.Tanh,), "tanh"),
    ((nn.Softplus, nn.Mish), "smooth"),
    ((nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool2d), "max_pool"),
    ((nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool2d), "avg_pool"),
    ((nn.Flatten, nn.Unflatten), "flatten"),
    ((nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout), "dropout"),
    ((nn.Identity,), "identity"),
    ((nn.LayerNorm, nn.GroupNorm), "layer_norm"),
    ((nn.MultiheadAttention,), "attention"),
    ((nn.Softmax, nn.LogSoftmax), "softmax"),
    ((nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d), "pad"),
)
_CALL_KINDS: Mapping[Any, str] = {
    functional.conv2d: "conv",
    functional.linear: "linear",
    functional.relu: "relu",
    torch.relu: "relu",
    functional.relu6: "clamp",
    functional.hardtanh: "clamp",
    torch.clamp: "clamp",
    torch.clamp_min: "clamp",
    functional.leaky_relu: "leaky_relu",
    functional.elu: "elu",
    functional.gelu: "gelu",
    functional.silu: "silu",
    functional.hardswish: "hardswish",
    functional.softplus: "smooth",
    functional.mish: "smooth",
    torch.sigmoid: "sigmoid",
    functional.sigmoid: "sigmoid",
    torch.tanh: "tanh",
    functional.max_pool2d: "max_pool",
    functional.adaptive_max_pool2d: "max_pool",
    torch.amax: "max_pool",
    functional.avg_pool2d: "avg_pool",
    functional.adaptive_avg_pool2d: "avg_pool",
    torch.mean: "avg_pool",
    torch.flatten: "flatten",
    torch.reshape: "flatten",
    functional.dropout: "dropout",
    functional.dropout2d: "dropout",
    torch.add: "add",
    operator.add: "add",
    torch.sub: "add",
    operator.sub: "add",
    torch.mul: "multiply",
    operator.mul: "multiply",
    torch.div: "divide",
    operator.truediv: "divide",
    torch.cat: "concat",
    torch.concat: "concat",
    torch.permute: "permute",
    torch.transpose: "permute",
    functional.pad: "pad",
    torch.matmul: "matmul",
    operator.matmul: "matmul",
    torch.softmax: "softmax",
    functional.softmax: "softmax",
    functional.batch_norm: "batch_norm",
    functional.layer_norm: "layer_norm",
    operator.getitem: "index",
    getattr: "shape",
}
_METHOD_KINDS: Mapping[str, str] = {
    "relu": "relu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "clamp": "clamp",
    "clamp_min": "clamp",
    "view": "flatten",
    "reshape": "flatten",
    "flatten": "flatten",
    "squeeze": "flatten",
    "unsqueeze": "flatten",
    "contiguous": "identity",
    "size": "shape",
    "mean": "avg_pool",
    "amax": "max_pool",
    "permute": "permute",
    "transpose": "permute",
    "add": "add",
    "sub": "add",
    "mul": "multiply",
    "div": "divide",
    "softmax": "softmax",
    "expand": "expand",
    "matmul": "matmul",
}
ACTIVATIONS = frozenset(
    ("relu", "clamp", "leaky_relu", "elu", "gelu", "silu", "hardswish", "sigmoid", "tanh", "smooth")
)
RESHAPING = frozenset(("flatten", "identity", "dropout"))  # the same numbers, in eval mode
_LINEAR = frozenset(("conv", "linear", "batch_norm", "avg_pool", "add", "scale", "preprocess"))
_MOVING = RESHAPING | {"concat", "permute", "pad", "expand", "shape", "index"}
PIECEWISE_LINEAR = _LINEAR | _MOVING | {"relu", "clamp", "leaky_relu", "max_pool"}
_INVISIBLE = frozenset(("shape", "identity", "index", "preprocess"))  # not worth naming to a user


@dataclass(frozen=True)
class Layer:
    """One layer: a weighted operation with the normalisation and activation that follow it, read at its end."""

    name: str  # as the file calls the weighted operation
    index: int
    kind: str  # "conv" or "linear"
    node: str  # the graph's node whose value is read
    shape: tuple[int, ...]  # of that value, one image
    channel_dim: int  # of shape
    module: str  # path of the weighted module; empty where the weight is a bare parameter
    weight: str  # path of the weight
    bias: str | None
    norm: str | None = None  # path of the BatchNorm
    norm_first: bool = True  # False: it follows the activation
    activation: str | None = None  # its kind

    @property
    def channels(self) -> int:
        return self.shape[self.channel_dim]

    @property
    def neurons(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count

    def by_channel(self, value: torch.Tensor) -> torch.Tensor:
        """A value of this layer as images, channels, positions (a view where it can be)."""
        return value.movedim(self.channel_dim + 1, 1).flatten(2) if value.dim() > 2 else value.unsqueeze(2)

    def channel_index(self, channel: int) -> tuple[Any, ...]:
        """The index that picks one channel of all images."""
        return (slice(None),) * (self.channel_dim + 1) + (channel,)


def kind_of(graph_module: fx.GraphModule, node: fx.Node) -> str:
    """The kind of operation a node is; what has no name here is called after its module or function."""
    if node.op == "call_module":
        module = graph_module.get_submodule(str(node.target))
        for classes, kind in _MODULE_KINDS:
            if isinstance(module, classes):
                return kind
        return getattr(module, "agnes_kind", type(module).__name__)
    if node.op == "call_function":
        kind = _CALL_KINDS.get(node.target, str(getattr(node.target, "__name__", node.target)))
    else:
        kind = _METHOD_KINDS.get(str(node.target), str(node.target)) if node.op == "call_method" else node.op
    return "scale" if kind in ("multiply", "divide") and _by_a_number(node, kind) else kind


def _by_a_number(node: fx.Node, kind: str) -> bool:
    """Whether a product has a number for one factor, or a quotient for its divisor; what rounds has more arguments."""
    operands = [*node.args, *(node.kwargs[name] for name in ("input", "other") if name in node.kwargs)]
    if len(operands) != 2 or len(node.args) + len(node.kwargs) != 2:
        return False
    one, other = reversed(operands) if kind == "multiply" and isinstance(operands[1], fx.Node) else operands
    return isinstance(one, fx.Node) and isinstance(other, (int, float))


def kinds_in(graph_module: fx.GraphModule) -> frozenset[str]:
    """The kinds of operation a network is made of, for choosing methods."""
    kinds = (kind_of(graph_module, n) for n in graph_module.graph.nodes if n.op.startswith("call_"))
    return frozenset(kinds) - _INVISIBLE


def find_layers(
    graph_module: fx.GraphModule, output: fx.Node, shapes: Mapping[fx.Node, tuple[int, ...]]
) -> tuple[Layer, ...]:
    """Every weighted operation but the one that gives the logits, in the order of the graph."""
    needed = _ancestors(output)
    layers: list[Layer] = []
    names: set[str] = set()
    for node in graph_module.graph.nodes:
        if node not in needed or node not in shapes or (weight := _weight_of(graph_module, node)) is None:
            continue
        end, norm, norm_first, activation = _follow(graph_module, node)
        if _only_reshapes_to(graph_module, end, output):
            continue
        kind, module, path, bias = weight
        name = path.removesuffix(".weight") if path.removesuffix(".weight") not in names else node.name
        names.add(name)
        shape = shapes[end]
        channel_dim = 0 if kind == "conv" else len(shape) - 1
        layers.append(
            Layer(
                name, len(layers), kind, end.name, shape, channel_dim, module, path, bias, norm, norm_first, activation
            )
        )
    return tuple(layers)


def _weight_of(graph_module: fx.GraphModule, node: fx.Node) -> tuple[str, str, str, str | None] | None:
    """Kind, module path, weight path and bias path of a conv or linear node."""
    kind = kind_of(graph_module, node)
    if kind not in ("conv", "linear"):
        return None
    if node.op == "call_module":
        target = str(node.target)
        has_bias = getattr(graph_module.get_submodule(target), "bias", None) is not None
        return kind, target, f"{target}.weight", f"{target}.bias" if has_bias else None
    operands = [*node.args[1:3], *(node.kwargs[k] for k in ("weight", "bias") if k in node.kwargs)]
    paths = [str(a.target) if isinstance(a, fx.Node) and a.op == "get_attr" else None for a in operands]
    if not paths or paths[0] is None:
        return None  # a product of two computed values: no weights of its own
    return kind, "", paths[0], paths[1] if len(paths) > 1 else None


def _follow(graph_module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, str | None, bool, str | None]:
    """From a weighted operation to the end of its layer: through one normalisation and one activation."""
    norm: str | None = None
    activation: str | None = None
    norm_first = True
    while len(node.users) == 1:
        user = next(iter(node.users))
        kind = kind_of(graph_module, user)
        if kind == "batch_norm" and norm is None and user.op == "call_module":
            norm, norm_first = str(user.target), activation is None
        elif kind in ACTIVATIONS and activation is None and user.all_input_nodes[0] is node:
            activation = kind
        elif kind not in ("dropout", "identity"):
            break
        node = user
    return node, norm, norm_first, activation


def _only_reshapes_to(graph_module: fx.GraphModule, node: fx.Node, output: fx.Node) -> bool:
    """Whether nothing but reshaping lies between a value and the logits."""
    while node is not output:
        node = next(iter(node.users))
        if len(node.all_input_nodes) != 1 or kind_of(graph_module, node) not in RESHAPING:
            return False
    return True


def _ancestors(node: fx.Node) -> set[fx.Node]:
    seen = {node}
    waiting = [node]
    while waiting:
        for parent in waiting.pop().all_input_nodes:
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return seen
