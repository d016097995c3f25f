"""A checked file to ONNX, with what TensorFlow computes for random images. Runs in the confined child."""

# pyright: reportMissingImports=false

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agnes.errors import Refused
from agnes.text import printable
from agnes_tensorflow import naming, normalisation, weights

OPSET = 17
_COLOURS = (1, 3, 4)
_MOST_IMAGES = 1024  # of a fixed batch
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


@dataclass(frozen=True)
class Source:
    """An opened model: how it is run, and what is known of it."""

    run: Callable[[Any], Any]
    shape: tuple[int | None, ...]  # of a batch of images as the file takes them
    layout: str
    versions: str
    input_name: str
    output_name: str
    named: Sequence[tuple[str, str]] = ()  # weights as (path, digest)


def converted(path: Path, kind: str, asked: Mapping[str, Any], real: np.ndarray | None = None) -> dict[str, Any]:
    """A checked file's ONNX, and images with what TensorFlow gives for them: random ones, then real ones that fit."""
    source = source_of(path, kind, asked)
    images = random_images(source, int(asked["images"]))
    if real is not None and real.shape[1:] == images.shape[1:]:
        images = np.concatenate([images, real])
    outputs = outputs_of(source, as_taken(source, images, asked))
    if outputs.ndim < 2 or not np.isfinite(outputs).all():
        raise Refused("refused: TensorFlow's output for random images is not one row of finite logits an image")
    model, _ = onnx_of(source)
    return {
        "onnx": model.SerializeToString(),
        "images": images,
        "real_images": len(images) - int(asked["images"]),
        "outputs": outputs,
        "layout": source.layout,
        "versions": source.versions,
        "names": [source.input_name, source.output_name],
        "weights": source.named,
    }


def source_of(path: Path, kind: str, asked: Mapping[str, Any]) -> Source:
    """The model in a checked file of a kind: keras, h5 or savedmodel."""
    return _from_savedmodel(path, asked) if kind == "savedmodel" else _from_keras(path, asked)


def _from_keras(path: Path, asked: Mapping[str, Any]) -> Source:
    import keras

    model = opened(path)
    if _channels_first(model):
        raise Refused("refused: the model's layers take channels first, which TensorFlow cannot run on a processor")
    shape = _keras_shape(model, asked)
    return Source(
        lambda images: model(images, training=False),
        shape,
        "NHWC",
        f"tensorflow {_version()}, keras {keras.__version__}",
        model.inputs[0].name,
        model.layers[-1].name,
        [
            (
                variable.path.removeprefix(f"{model.name}/"),
                weights.digest(weights.to_torch(variable.numpy(), depthwise)),
            )
            for variable, depthwise in weights_of(model)
        ],
    )


def _from_savedmodel(path: Path, asked: Mapping[str, Any]) -> Source:
    import tensorflow as tf

    loaded: Any = tf.saved_model.load(str(path))
    name, signature = _signature(loaded.signatures)
    inputs = signature.structured_input_signature[1]
    outputs = signature.structured_outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise Refused(
            f"refused: {name} has {len(inputs)} inputs and {len(outputs)} outputs; "
            "AGNES scans classifiers of one image input and one output of logits"
        )
    (argument, spec), (result,) = next(iter(inputs.items())), outputs
    if spec.dtype != tf.float32 or spec.shape.rank != 4:
        raise Refused(f"refused: {name} takes {spec.dtype.name} of shape {spec.shape}, not batches of float32 images")
    shape = tuple(spec.shape.as_list())
    layout = asked["layout"] if asked["layout"] != "auto" else layout_of(shape)
    return Source(
        lambda images: (loaded, signature(**{argument: images})[result])[1],  # what is loaded lives as long
        _sized(shape, layout, asked),
        layout,
        f"tensorflow {_version()}",
        argument,
        result,
    )


def opened(path: Path) -> Any:
    """A checked file as a Keras model, without what it was trained with."""
    import keras

    return keras.saving.load_model(str(path), compile=False, safe_mode=True)


