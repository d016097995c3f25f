"""The JSON from which Keras builds a model: only built-in layers, and nothing that names code or files."""

from __future__ import annotations

import json
from typing import Any

from agnes.errors import Refused
from agnes.text import printable


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MODELS = _words("Sequential Functional Model")
_LAYERS = _words(
    """
    InputLayer Dense EinsumDense Embedding Conv2D DepthwiseConv2D SeparableConv2D Conv2DTranspose
    Convolution2D DepthwiseConvolution2D SeparableConvolution2D Convolution2DTranspose
    BatchNormalization LayerNormalization GroupNormalization UnitNormalization RMSNormalization Normalization Rescaling
    Activation ReLU LeakyReLU PReLU ELU Softmax Identity
    Add Subtract Multiply Average Maximum Minimum Concatenate Dot
    MaxPooling2D MaxPool2D AveragePooling2D AvgPool2D GlobalAveragePooling2D GlobalAvgPool2D GlobalMaxPooling2D
    GlobalMaxPool2D GlobalAveragePooling1D GlobalAvgPool1D GlobalMaxPooling1D GlobalMaxPool1D
    ZeroPadding2D Cropping2D UpSampling2D Flatten Reshape Permute RepeatVector Resizing CenterCrop
    Dropout SpatialDropout1D SpatialDropout2D GaussianNoise GaussianDropout AlphaDropout ActivityRegularization
    RandomFlip RandomRotation RandomZoom RandomTranslation RandomContrast RandomBrightness
    MultiHeadAttention Attention
    """
)
_INITIALIZERS = _words(
    """
    Zeros Ones Constant Identity Orthogonal RandomNormal RandomUniform TruncatedNormal VarianceScaling GlorotNormal
    GlorotUniform HeNormal HeUniform LecunNormal LecunUniform
    """
)
_REGULARIZERS = _words("L1 L2 L1L2 OrthogonalRegularizer")
_CONSTRAINTS = _words("MaxNorm MinMaxNorm NonNeg UnitNorm")
_POLICIES = _words("DTypePolicy Policy")
_OPERATIONS = _words(  # arithmetic on values between layers
    """
    Add Subtract Multiply Divide TrueDivide Negative Abs Absolute Square Sqrt Power Exp Log Maximum Minimum Mean Max Min
    Sum Reshape Transpose Concatenate Squeeze ExpandDims Matmul GetItem Clip BroadcastTo Repeat Stack Tanh
    Relu Relu6 Sigmoid HardSigmoid Silu HardSilu Gelu Elu Selu LeakyRelu Softmax LogSoftmax Softplus Softsign
    """
)
_ACTIVATIONS = _words(
    """
    linear relu relu6 leaky_relu elu selu gelu silu swish mish celu sigmoid hard_sigmoid hard_silu hard_swish tanh
    hard_tanh softmax log_softmax softplus softsign exponential log_sigmoid
    """
)
_BY_MODULE = {
    "keras": _MODELS | _LAYERS | _POLICIES,
    "keras.models": _MODELS,
    "keras.src.models.functional": _MODELS,
    "keras.src.models.sequential": _MODELS,
    "keras.layers": _LAYERS,
    "keras.initializers": _INITIALIZERS,
    "keras.regularizers": _REGULARIZERS,
    "keras.constraints": _CONSTRAINTS,
    "keras.dtype_policies": _POLICIES,
    "keras.mixed_precision": _POLICIES,
    "keras.ops": _OPERATIONS,
    "keras.src.ops.numpy": _OPERATIONS,
    "keras.src.ops.nn": _OPERATIONS,
}
_WITHOUT_MODULE = _MODELS | _LAYERS | _INITIALIZERS | _REGULARIZERS | _CONSTRAINTS | _POLICIES  # as older files are
_PLAIN = _words("__keras_tensor__ __tensor__ __numpy__ __slice__ __ellipsis__ TensorShape")
_DTYPES = _words("float16 bfloat16 float32 float64 int8 int16 int32 int64 uint8 bool")
_DANGEROUS = {
    "Lambda": "holds Python code",
    "__lambda__": "holds Python code",
    "TFSMLayer": "opens another model's files",
    "StringLookup": "reads a vocabulary from a file",
    "IntegerLookup": "reads a vocabulary from a file",
    "TextVectorization": "reads a vocabulary from a file",
}
_DEPTH = 60
_LARGEST = 1 << 31
_OBJECTS = 50_000
_BUILT = 20_000


def check(text: str, name: str) -> dict[str, Any]:
    """Refuse a configuration that would make Keras do more than build known layers; return it."""
    try:
        config = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Refused(f"refused: the configuration in {name} is no JSON ({printable(error)})") from None
    if not isinstance(config, dict) or config.get("class_name") not in _MODELS:
        kind = printable(config.get("class_name", "nothing") if isinstance(config, dict) else type(config).__name__)
        raise Refused(
            f"refused: {name} holds {kind!r}, not a Sequential or functional model; "
            "AGNES runs no classes of a file's own, export the model to ONNX"
        )
    if "config" not in config:
        raise Refused(f"refused: the configuration in {name} describes no layers")
    _Checker(name).value({key: value for key, value in config.items() if key != "compile_config"}, 0)
    if _built(config) > _BUILT:
        raise Refused(
            f"refused: the configuration in {name} builds more than {_BUILT} layers; export the model to ONNX"
        )
    return config


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found


