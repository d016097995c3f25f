"""From an ONNX graph to a torch.fx graph of native modules, node by node, each value's size known before it is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.fx.node import map_arg

from agnes.errors import AgnesError, Refused
from agnes.layers import CONVOLUTIONS
from agnes.text import printable
from agnes_onnx import checks, folding, idioms, naming, sizes, tensors
from agnes_onnx.folding import Known
from agnes_onnx.operators import CONVERTERS, Unsupported

PROBES = (2, 3)  # batch sizes whose comparison tells what grows with the batch
_FOLDING = 16  # multiplications that reading a number of a constant counts as
_WEIGHTED = (*CONVOLUTIONS, nn.Linear)


@dataclass(frozen=True)
class Operation:
    """One node of the file, its attributes as Python values."""

    type: str
    name: str
    inputs: tuple[str, ...]  # "" for one left out
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int
    proto: Any = field(compare=False, repr=False)

    def input(self, index: int) -> str:
        """The name of an input; empty where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else ""


@dataclass(frozen=True)
class Imported:
    """A model's graph in torch, and which of its nodes holds which value of the file."""

    module: fx.GraphModule
    nodes: Mapping[str, str]  # value in the file -> node of the graph


def import_graph(
    model: Any, input_shape: Sequence[int], fixed_batch: int | None, limits: checks.Limits, flat: bool = False
) -> Imported:
    """The graph of a checked model. `input_shape` is that of one image as the file takes it, before it is made flat."""
    return Builder(model, input_shape, fixed_batch, limits, flat).build()