def weights_of(model: Any) -> list[tuple[Any, bool]]:
    """A model's weights, and whether each is the kernel of a depthwise convolution."""
    import keras

    depthwise = set()
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            depthwise.add(id(layer.kernel))
        elif isinstance(layer, keras.layers.SeparableConv2D):
            depthwise.add(id(layer.depthwise_kernel))
    return [(variable, id(variable) in depthwise) for variable in model.weights]


def _channels_first(model: Any) -> bool:
    layers = model._flatten_layers(include_self=False)
    return any(getattr(layer, "data_format", None) == "channels_first" for layer in layers)


def _keras_shape(model: Any, asked: Mapping[str, Any]) -> tuple[int | None, ...]:
    given = asked["input_shape"]
    if not model.built:
        if given is None:
            raise Refused("refused: the model does not say what it takes; give --input-shape channels,height,width")
        model.build((None, given[1], given[2], given[0]))
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise Refused(
            f"refused: the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs; "
            "AGNES scans classifiers of one image input and one output of logits"
        )
    shape = tuple(model.inputs[0].shape)
    if len(shape) != 4:
        raise Refused(f"refused: the model takes inputs of {len(shape)} dimensions; AGNES scans image classifiers, 4")
    return _sized(shape, "NHWC", asked)


def _sized(shape: Sequence[int | None], layout: str, asked: Mapping[str, Any]) -> tuple[int | None, ...]:
    """The input's shape with the sizes that the user gives where the file leaves them open."""
    given = asked["input_shape"]
    if given is not None:
        wanted = (given[1], given[2], given[0]) if layout == "NHWC" else tuple(given)
        if any(said not in (None, size) for said, size in zip(shape[1:], wanted, strict=True)):
            raise Refused(f"refused: the input shape {tuple(given)} was given, and the file says {tuple(shape[1:])}")
        shape = (shape[0], *wanted)
    if None in shape[1:]:
        raise Refused("refused: the file leaves its input's size open; give --input-shape channels,height,width")
    if (shape[0] or 0) > _MOST_IMAGES:
        raise Refused(f"refused: the file takes {shape[0]} images at a time; export it with a batch of any size")
    return tuple(shape)


def layout_of(shape: Sequence[int | None]) -> str:
    """The layout of a batch of images of these sizes."""
    return "NCHW" if shape[1] in _COLOURS and shape[3] not in _COLOURS else "NHWC"


def _signature(signatures: Mapping[str, Any]) -> tuple[str, Any]:
    if "serving_default" in signatures:
        return "serving_default", signatures["serving_default"]
    if len(signatures) == 1:
        name, signature = next(iter(signatures.items()))
        return printable(name), signature
    raise Refused(f"refused: the SavedModel has {len(signatures)} signatures, none of them serving_default")


def random_images(source: Source, count: int) -> np.ndarray:
    """Pixels at random, NCHW."""
    shape = source.shape
    channels, height, width = shape[1:] if source.layout == "NCHW" else (shape[3], shape[1], shape[2])
    return np.random.default_rng(0).random((count, channels, height, width), dtype=np.float32)  # type: ignore[arg-type]


def as_taken(source: Source, images: np.ndarray, asked: Mapping[str, Any]) -> np.ndarray:
    """Pixels as the file takes them."""
    mean, std = (np.asarray(asked[name], np.float32).reshape(-1, 1, 1) for name in ("mean", "std"))
    taken = (images * np.float32(asked["scale"]) - mean) / std
    return np.ascontiguousarray(taken if source.layout == "NCHW" else taken.transpose(0, 2, 3, 1))


def outputs_of(source: Source, taken: np.ndarray) -> np.ndarray:
    """What TensorFlow gives for images as the file takes them, in batches of the size that it takes."""
    size = source.shape[0] or len(taken)
    parts = []
    for start in range(0, len(taken), size):
        part = taken[start : start + size]
        filling = np.broadcast_to(part[-1:], (size - len(part), *part.shape[1:]))
        parts.append(np.asarray(source.run(tensor(np.concatenate([part, filling]))), np.float32)[: len(part)])
    return np.concatenate(parts)