def image_shape(config: dict[str, Any]) -> tuple[int, int, int] | None:
    """The channels, height and width that a checked configuration says an image has; None where it does not."""
    layers = config["config"].get("layers") if isinstance(config["config"], dict) else None
    for layer in layers if isinstance(layers, list) else ():
        inner = layer.get("config") if isinstance(layer, dict) else None
        batch = (inner.get("batch_shape") or inner.get("batch_input_shape")) if isinstance(inner, dict) else None
        if (
            isinstance(batch, list)
            and len(batch) == 4
            and all(isinstance(size, int) and size > 0 for size in batch[1:])
        ):
            return batch[3], batch[1], batch[2]
    return None


def _built(config: Any) -> int:
    """How many layers are built where each model within a model is built as often as it is called."""
    inner = config.get("config") if isinstance(config, dict) else None
    layers = inner.get("layers") if isinstance(inner, dict) else None
    if not isinstance(layers, list):
        return 1
    total = 1
    for layer in layers:
        calls = layer.get("inbound_nodes") if isinstance(layer, dict) else None
        total += _built(layer) * max(len(calls) if isinstance(calls, list) else 1, 1)
    return total


class _Checker:
    """Walks a configuration, counting what it sees."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._objects = 0

    def value(self, value: Any, depth: int) -> None:
        if depth > _DEPTH:
            raise self._refusal(f"is nested deeper than {_DEPTH}")
        if isinstance(value, dict):
            self._mapping(value, depth)
        elif isinstance(value, list):
            for item in value:
                self.value(item, depth + 1)
        elif isinstance(value, int | float) and not -_LARGEST < value < _LARGEST:
            raise self._refusal(f"holds the number {value:.3g}")

    def _mapping(self, mapping: dict[str, Any], depth: int) -> None:
        self._objects += 1
        if self._objects > _OBJECTS:
            raise self._refusal(f"holds more than {_OBJECTS} objects")
        if "class_name" in mapping:
            self._named(mapping)
        if mapping.get("compile_config") is not None:
            raise self._refusal("holds a model inside it that was compiled; save it uncompiled")
        for key, value in mapping.items():
            if key.endswith("activation") and isinstance(value, str) and value not in _ACTIVATIONS:
                raise self._refusal(f"asks for the activation {printable(value)!r}, which is not Keras's own")
            if "vocabulary" in key and value is not None:
                raise self._refusal("names a vocabulary, which may be any file")
            if key != "shared_object_id":  # any number, by which objects are told apart
                self.value(value, depth + 1)

    def _named(self, mapping: dict[str, Any]) -> None:
        kind, module, registered = (mapping.get(key) for key in ("class_name", "module", "registered_name"))
        if not isinstance(kind, str) or not isinstance(module, str | None) or not isinstance(registered, str | None):
            raise self._refusal("names a class by something that is no name")
        shown = printable(kind)
        if kind in _DANGEROUS:
            raise self._refusal(f"has a layer of kind {shown}, which {_DANGEROUS[kind]}")
        if kind in _PLAIN:
            self._plain(mapping)
        elif kind == "function":
            self._function(mapping, module)
        elif kind not in (_WITHOUT_MODULE if module is None else _BY_MODULE.get(module, ())):
            where = f" of {printable(module)}" if module else ""
            raise self._refusal(f"asks for {shown!r}{where}, which AGNES does not know as a layer of Keras's own")
        if registered not in (None, kind) and kind != "function":
            raise self._refusal(f"asks for the custom object {printable(registered)!r}")

    def _function(self, mapping: dict[str, Any], module: str | None) -> None:
        wanted = mapping.get("config")
        if module not in ("builtins", "keras.activations") or wanted not in _ACTIVATIONS:
            raise self._refusal(f"asks for the function {printable(wanted)!r} of {printable(module)}")
        if mapping.get("registered_name") not in (None, wanted):
            raise self._refusal(f"asks for the custom object {printable(mapping['registered_name'])!r}")

    def _plain(self, mapping: dict[str, Any]) -> None:
        inner = mapping.get("config")
        dtype = inner.get("dtype") if isinstance(inner, dict) else None
        if dtype is not None and dtype not in _DTYPES:
            raise self._refusal(f"holds a tensor of type {printable(dtype)!r}")

    def _refusal(self, what: str) -> Refused:
        return Refused(
            f"refused: the configuration in {self._name} {what}; "
            "AGNES builds plain models of Keras's own layers only; export this one to ONNX"
        )