class Builder:
    """A graph under construction: what converters read, and how they add to it."""

    def __init__(
        self, model: Any, input_shape: Sequence[int], fixed_batch: int | None, limits: checks.Limits, flat: bool = False
    ) -> None:
        self.model = model
        self.opset = checks.opset_of(model)
        self.fixed_batch = fixed_batch  # the one batch size that sizes in the file are written for
        self.limit = limits.values
        self._left = limits.values
        self._work_limit = self._work_left = limits.work
        self._root = nn.Module()
        self._graph = fx.Graph()
        self._namer = naming.Namer()
        self._parameters: dict[tuple[str, str], nn.Parameter] = {}
        self._modules: dict[fx.Node, nn.Module] = {}
        self._examples: dict[fx.Node, tuple[Any, Any]] = {}  # on the meta device, at both probe batch sizes
        self._weighted: set[fx.Node] = set()  # nodes that a convolution or linear layer leads to
        self._known: dict[str, Known] = {}
        self._nodes: dict[str, fx.Node] = {}
        self._stored: dict[str, fx.Node] = {}
        self._reads = Counter(name for node in model.graph.node for name in node.input)
        self._reads.update(value.name for value in model.graph.output)
        self._start(input_shape, flat)

    def _start(self, input_shape: Sequence[int], flat: bool) -> None:
        for tensor in self.model.graph.initializer:
            array = tensors.array_of(tensor)
            self._known[tensor.name] = Known(array, array)
        self.images = self._graph.placeholder("images")
        two, three = (torch.empty(batch, *input_shape, device="meta") for batch in PROBES)
        self._examples[self.images] = (two, three)
        rows = self.call(torch.flatten, self.images, 1) if flat else self.images
        self._nodes[checks.input_of(self.model).name] = rows

    def build(self) -> Imported:
        """Convert every node, in the file's order."""
        for proto in self.model.graph.node:
            self._convert(_operation(proto, self.opset))
        output = checks.output_of(self.model).name
        if output not in self._nodes:
            raise Refused("refused: the file's output does not depend on its input")
        self._graph.output(self._nodes[output])
        module = fx.GraphModule(self._root, self._graph)
        module.graph.eliminate_dead_code()
        module.delete_all_unused_submodules()
        module.recompile()
        live = {node.name for node in module.graph.nodes}
        return Imported(module, {name: node.name for name, node in self._nodes.items() if node.name in live})

    # Reading

    def example(self, node: fx.Node) -> tuple[torch.Tensor, torch.Tensor]:
        """A node's value at both probe batch sizes, without data."""
        return self._examples[node]

    def rank(self, node: fx.Node) -> int:
        return self._examples[node][0].dim()

    def shapes(self, node: fx.Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A node's shape at both probe batch sizes."""
        two, three = self._examples[node]
        return tuple(two.shape), tuple(three.shape)

    def batch_dim(self, node: fx.Node) -> int | None:
        """The dimension of a node's value that grows with the batch."""
        two, three = self.shapes(node)
        return next((d for d, (a, b) in enumerate(zip(two, three, strict=True)) if a != b), None)

    def known(self, name: str) -> Known | None:
        """A value that no pixel reaches."""
        return self._known.get(name)

    def constant(self, name: str) -> np.ndarray | None:
        """A value that is the same whatever the input and the batch."""
        known = self._known.get(name)
        return None if known is None else known.constant

    def needed(self, name: str, what: str) -> np.ndarray | None:
        """An input that must be constant where it is given at all."""
        if not name:
            return None
        constant = self.constant(name)
        if constant is None:
            raise Unsupported(f"its {what} is computed while it runs")
        return constant

    def node(self, name: str) -> fx.Node:
        """A value as a node; a constant becomes a buffer."""
        if name in self._nodes:
            return self._nodes[name]
        if name not in self._stored:
            known = self._known[name]
            if known.constant is not None:
                self._stored[name] = self.buffer(known.constant, name)
            elif known.one_image is not None:
                self._stored[name] = self.for_each_image(self.buffer(known.one_image, name))
            else:
                raise Unsupported("an input changes with the batch size")
        return self._stored[name]

    def for_each_image(self, row: fx.Node) -> fx.Node:
        """A constant whose first dimension is 1, once for each image."""
        count = self.method("size", self.images, 0)
        return self.method("expand", row, count, *[-1] * (self.rank(row) - 1))

    def is_computed(self, name: str) -> bool:
        """Whether a value depends on the image."""
        return name in self._nodes

    def read_once(self, name: str) -> bool:
        """Whether one node alone reads a value."""
        return self._reads[name] == 1

    def module_of(self, node: fx.Node) -> nn.Module | None:
        return self._modules.get(node)

    def is_after_weights(self, node: fx.Node) -> bool:
        """Whether a convolution or linear layer lies between the image and a node."""
        return node in self._weighted

    # Adding

    def parameter(self, name: str, how: str, array: np.ndarray) -> nn.Parameter:
        """A weight; one that is used twice, in the same way, is kept once."""
        key = (name, how)
        if key not in self._parameters:
            if not np.isfinite(array).all():
                raise Refused(f"refused: weight {printable(name)} holds numbers that are not finite")
            values = torch.from_numpy(np.array(array, dtype=np.float32))
            self._parameters[key] = nn.Parameter(values, requires_grad=False)
        return self._parameters[key]

    def buffer(self, array: np.ndarray, name: str = "") -> fx.Node:
        """A constant that is no weight of a layer."""
        path = self._namer.path(name.rpartition("/")[2].replace(".", "_"), "constant").replace(".", "_")
        self._root.register_buffer(path, torch.from_numpy(np.array(array)))
        return self._emit(self._graph.get_attr(path))

    def module(self, op: Operation, module: nn.Module, *inputs: fx.Node, weight: str = "") -> fx.Node:
        """Call a new module, named after its weight or else after its node."""
        path = self._namer.path(naming.from_weight(weight), naming.from_node(op.name, op.type), op.type.lower())
        self._add_module(path, module.eval().requires_grad_(False))
        node = self._graph.call_module(path, inputs)
        self._modules[node] = module
        return self._emit(node)

    def _add_module(self, path: str, module: nn.Module) -> None:
        """As nn.Module.add_submodule, for paths of which no part is there as anything but a plain module."""
        owner = self._root
        *folders, name = path.split(".")
        for folder in folders:
            if folder not in owner._modules:
                owner.add_module(folder, nn.Module())
            owner = owner.get_submodule(folder)
        owner.add_module(name, module)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """Call a function."""
        return self._emit(self._graph.call_function(function, args, kwargs))

    def method(self, name: str, *args: Any) -> fx.Node:
        """Call a tensor's method."""
        return self._emit(self._graph.call_method(name, args))

    def _emit(self, node: fx.Node) -> fx.Node:
        """Find a new node's sizes without computing it, and count them against the limit."""
        self._examples[node] = self._run(node, 0), self._run(node, 1)
        if any(before in self._weighted for before in node.all_input_nodes) or isinstance(
            self._modules.get(node), _WEIGHTED
        ):
            self._weighted.add(node)
        values = self._examples[node][0]
        made = values if isinstance(values, (tuple, list)) else [values]
        count = sum(value.numel() for value in made if isinstance(value, torch.Tensor))
        self._spend(count // PROBES[0])
        self._toil(node, count)
        return node

    def _toil(self, node: fx.Node, count: int) -> None:
        """Count a node's multiplications against the limit."""
        read = [self._examples[arg][0] for arg in node.args if isinstance(arg, fx.Node)]
        self._labour(sizes.work(self._modules.get(node, node.target), read, count) // PROBES[0])

    def _labour(self, steps: int) -> None:
        self._work_left -= steps
        if self._work_left < 0:
            raise Refused(
                f"refused: one image costs more than onnx.work_limit ({self._work_limit}) steps in this network"
            )

    def _run(self, node: fx.Node, probe: int) -> Any:
        if node.op == "get_attr":
            return self._root.get_buffer(str(node.target)).to("meta")
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: self._examples[n][probe])
        with torch.no_grad():
            if node.op == "call_module":
                module = self._modules[node]
                value = sizes.by_rule(module, args)
                if value is not None:
                    return value
                stored = [*module.named_parameters(), *module.named_buffers()]
                return torch.func.functional_call(module, {name: t.to("meta") for name, t in stored}, args, kwargs)
            function: Any = getattr(torch.Tensor, node.target) if isinstance(node.target, str) else node.target
            value = None if kwargs else sizes.by_rule(function, args)
            return function(*args, **kwargs) if value is None else value

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise Refused(f"refused: one image makes more than onnx.value_limit ({self.limit}) numbers in this network")

    # Converting

    def _convert(self, op: Operation) -> None:
        try:
            if not self._fold(op):
                self._compute(op)
        except AgnesError:
            raise
        except folding.TooLarge:
            raise Refused(
                f"refused: node {printable(op.name)} ({op.type}) makes a constant of more than onnx.value_limit "
                f"({self.limit}) numbers"
            ) from None
        except MemoryError:
            raise Refused(f"refused: node {printable(op.name)} ({op.type}) needs more memory than there is") from None
        except Unsupported as error:
            raise Refused(self._unsupported(op, str(error))) from None
        except (RuntimeError, ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise Refused(self._unsupported(op, printable(str(error).strip().partition("\n")[0]))) from error

    def _unsupported(self, op: Operation, reason: str) -> str:
        where = printable(op.name) or printable(op.outputs[0] if op.outputs else "")
        return (
            f"refused: AGNES cannot convert operator {printable(op.type)} (node {where}, opset {self.opset}): "
            f"{reason}; export the model without it"
        )

    def _fold(self, op: Operation) -> bool:
        """Evaluate a node that no pixel reaches; False for one that must run."""
        if op.type in ("Shape", "Size"):
            self._known[op.outputs[0]] = self._shape(op)
            return True
        if any(name in self._nodes for name in op.inputs):
            return False
        if op.type == "Constant":
            array = folding.constant_of(op.attributes)
            if array is None:
                raise Unsupported("it holds no numbers")
            values: tuple[Known, ...] | None = (Known(array, array),)
        else:
            inputs = [self._known[name] if name else None for name in op.inputs]
            self._labour(_FOLDING * sum(known.two.size for known in inputs if known is not None))
            values = folding.fold(op.type, inputs, op.attributes, self.limit)
        if values is None:
            return False
        for name, known in zip(op.outputs, values, strict=False):
            self._spend(known.two.size)
            self._known[name] = known
        return True

    def _shape(self, op: Operation) -> Known:
        name = op.inputs[0]
        shapes = [k.shape for k in (self._known[name].two, self._known[name].three)] if name in self._known else None
        window = slice(op.attributes.get("start", 0), op.attributes.get("end"))
        two, three = (np.array(s, dtype=np.int64)[window] for s in shapes or self.shapes(self._nodes[name]))
        return Known(two.prod(), three.prod()) if op.type == "Size" else Known(two, three)

    def _compute(self, op: Operation) -> None:
        from agnes_onnx import fallback

        converter = CONVERTERS.get(op.type)
        try:
            if converter is None:
                raise Unsupported("AGNES has no conversion of its own")
            result = converter(op, self)
        except Unsupported as error:
            result = fallback.convert(op, self, str(error))
        results = result if isinstance(result, (tuple, list)) else (result,)
        if op.type in ("Mul", "Div"):
            results = (self._as_activation(op, results[0]),)
        for name, node in zip(op.outputs, results, strict=False):
            self._nodes[name] = node
        if any(name and self._reads[name] for name in op.outputs[len(results) :]):
            raise Unsupported("more than its first output is used")

    def _as_activation(self, op: Operation, node: fx.Node) -> fx.Node:
        """The activation that ends in a node, as its module; the node itself where it is none."""
        found = idioms.recognised(node, self._modules, lambda n: self._root.get_buffer(str(n.target)))
        return node if found is None else self.module(op, found[1], found[0])


def _operation(proto: Any, opset: int) -> Operation:
    try:
        attributes = {attribute.name: _attribute(attribute) for attribute in proto.attribute}
    except (TypeError, ValueError):
        where = printable(proto.name or (proto.output[0] if proto.output else ""))
        raise Refused(
            f"refused: operator {printable(proto.op_type)} (node {where}) has an attribute of no known type"
        ) from None
    return Operation(proto.op_type, proto.name, tuple(proto.input), tuple(proto.output), attributes, opset, proto)


def _attribute(attribute: Any) -> Any:
    from onnx import helper

    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if attribute.HasField("t"):
        return tensors.array_of(attribute.t)
    return value if isinstance(value, (int, float)) else list(value)