def onnx_of(source: Source) -> tuple[Any, Any]:
    """A model as ONNX, its input as the file takes it, and the TensorFlow graph that this was made of."""
    import tensorflow as tf
    from tf2onnx import convert
    from tf2onnx.optimizer import back_to_back_optimizer

    logging.disable(logging.ERROR)
    back_to_back_optimizer._func_map.pop(("Conv", "BatchNormalization"), None)
    spec = [tf.TensorSpec(source.shape, tf.float32, name="input")]
    graph, outputs = _frozen(tf.function(source.run, input_signature=spec).get_concrete_function(*spec))
    norms = normalisation.found_in(graph)
    normalisation.fuse(graph, norms)
    with tf.device("/cpu:0"):
        model, _ = convert._convert_common(
            graph,
            name="model",
            continue_on_error=True,
            opset=OPSET,
            input_names=["input:0"],
            output_names=outputs,
            custom_op_handlers={"Erfc": (_erfc, [])},
        )
    normalisation.restore(model, norms)
    naming.rename(model, source.named)
    return model, graph


def _frozen(function: Any) -> tuple[Any, list[str]]:
    """A function's graph with its variables and what it captured as constants, unoptimised, and its outputs' names."""
    import tensorflow as tf

    graph, outputs = _inlined(function)
    captured = {
        inside.op.name: value.numpy()
        for value, inside in zip(function.captured_inputs, function.graph.internal_captures, strict=True)
        if value.dtype != tf.resource
    }
    for node in graph.node:
        if node.op == "Placeholder" and node.name in captured:
            node.op = "Const"
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(captured[node.name]))
            del node.attr["shape"]
    if any(node.op in _CALLS for node in graph.node):
        _unmark(graph)
        wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
        graph, outputs = _inlined(between(wrapped, outputs))
    return graph, outputs


def _unmark(graph: Any) -> None:
    """Take off functions the marks that they are to be compiled, for such ones, as in grouped convolutions, stay."""
    functions = graph.library.function
    renamed = {function.signature.name: f"{function.signature.name}_unmarked" for function in functions}
    for function in functions:
        function.signature.name = renamed[function.signature.name]
    nodes = [*graph.node, *(node for function in functions for node in function.node_def)]
    for part in (*nodes, *functions):
        for name in [name for name in part.attr if name.lower().startswith("_xla")]:
            del part.attr[name]
        for value in part.attr.values():
            if value.func.name in renamed:
                value.func.name = renamed[value.func.name]


def _inlined(function: Any) -> tuple[Any, list[str]]:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False, aggressive_inlining=True)
    return frozen.graph.as_graph_def(add_shapes=True), [tensor.name for tensor in frozen.outputs]


def between(wrapped: Any, outputs: Sequence[str]) -> Any:
    """The function from the images to some tensors of a graph."""
    graph = wrapped.graph
    return wrapped.prune(graph.as_graph_element("input:0"), [graph.as_graph_element(name) for name in outputs])


def _erfc(graph: Any, node: Any, name: str, _arguments: Any) -> None:
    """1 - erf(x), which ONNX has; 1 + erf(-x) where x is negated, as in GELU."""
    source, target = node.input[0], node.output[0]
    made: dict[str, Any] = {"shapes": [graph.get_shape(target)], "dtypes": [graph.get_dtype(target)]}
    scaled, last = node.inputs[0], "Sub"
    negated = next((each for each in scaled.inputs if each.type == "Neg"), None) if scaled.type == "Mul" else None
    if negated is not None:
        factors = [negated.input[0] if each == negated.output[0] else each for each in scaled.input]
        source, last = graph.make_node("Mul", factors, name=f"{name}/scaled", **made).output[0], "Add"
    graph.remove_node(node.name)
    erf = graph.make_node("Erf", [source], name=f"{name}/erf", **made)
    one = graph.make_const(f"{name}/one", np.array(1, np.float32))
    graph.make_node(last, [one.output[0], erf.output[0]], outputs=[target], name=f"{name}/{last}", **made)


def tensor(images: np.ndarray) -> Any:
    """Images as TensorFlow's own kind of array."""
    import tensorflow as tf

    return tf.constant(images)


def _version() -> str:
    import tensorflow as tf

    return str(tf.__version__)
