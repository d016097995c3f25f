"""Every family of classifiers, as Keras writes it; run with a folder and names, it writes them there.

A cell is `family.way.format`: way is `functional` or `sequential`, format one of FORMATS. Beside each model stand
images, what Keras gives for them, and what the model is made of.
"""

import json
import sys
from functools import partial

import numpy as np

FORMATS = ("keras", "h5", "savedmodel", "keras-onnx", "tf2onnx-13", "tf2onnx-18")
SUFFIXES = {"keras": ".keras", "h5": ".h5", "savedmodel": ""}
INPUT = (32, 32, 3)


def unit(k, channels, size=3, strides=1, activation="relu"):
    """A convolution without bias, its normalisation and its activation."""
    convolution = k.Conv2D(channels, size, strides=strides, padding="same", use_bias=False)
    return [convolution, k.BatchNormalization(), k.Activation(activation)]


def through(layers, value):
    for layer in layers:
        value = layer(value)
    return value


# written as a chain


def lenet(k):
    return [
        k.Conv2D(6, 5, padding="same", activation="tanh"), k.AveragePooling2D(2), k.Conv2D(8, 5, activation="relu"),
        k.MaxPooling2D(), k.Flatten(), k.Dense(16, activation="relu"), k.Dropout(0.5), k.Dense(5, activation="softmax"),
    ]  # fmt: skip


def alexnet(k):
    return [
        k.Conv2D(8, 5, strides=2, padding="same", activation="relu"), k.MaxPooling2D(3, 2),
        k.Conv2D(12, 3, padding="same", activation="relu"), k.MaxPooling2D(3, 2), k.Flatten(), k.Dropout(0.5),
        k.Dense(24, activation="relu"), k.Dropout(0.5), k.Dense(5),
    ]  # fmt: skip


def grouped(k):
    convolution = k.Conv2D(12, 3, padding="same", groups=4, use_bias=False)
    return [
        *unit(k, 8, strides=2),
        convolution,
        k.BatchNormalization(),
        k.ReLU(),
        k.GlobalAveragePooling2D(),
        k.Dense(5),
    ]


def vgg_bn(k):
    return [
        *unit(k, 4), *unit(k, 4), k.MaxPooling2D(), *unit(k, 8), k.MaxPooling2D(), *unit(k, 8), k.MaxPooling2D(),
        k.Flatten(), k.Dense(16, use_bias=False), k.BatchNormalization(), k.ReLU(), k.Dense(5),
    ]  # fmt: skip


def max_pooled(k):
    return [*unit(k, 8, strides=2), *unit(k, 12), k.GlobalMaxPooling2D(), k.Dense(5, activation="softmax")]


def average_pooled(k):
    return [k.Rescaling(2.0, offset=-1.0), *unit(k, 8, strides=2), k.GlobalAveragePooling2D(), k.Dense(5)]


def activated(k, make):
    first = [k.Conv2D(6, 3, use_bias=False), k.BatchNormalization(), make(k)]
    return [*first, k.Conv2D(6, 3), make(k), k.GlobalAveragePooling2D(), k.Dense(5)]


# written as a graph


def residual(k, value, channels, strides=1):
    inner = through([*unit(k, channels, 3, strides), *unit(k, channels, 3, 1, "linear")], value)
    if strides > 1 or value.shape[-1] != channels:
        value = through(unit(k, channels, 1, strides, "linear"), value)
    return k.ReLU()(k.Add()([value, inner]))


def resnet_18(k, value):
    value = k.MaxPooling2D(3, 2, padding="same")(through(unit(k, 4, 7, 2), k.ZeroPadding2D(3)(value)))
    for stage in range(4):
        for step in range(2):
            value = residual(k, value, 4 << stage, 2 if stage and not step else 1)
    return through([k.GlobalAveragePooling2D(), k.Dense(5)], value)


