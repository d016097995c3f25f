"""A checked file to ONNX, with what TensorFlow computes for random images. Runs in the confined child."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agnes.errors import Refused
from agnes.text import printable

OPSET = 17
_COLOURS = (1, 3, 4)
_MOST_IMAGES = 1024  # of a fixed batch


def from_keras(path: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The model in a .keras or .h5 file."""
    import keras

    from agnes_tensorflow import weights

    model = opened(path)
    if getattr(keras.config, "image_data_format", lambda: "")() == "channels_first" or _channels_first(model):
        raise Refused("refused: the model's layers take channels first, which TensorFlow cannot run on a processor")
    answer = _converted(lambda images: model(images, training=False), _keras_shape(model, asked), "NHWC", asked)
    digests = [weights.digest(weights.to_torch(v.numpy(), d)) for v, d in weights_of(model)]
    answer["weights"] = [[variable.path, each] for (variable, _), each in zip(weights_of(model), digests, strict=True)]
    answer["versions"] = f"tensorflow {_version()}, keras {keras.__version__}"
    return answer


def from_savedmodel(path: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The model that a SavedModel serves."""
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
    layout = asked["layout"] if asked["layout"] != "auto" else _layout(shape)
    answer = _converted(
        lambda images: signature(**{argument: images})[result], _sized(shape, layout, asked), layout, asked
    )
    answer["weights"] = []
    answer["versions"] = f"tensorflow {_version()}"
    return answer


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


def _layout(shape: Sequence[int | None]) -> str:
    return "NCHW" if shape[1] in _COLOURS and shape[3] not in _COLOURS else "NHWC"


def _signature(signatures: Mapping[str, Any]) -> tuple[str, Any]:
    if "serving_default" in signatures:
        return "serving_default", signatures["serving_default"]
    if len(signatures) == 1:
        name, signature = next(iter(signatures.items()))
        return printable(name), signature
    raise Refused(f"refused: the SavedModel has {len(signatures)} signatures, none of them serving_default")


def _converted(
    run: Callable[[Any], Any], shape: tuple[int | None, ...], layout: str, asked: Mapping[str, Any]
) -> dict[str, Any]:
    """The ONNX file, and random images with what TensorFlow gives for them."""
    images, taken = _random_images(shape, layout, asked)
    outputs = np.asarray(run(_tensor(taken)))
    if outputs.ndim < 2 or not np.isfinite(outputs).all():
        raise Refused("refused: TensorFlow's output for random images is not one row of finite logits an image")
    return {
        "onnx": _onnx(run, shape, layout),
        "images": images,
        "outputs": outputs.astype(np.float32),
        "layout": layout,
    }


def _random_images(
    shape: tuple[int | None, ...], layout: str, asked: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels at random, NCHW, and as the file takes them."""
    count = shape[0] or int(asked["images"])
    channels, height, width = shape[1:] if layout == "NCHW" else (shape[3], shape[1], shape[2])
    images = np.random.default_rng(0).random((count, channels, height, width), dtype=np.float32)  # type: ignore[arg-type]
    mean, std = (np.asarray(asked[name], np.float32).reshape(-1, 1, 1) for name in ("mean", "std"))
    taken = (images * np.float32(asked["scale"]) - mean) / std
    return images, np.ascontiguousarray(taken if layout == "NCHW" else taken.transpose(0, 2, 3, 1))


def _onnx(run: Callable[[Any], Any], shape: tuple[int | None, ...], layout: str) -> bytes:
    import tensorflow as tf
    import tf2onnx
    from tf2onnx import tf_loader
    from tf2onnx.optimizer import back_to_back_optimizer

    from agnes_tensorflow import normalisation

    norms: dict[str, normalisation.Norm] = {}

    def unfolded(_inputs: list[str], _outputs: list[str], graph: Any) -> Any:
        """In the place of TensorFlow's optimiser, which folds normalisation into the weights before it."""
        norms.update(normalisation.found_in(graph))
        normalisation.fuse(graph, norms)
        return graph

    logging.disable(logging.ERROR)
    tf_loader.tf_optimize = unfolded
    back_to_back_optimizer._func_map.pop(("Conv", "BatchNormalization"), None)
    spec = [tf.TensorSpec(shape, tf.float32, name="input")]
    model, _ = tf2onnx.convert.from_function(
        tf.function(run, input_signature=spec),
        input_signature=spec,
        opset=OPSET,
        inputs_as_nchw=["input"] if layout == "NHWC" else None,
        custom_op_handlers={"Erfc": (_erfc, [])},
    )
    normalisation.restore(model, norms)
    return model.SerializeToString()


def _erfc(graph: Any, node: Any, name: str, _arguments: Any) -> None:
    """1 - erf(x), which ONNX has."""
    source, target = node.input[0], node.output[0]
    shape, dtype = graph.get_shape(target), graph.get_dtype(target)
    graph.remove_node(node.name)
    erf = graph.make_node("Erf", [source], shapes=[shape], dtypes=[dtype])
    one = graph.make_const(f"{name}/one", np.array(1, np.float32))
    graph.make_node("Sub", [one.output[0], erf.output[0]], outputs=[target], shapes=[shape], dtypes=[dtype])


def _tensor(images: np.ndarray) -> Any:
    import tensorflow as tf

    return tf.constant(images)


def _version() -> str:
    import tensorflow as tf

    return str(tf.__version__)
