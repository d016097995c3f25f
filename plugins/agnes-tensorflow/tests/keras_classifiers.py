"""Small Keras classifiers with weights at random, and hostile models; run with a folder, it writes them there.

TensorFlow stays out of the tests' own process, which it would fill with its threads and warnings.
"""

import sys
from pathlib import Path

import numpy as np


def made(name, way="functional"):
    """One of the classifiers, as a Sequential model where it can be one."""
    import keras

    keras.utils.set_random_seed(0)
    layers = SHAPES[name][1](keras.layers)
    inputs = keras.Input(SHAPES[name][0])
    if way == "sequential":
        model = keras.Sequential([inputs, *layers])
    else:
        value = inputs
        for layer in layers:
            value = layer(value)
        model = keras.Model(inputs, value)
    return shaken(model)


def shaken(model, spread=0.3):
    """A model whose every weight has been moved, so that no two are equal."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variance = variable.path.endswith(("variance", "gamma"))
        noise = rng.random(variable.shape) + 0.5 if variance else rng.normal(0, spread, variable.shape)
        if "seed" not in variable.path:
            variable.assign(noise)
    return model


def plain(k):
    return [k.Conv2D(6, 3, activation="relu"), k.MaxPooling2D(), k.Flatten(), k.Dense(8, activation="relu"), k.Dense(4)]


def normalised(k):
    return [
        k.Conv2D(6, 3, use_bias=False),
        k.BatchNormalization(axis=3),
        k.ReLU(),
        k.Conv2D(6, 3, strides=2, padding="same"),
        k.BatchNormalization(scale=False),
        k.Activation("relu"),
        k.Flatten(),
        k.Dense(8),
        k.BatchNormalization(),
        k.ReLU(),
        k.Dropout(0.3),
        k.Dense(4),
    ]


def depthwise(k):
    return [
        k.Conv2D(4, 3, strides=2, padding="same", activation="relu6"),
        k.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
        k.BatchNormalization(),
        k.ReLU(6.0),
        k.SeparableConv2D(6, 3, activation="gelu"),
        k.GlobalAveragePooling2D(),
        k.Dense(4),
    ]


def softmax(k):
    return [k.Conv2D(6, 3, activation="swish"), k.GlobalMaxPooling2D(), k.Dense(4, activation="softmax")]


def rescaled(k):
    return [
        k.Rescaling(1 / 127.5, offset=-1.0),
        k.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.5, 0.6, 0.7]),
        k.Conv2D(6, 3, activation="elu"),
        k.AveragePooling2D(2),
        k.Flatten(),
        k.Dense(4, activation="softmax"),
    ]


def grey(k):
    return [
        k.ZeroPadding2D(1),
        k.Conv2D(5, 5),
        k.LeakyReLU(),
        k.MaxPooling2D(3, 2, padding="same"),
        k.Flatten(),
        k.Dense(3),
    ]


SHAPES = {
    "plain": ((12, 12, 3), plain),
    "normalised": ((12, 12, 3), normalised),
    "depthwise": ((12, 12, 3), depthwise),
    "softmax": ((12, 12, 3), softmax),
    "rescaled": ((12, 12, 3), rescaled),
    "grey": ((10, 14, 1), grey),
}


def residual():
    """A functional model with a skip connection and branches."""
    import keras

    k = keras.layers
    inputs = keras.Input((12, 12, 3))
    value = k.Conv2D(6, 3, padding="same")(inputs)
    inner = k.Activation("relu")(k.BatchNormalization()(value))
    inner = k.Conv2D(6, 3, padding="same", use_bias=False)(inner)
    value = k.ReLU()(k.Add()([value, inner]))
    branches = [k.Conv2D(3, 1, activation="relu")(value), k.MaxPooling2D(3, 1, padding="same")(value)]
    value = k.GlobalAveragePooling2D()(k.Concatenate()(branches))
    return shaken(keras.Model(inputs, k.Dense(4)(value)))


def write_good(folder):
    """Every classifier as .keras, .h5 and SavedModel, and as a Sequential .keras where it can be one."""
    for name in [*SHAPES, "residual"]:
        model = residual() if name == "residual" else made(name)
        model.save(folder / f"{name}.keras")
        model.save(folder / f"{name}.h5")
        model.export(folder / name, verbose=False)
        if name != "residual":
            made(name, "sequential").save(folder / f"{name}-sequential.keras")
    compiled = made("plain")
    compiled.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    compiled.save(folder / "compiled.keras")
    compiled.save(folder / "compiled.h5")


def more_works(tf, mark, folder):
    """Further ways to read and write files."""
    words = folder / "table.txt"
    words.write_text("one\ntwo\n")

    def looked_up():
        table = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
        columns = {"key_index": -2, "value_index": -1}  # the line, and its number
        filled = tf.raw_ops.InitializeTableFromTextFileV2(table_handle=table, filename=str(words), **columns)
        with tf.control_dependencies([filled]):
            return tf.raw_ops.LookupTableFindV2(
                table_handle=table, keys=["one"], default_value=tf.constant(-1, tf.int64)
            )

    def written():
        with tf.control_dependencies([tf.io.write_file(mark, "x")]):
            return tf.constant(1)

    return {
        "prints": lambda: tf.print("x", output_stream=f"file://{mark}") or tf.no_op(),
        "calls python": lambda: tf.numpy_function(lambda: Path(mark).touch() or 0, [], tf.int64),
        "reads records": lambda: tf.data.TFRecordDataset([str(words)]).reduce(0, lambda count, _: count + 1),
        "branches": lambda: tf.cond(tf.random.uniform(()) < 2, lambda: tf.constant(1), lambda: tf.constant(2)),
        "in a branch": lambda: tf.cond(tf.random.uniform(()) < 2, written, lambda: tf.constant(2)),
        "looks up": looked_up,
        "fills": lambda: tf.raw_ops.Assert(condition=tf.reduce_sum(tf.fill([1 << 34], 1.0)) > 0, data=["x"]),
    }


def write_hostile(folder):
    """Models that would touch a file called `it-ran` in the folder."""
    import keras
    import tensorflow as tf

    mark = str(folder / "it-ran")
    code = keras.layers.Lambda(lambda x: (Path(mark).touch(), x)[1], output_shape=(8, 8, 3))
    end = [keras.layers.Flatten(), keras.layers.Dense(3)]
    lambda_model = keras.Sequential([keras.Input((8, 8, 3)), code, *end])
    lambda_model.save(folder / "lambda.keras")
    lambda_model.save(folder / "lambda.h5")
    spec = [tf.TensorSpec((None, 8, 8, 3), tf.float32)]

    def module(work, **parts):
        made = tf.Module()
        made.weight = tf.Variable(tf.ones((192, 3)))
        made.parts = parts

        @tf.function(input_signature=spec)
        def served(x):
            with tf.control_dependencies([work()]):
                return tf.reshape(x, (-1, 192)) @ made.weight

        return made, served

    @tf.function
    def nested():
        with tf.control_dependencies([tf.io.write_file(mark, "x")]):
            return tf.constant(1)

    works = {
        "writes": lambda: tf.io.write_file(mark, "x"),
        "reads": lambda: tf.io.read_file("/etc/hostname"),
        "lists": lambda: tf.io.matching_files("/etc/*"),
        "python": lambda: tf.py_function(lambda: Path(mark).touch() or 0, [], tf.int32),
        "nested": nested,
        "saves": lambda: tf.raw_ops.SaveV2(prefix=mark, tensor_names=["x"], shape_and_slices=[""], tensors=[[1.0]]),
        "restores": lambda: tf.raw_ops.RestoreV2(
            prefix="/etc/x", tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32]
        )[0],
        "loops": lambda: tf.while_loop(lambda i: i < 10, lambda i: i + 1, [tf.constant(0)])[0],
    }
    for name, work in {**works, **more_works(tf, mark, folder)}.items():
        made_one, served = module(work)
        tf.saved_model.save(made_one, str(folder / name), signatures=served.get_concrete_function())
    (folder / "words.txt").write_text("one\ntwo\n")
    made_one, served = module(tf.no_op, words=tf.saved_model.Asset(str(folder / "words.txt")))
    tf.saved_model.save(made_one, str(folder / "asset"), signatures=served.get_concrete_function())
    Path(mark).unlink(missing_ok=True)  # tracing is not what is tested


if __name__ == "__main__":
    {"good": write_good, "hostile": write_hostile}[sys.argv[2]](Path(sys.argv[1]))