def pre_activation(k, value):
    value = k.Conv2D(6, 3, strides=2, padding="same")(value)
    for _ in range(2):
        before = through([k.BatchNormalization(), k.ReLU()], value)
        inner = through([k.Conv2D(6, 3, padding="same", use_bias=False), k.BatchNormalization(), k.ReLU()], before)
        value = k.Add()([value, k.Conv2D(6, 3, padding="same")(inner)])
    return through([k.BatchNormalization(), k.ReLU(), k.GlobalAveragePooling2D(), k.Dense(5)], value)


def densenet(k, value):
    value = k.Conv2D(6, 3, strides=2, padding="same", use_bias=False)(value)
    for block in range(2):
        for _ in range(2):
            grown = through([k.BatchNormalization(), k.ReLU(), k.Conv2D(4, 3, padding="same", use_bias=False)], value)
            value = k.Concatenate()([value, grown])
        if not block:
            value = through([k.BatchNormalization(), k.ReLU(), k.Conv2D(6, 1), k.AveragePooling2D(2)], value)
    return through([k.BatchNormalization(), k.ReLU(), k.GlobalAveragePooling2D(), k.Dense(5)], value)


def squeeze_and_excite(k, value):
    channels = value.shape[-1]
    factors = k.GlobalAveragePooling2D(keepdims=True)(value)
    factors = through([k.Conv2D(4, 1, activation="relu"), k.Conv2D(channels, 1, activation="hard_sigmoid")], factors)
    return k.Multiply()([value, factors])


def mobilenet(k, value):
    value = through(unit(k, 6, 3, 2, "hard_swish"), value)
    for strides in (1, 2):
        inner = through(unit(k, 12, 1, 1, "relu6"), value)
        inner = k.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(inner)
        inner = through([k.BatchNormalization(), k.Activation("hard_swish")], inner)
        inner = through(unit(k, 6, 1, 1, "linear"), squeeze_and_excite(k, inner))
        value = inner if strides > 1 else k.Add()([value, inner])
    value = through([k.SeparableConv2D(8, 3, use_bias=False), k.BatchNormalization(), k.ReLU(6.0)], value)
    return through([k.GlobalAveragePooling2D(), k.Dense(5)], value)


def squeezenet(k, value):
    value = through([k.Conv2D(8, 3, strides=2, activation="relu"), k.MaxPooling2D(3, 2)], value)
    for _ in range(2):
        squeezed = k.Conv2D(4, 1, activation="relu")(value)
        sides = [k.Conv2D(6, size, padding="same", activation="relu")(squeezed) for size in (1, 3)]
        value = k.Concatenate()(sides)
    return through([k.Dropout(0.5), k.Conv2D(5, 1, activation="relu"), k.GlobalAveragePooling2D()], value)


def inception(k, value):
    value = through(unit(k, 6, 3, 2), value)
    for _ in range(2):
        branches = [
            through(unit(k, 4, 1), value),
            through([*unit(k, 4, 1), *unit(k, 4, (1, 3)), *unit(k, 4, (3, 1))], value),
            through([*unit(k, 4, 1), *unit(k, 4, 3), *unit(k, 4, 3)], value),
            through([k.AveragePooling2D(3, 1, padding="same"), *unit(k, 4, 1)], value),
        ]
        value = k.MaxPooling2D(3, 2)(k.Concatenate()(branches))
    return through([k.GlobalAveragePooling2D(), k.Dense(5, activation="softmax")], value)


def vit(k, value):
    value = k.Reshape((16, 12))(k.Conv2D(12, 8, strides=8)(value))
    for _ in range(2):
        before = k.LayerNormalization(epsilon=1e-6)(value)
        value = k.Add()([value, k.MultiHeadAttention(3, 4)(before, before)])
        inner = through([k.LayerNormalization(epsilon=1e-6), k.Dense(24, activation="gelu"), k.Dense(12)], value)
        value = k.Add()([value, inner])
    return through([k.LayerNormalization(epsilon=1e-6), k.GlobalAveragePooling1D(), k.Dense(5)], value)


