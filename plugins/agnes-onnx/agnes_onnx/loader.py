"""The loader of .onnx files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agnes.errors import Refused, UsageError
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.text import printable

if TYPE_CHECKING:
    from agnes import confinement
    from agnes.loading import LoadOptions
    from agnes.network import Network
    from agnes_onnx.checks import Limits
    from agnes_onnx.graph import Imported

_COLOURS = (1, 3, 4)
_OTHERS = frozenset(
    [".pt", ".pth", ".pt2", ".safetensors", ".keras", ".h5", ".hdf5", ".npz", ".npy", ".pb", ".tflite", ".zip", ".py"]
)
_MOST_IMAGES = 1024  # of a fixed batch


@dataclass(frozen=True)
class OnnxLoader(Method):
    """Opens ONNX classifiers as native modules, and proves each against onnxruntime."""

    size_limit: int = 2_000_000_000  # the most bytes a file and its external data may have
    part_limit: int = 2_000_000  # the most names, nodes and numbers outside weights, before a file is parsed
    node_limit: int = 10_000  # the most operators a graph may have
    value_limit: int = 1 << 27  # the most numbers one image may make on its way through the network
    work_limit: int = 60_000_000_000  # the most multiplications one image may cost
    parity_images: int = 4  # how many random images the network is compared on with onnxruntime
    parity_limit: float = 1e-3  # the largest relative difference from onnxruntime that is accepted
    memory: int = 4 << 30  # bytes that onnxruntime may take in its child process
    cpu_seconds: int = 90  # of processor time that it may take there
    wall_seconds: float = 45.0  # it may take there in all

    @hookimpl
    def load(self, path: Path, options: LoadOptions) -> Network | None:
        """The network in an ONNX file; None where the file is of another format."""
        from agnes_onnx import checks

        limits = checks.Limits(self.size_limit, self.part_limit, self.node_limit, self.value_limit, self.work_limit)
        model = _parsed(path, limits) if path.is_file() else None
        if model is None:
            return None
        checks.check(model, path.parent, limits)
        return self._open(model, options, limits, path.name)

    def _open(self, model: Any, options: LoadOptions, limits: Limits, name: str) -> Network:
        from agnes_onnx import checks, graph

        checks.output_of(model)
        batch, sizes = _declared(checks.input_of(model))
        flat = len(sizes) == 1
        layout, shape = _flat_shape(sizes[0], options) if flat else _image_shape(sizes, model, options)
        as_taken = shape if layout == "NCHW" else (*shape[1:], shape[0])
        if (batch or 1) * math.prod(shape) > limits.values:
            raise Refused(f"refused: the file's input is larger than onnx.value_limit ({limits.values} numbers)")
        imported = graph.import_graph(model, as_taken, batch, limits, flat)
        return self._compared(model, imported, options, _Form(layout, shape, batch, flat), name)

    def _compared(self, model: Any, imported: Imported, options: LoadOptions, form: _Form, name: str) -> Network:
        """The network, while onnxruntime runs the file beside it; then the two are compared."""
        from agnes.network import Network
        from agnes.preprocess import Preprocess
        from agnes_onnx import parity, runtime

        preprocess = Preprocess(options.mean, options.std, options.scale, form.layout)
        preprocess.check(form.shape[0])
        images, real = parity.images(form.shape, self.parity_images, options)
        reference = runtime.Reference(form.batch, self._child(), name)
        with ThreadPoolExecutor(1) as beside:
            taken = preprocess(images).flatten(1) if form.flat else preprocess(images)
            answer = beside.submit(reference.run, model.SerializeToString(), taken)
            network = Network.of(
                imported.module,
                form.shape,
                class_names=options.class_names,
                mean=options.mean,
                std=options.std,
                scale=options.scale,
                layout=form.layout,
                facts=_facts(model, form),
            )
            measured = parity.measure(network, model, imported, images, answer.result(), reference, self.parity_limit)
        measured = {**measured, "real_images": real}
        network.facts = {**network.facts, "parity": measured, "isolation": runtime.isolation()}
        return network

    def _child(self) -> confinement.Limits:
        from agnes import confinement

        return confinement.Limits(self.memory, self.cpu_seconds, self.wall_seconds)


@dataclass(frozen=True)
class _Form:
    """What the file takes."""

    layout: Literal["NCHW", "NHWC"]
    shape: tuple[int, int, int]  # of one image: channels, height, width
    batch: int | None  # the only one it takes
    flat: bool  # whether it takes images as rows of numbers


def _parsed(path: Path, limits: Limits) -> Any:
    """The model in a file; None where the file is of another format."""
    from agnes_onnx import checks

    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return checks.parse(path, limits)
    if suffix in _OTHERS or not checks.has_onnx_start(path):
        return None
    try:
        return checks.parse(path, limits)
    except Refused:
        return None


def _facts(model: Any, form: _Form) -> dict[str, Any]:
    from agnes_onnx import checks

    return {
        "format": "onnx",
        "opset": checks.opset_of(model),
        "producer": printable(f"{model.producer_name} {model.producer_version}".strip()),
        "ir_version": model.ir_version,
        "input_name": printable(checks.input_of(model).name),
        "output_name": printable(checks.output_of(model).name),
        "layout": form.layout,
        "batch": form.batch or "any",
        **({"flat": True} if form.flat else {}),
        "operators": {printable(name): n for name, n in checks.operator_counts(model).items()},
    }


def _declared(source: Any) -> tuple[int | None, tuple[int | None, ...]]:
    """The batch size and the three sizes that the file declares, or the one of flat images; None where left open."""
    dims = [
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in source.type.tensor_type.shape.dim
    ]
    if len(dims) not in (2, 4):
        raise Refused(
            f"refused: the file's input has {len(dims)} dimensions; AGNES scans classifiers of image batches, 4"
        )
    if (dims[0] or 0) > _MOST_IMAGES:
        raise Refused(f"refused: the file takes {dims[0]} images at a time; export it with a batch of any size")
    return dims[0], tuple(dims[1:])


def _flat_shape(count: int | None, options: LoadOptions) -> tuple[Literal["NCHW", "NHWC"], tuple[int, int, int]]:
    """The order of a flat image's numbers, and its channels, height and width, which only the user knows."""
    given = options.input_shape
    if given is None or len(given) != 3 or count not in (None, math.prod(given)):
        numbers = "numbers" if count is None else f"{count} numbers"
        raise UsageError(f"the file takes an image as a row of {numbers}; give --input-shape channels,height,width")
    return "NHWC" if options.layout == "NHWC" else "NCHW", (given[0], given[1], given[2])