CHAINS = {
    "lenet": lenet,
    "alexnet": alexnet,
    "vgg-bn": vgg_bn,
    "grouped": grouped,
    "global max pooling": max_pooled,
    "global average pooling": average_pooled,
    "leaky relu": partial(activated, make=lambda k: k.LeakyReLU(0.1)),
    "elu": partial(activated, make=lambda k: k.ELU()),
    "gelu": partial(activated, make=lambda k: k.Activation("gelu")),
    "silu": partial(activated, make=lambda k: k.Activation("silu")),
    "hardswish": partial(activated, make=lambda k: k.Activation("hard_swish")),
}
GRAPHS = {
    "resnet-18": resnet_18,
    "pre-activation resnet": pre_activation,
    "densenet": densenet,
    "mobilenet": mobilenet,
    "squeezenet": squeezenet,
    "inception": inception,
    "vit": vit,
}
WAYS = [(name, "sequential") for name in CHAINS] + [(name, "functional") for name in (*CHAINS, *GRAPHS)]
CELLS = [f"{name}.{way}.{form}" for name, way in WAYS for form in FORMATS]


def made(name, way):
    """A family as a model, its weights and statistics at random."""
    import keras
    from keras_classifiers import shaken

    keras.utils.set_random_seed(0)
    k, inputs = keras.layers, keras.Input((28, 28, 1) if name == "lenet" else INPUT)
    if way == "sequential":
        return shaken(keras.Sequential([inputs, *CHAINS[name](k)]), 0.2)
    outputs = through(CHAINS[name](k), inputs) if name in CHAINS else GRAPHS[name](k, inputs)
    return shaken(keras.Model(inputs, outputs), 0.2)


def parts(model):
    """What a model is made of: its layers by kind, and how many numbers its kernels hold."""
    kinds = [type(layer).__name__ for layer in model._flatten_layers(include_self=False)]
    separable = kinds.count("SeparableConv2D")
    weighted = ("kernel", "depthwise_kernel", "pointwise_kernel")
    return {
        "convolutions": kinds.count("Conv2D") + kinds.count("DepthwiseConv2D") + 2 * separable,
        "linear": kinds.count("Dense"),
        "norms": kinds.count("BatchNormalization"),
        "kernels": int(sum(np.prod(v.shape) for v in model.weights if v.path.rpartition("/")[2] in weighted)),
    }


def write_with_tf2onnx(model, way, opset, path):
    """From the model, or as a function where tf2onnx does not know its outputs, as with Keras 3's Sequential."""
    import tensorflow as tf
    from tf2onnx import convert

    if way == "functional":
        convert.from_keras(model, opset=opset, output_path=str(path))
    else:
        spec = [tf.TensorSpec(model.inputs[0].shape, tf.float32, name="image")]
        served = tf.function(lambda image: model(image, training=False), input_signature=spec)
        convert.from_function(served, spec, opset=opset, output_path=str(path))


def write(folder, cells):
    """Each cell as `cell` with its suffix, `cell.npz` and `cell.json`."""
    import keras

    images = np.random.default_rng(1).random((3, *INPUT), dtype=np.float32)
    for name, way in dict.fromkeys(tuple(cell.split(".")[:2]) for cell in cells):
        model = made(name, way)
        given = images[:, :28, :28, :1] if name == "lenet" else images
        outputs = np.asarray(model(given, training=False))
        for form in (cell.split(".")[2] for cell in cells if cell.startswith(f"{name}.{way}.")):
            path = folder / f"{name}.{way}.{form}{SUFFIXES.get(form, '.onnx')}"
            if form in ("keras", "h5"):
                model.save(path)
            elif form == "savedmodel":
                model.export(path, verbose=False)
            elif form == "keras-onnx":
                model.export(path, format="onnx", verbose=False)
            else:
                write_with_tf2onnx(model, way, int(form.rpartition("-")[2]), path)
            np.savez(folder / f"{name}.{way}.{form}.npz", images=given.transpose(0, 3, 1, 2), outputs=outputs)
            (folder / f"{name}.{way}.{form}.json").write_text(json.dumps(parts(model)))
        keras.backend.clear_session()


if __name__ == "__main__":
    from pathlib import Path

    write(Path(sys.argv[1]), sys.argv[2:])