def _image_shape(
    sizes: Sequence[int | None], model: Any, options: LoadOptions
) -> tuple[Literal["NCHW", "NHWC"], tuple[int, int, int]]:
    """The layout of the file's input, and the channels, height and width of one image."""
    layout = options.layout if options.layout != "auto" else _layout(sizes, model, options.input_shape)
    _check_colours(sizes, layout)
    said = tuple(sizes) if layout == "NCHW" else (sizes[2], sizes[0], sizes[1])
    given = options.input_shape
    if given is not None:
        if len(given) != 3 or any(size < 1 for size in given):
            raise UsageError(f"the input shape {given} is not channels,height,width")
        if any(a is not None and a != b for a, b in zip(said, given, strict=True)):
            raise UsageError(f"the input shape {_written(given)} was given, and the file says {_written(said)}")
        said = given
    if any(size is None for size in said):
        raise UsageError(
            f"the file leaves its input's size open ({_written(said)}); give --input-shape channels,height,width"
        )
    channels, height, width = (int(size) for size in said if size is not None)
    return layout, (channels, height, width)


def _check_colours(sizes: Sequence[int | None], layout: str) -> None:
    """Refuse a layout in which an image has many colours, where it has few in the other."""
    colours, other = (sizes[0], sizes[2]) if layout == "NCHW" else (sizes[2], sizes[0])
    if other in _COLOURS and colours not in (None, *_COLOURS):
        raise UsageError(
            f"the file's input is {_written(sizes)}, which as {layout} is an image of {colours} colours; "
            "say the other --layout, or none"
        )


def _layout(sizes: Sequence[int | None], model: Any, given: Sequence[int] | None) -> Literal["NCHW", "NHWC"]:
    first, middle, last = sizes
    colours = _COLOURS if given is None else (given[0],)
    if first in colours and last not in colours:
        return "NCHW"
    if last in colours and first not in colours:
        return "NHWC"
    if _first_transpose(model) == [0, 3, 1, 2]:
        return "NHWC"
    if first in colours or (first is not None and middle == last) or _reads_channels_first(model):
        return "NCHW"
    if last is not None and first == middle:
        return "NHWC"
    raise UsageError(f"the file's input is {_written(sizes)}, which may be NCHW or NHWC; say which with --layout")


def _first_transpose(model: Any) -> list[int] | None:
    """How the image is transposed before all else, through arithmetic only."""
    from agnes_onnx import checks

    names = {checks.input_of(model).name}
    for node in model.graph.node:
        if not names & set(node.input):
            continue
        if node.op_type == "Transpose":
            return next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
        if node.op_type not in ("Add", "Sub", "Mul", "Div", "Identity", "Cast"):
            return None
        names.update(node.output)
    return None


def _reads_channels_first(model: Any) -> bool:
    from agnes_onnx import checks

    name = checks.input_of(model).name
    return any(node.op_type in ("Conv", "MaxPool") and node.input[0] == name for node in model.graph.node)


def _written(sizes: Sequence[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in sizes)
