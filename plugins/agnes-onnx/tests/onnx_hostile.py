"""Hostile and broken files, each made from one small good classifier, and what their refusals say."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BIG = 1 << 40


def weights_of(**more):
    rng = np.random.default_rng(0)
    kernel = {"w": rng.standard_normal((4, 3, 3, 3)), "head": rng.standard_normal((4, 5))}
    stored = {name: array.astype(np.float32) for name, array in kernel.items()}
    return [numpy_helper.from_array(np.asarray(array), name) for name, array in {**stored, **more}.items()]


def classifier(*middle, change=None, end="c", shape=("n", 3, 8, 8), elem=TensorProto.FLOAT, **weights):
    """A small good classifier with nodes put in, from `c` to `end`, and a change made to it."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        *middle,
        helper.make_node("GlobalAveragePool", [end], ["g"], name="pool"),
        helper.make_node("Flatten", ["g"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "head"], ["y"], name="head"),
    ]
    source, target = helper.make_tensor_value_info("x", elem, shape), helper.make_tensor_value_info("y", 1, None)
    graph = helper.make_graph(nodes, "g", [source], [target], weights_of(**weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if change is not None:
        change(model)
    return model


def node(operator, inputs, output="p", **attributes):
    return helper.make_node(operator, inputs, [output], name=f"the {operator}", **attributes)


def branch():
    graph = helper.make_graph([helper.make_node("Identity", ["c"], ["o"])], "b", [], [onnx.ValueInfoProto(name="o")])
    return node("If", ["yes"], then_branch=graph, else_branch=graph)


def external(location, **entries):
    def change(model):
        tensor = model.graph.initializer[0]
        tensor.data_location = TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
        for key, value in {"location": location, **entries}.items():
            tensor.external_data.add(key=key, value=str(value))

    return change


def changed(name, **fields):
    def change(model):
        tensor = next(t for t in model.graph.initializer if t.name == name)
        for field, value in fields.items():
            if field == "dims":
                del tensor.dims[:]
                tensor.dims.extend(value)
            else:
                setattr(tensor, field, value)

    return change


def several(*inputs):
    return lambda model: model.graph.input.extend(helper.make_tensor_value_info(n, 1, [1]) for n in inputs)


def domain(model):
    model.graph.node[0].domain = "evil.ops"
    model.opset_import.append(helper.make_opsetid("evil.ops", 1))


def function(model):
    body = [helper.make_node("Relu", ["a"], ["b"])]
    model.functions.append(helper.make_function("mine", "f", ["a"], ["b"], body, model.opset_import))


def sparse(model):
    model.graph.sparse_initializer.add()


def twice(model):
    model.graph.initializer.append(model.graph.initializer[0])


def cycle(model):
    model.graph.node[0].input[0] = "f"


def rewritten(model):
    model.graph.node[1].output[0] = "c"


def two_outputs(model):
    model.graph.output.add().CopyFrom(helper.make_tensor_value_info("f", 1, None))


def opset(number):
    return lambda model: setattr(model.opset_import[0], "version", number)


def nan(model):
    broken = np.full((4, 3, 3, 3), np.nan, dtype=np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(broken, "w"))


def no_output(model):
    model.graph.output[0].name = "nothing"


def context(model):
    model.graph.node.insert(0, helper.make_node("EPContext", ["x"], ["e"], domain="com.microsoft"))


def nested(model):
    graph = model.graph
    for _ in range(40):
        outer = onnx.GraphProto()
        outer.node.add(op_type="If").attribute.add(name="g", type=5).g.CopyFrom(graph)
        graph = outer
    model.graph.CopyFrom(graph)


SIZES = {"big": np.array([BIG, 8]), "wide": np.array([1, 4, 1 << 14, 1 << 14])}

HOSTILE = {  # what is wrong: the model, what the refusal says
    "a domain of its own": (classifier(change=domain), "domain 'evil.ops'"),
    "a compiled context": (classifier(change=context), "EPContext of domain 'com.microsoft'"),
    "a function of its own": (classifier(change=function), "functions of its own"),
    "an if": (classifier(branch(), end="p", yes=np.array(True)), "is If, control flow"),
    "sparse weights": (classifier(change=sparse), "sparse"),
    "one name for two weights": (classifier(change=twice), "one name"),
    "a cycle": (classifier(change=cycle), "read before it is written"),
    "a value written twice": (classifier(change=rewritten), "written twice"),
    "a missing output": (classifier(change=no_output), "nothing is never written"),
    "two inputs": (classifier(change=several("z")), "has 2 inputs"),
    "two outputs": (classifier(change=two_outputs), "has 2 outputs"),
    "integers as input": (classifier(elem=TensorProto.UINT8), "not float32"),
    "an input of lines": (classifier(shape=("n", 8, 24)), "has 3 dimensions"),
    "a giant input": (classifier(shape=("n", 3, 1 << 20, 1 << 20)), "larger than onnx.value_limit"),
    "a giant batch": (classifier(shape=(1 << 30, 3, 8, 8)), "1073741824 images at a time"),
    "an old opset": (classifier(change=opset(6)), "opset 6"),
    "a future opset": (classifier(change=opset(1000)), "opset 1000"),
    "weights that are no numbers": (classifier(change=nan), "not finite"),
    "a weight smaller than it says": (classifier(change=changed("w", dims=[4, 3, 3, BIG])), "does not hold that many"),
    "a negative size": (classifier(change=changed("w", dims=[-4, 3, -3, 3])), "negative size"),
    "an unknown type": (classifier(change=changed("w", data_type=99)), "data type 99"),
    "text as weights": (classifier(change=changed("w", data_type=8)), "data type 8"),
    "a giant constant": (classifier(node("ConstantOfShape", ["big"]), big=SIZES["big"]), "makes a constant of more"),
    "a giant expansion": (
        classifier(node("Expand", ["one", "big"]), one=np.float32(1), big=SIZES["big"]),
        "makes a constant of more",
    ),
    "a giant tiling": (
        classifier(node("Tile", ["two", "big"]), two=np.ones((1, 2)), big=SIZES["big"]),
        "makes a constant of more",
    ),
    "a giant range": (
        classifier(node("Range", ["low", "top", "by"]), low=np.array(0), top=np.array(BIG), by=np.array(1)),
        "makes a constant of more",
    ),
    "a giant outer product": (
        classifier(node("Mul", ["row", "column"]), row=np.ones((1, 1 << 16)), column=np.ones((1 << 16, 1))),
        "makes a constant of more",
    ),
    "giant padding": (
        classifier(node("Pad", ["c", "pads"]), end="p", pads=np.array([0, 0, 1 << 22, 0, 0, 0, 1 << 22, 0])),
        "more than onnx.value_limit",
    ),
    "a giant expansion of the image": (
        classifier(node("Resize", ["c", "", "scales"]), end="p", scales=np.array([1, 1, 1e6, 1e6], dtype=np.float32)),
        "refused",
    ),
    "too many nodes": (
        classifier(*(node("Relu", ["c" if i == 0 else f"r{i}"], f"r{i + 1}") for i in range(10_001))),
        "more than onnx.node_limit",
    ),
    "much work from little data": (
        classifier(
            *(node("Conv", ["c" if i == 0 else f"m{i}", "k"], f"m{i + 1}", pads=[30] * 4) for i in range(90)),
            end="m90", shape=("n", 3, 130, 130), k=np.zeros((4, 4, 61, 61), dtype=np.float32),
        ),
        "more than onnx.work_limit",
    ),
    "graphs within graphs": (classifier(change=nested), "deeper than 32"),
    "an empty graph": (classifier(change=lambda model: model.graph.ClearField("node")), "no ONNX graph"),
    "no opset": (classifier(change=lambda model: model.ClearField("opset_import")), "opset 0"),
    "a training mode": (
        classifier(
            node("BatchNormalization", ["c", *["four"] * 4], training_mode=1), end="p",
            four=np.ones(4, dtype=np.float32),
        ),
        "export the model in evaluation mode",
    ),
    "a loop": (classifier(node("Loop", ["", ""], body=onnx.GraphProto()), end="p"), "is Loop, control flow"),
    "a sequence": (classifier(node("SequenceConstruct", ["c"]), end="p"), "operator SequenceConstruct"),
    "numbers at random": (classifier(node("RandomNormalLike", ["c"]), end="p"), "operator RandomNormalLike"),
    "half precision": (
        classifier(elem=TensorProto.FLOAT16), "export the model with a float32 input",
    ),
    "an output of maps": (
        classifier(change=lambda model: setattr(model.graph.output[0], "name", "c")), "one row of logits",
    ),
    "one class": (
        classifier(change=lambda model: model.graph.initializer[1].CopyFrom(
            numpy_helper.from_array(np.ones((4, 1), dtype=np.float32), "head"))),
        "two classes or more",
    ),
    "logits that are not finite": (
        classifier(node("Mul", ["c", "huge"]), end="p", huge=np.float32(3e38)), "not finite|not all numbers",
    ),
    "images that mix": (
        classifier(node("ReduceMax", ["c"], axes=[0]), node("Add", ["c", "p"], "q"), end="q"),
        "the others in its batch",
    ),
    "an input that is not used": (
        classifier(change=lambda model: model.graph.node[0].input.__setitem__(0, "spare"),
                   spare=np.ones((1, 3, 8, 8), dtype=np.float32)),
        "does not read its images",
    ),
    "division by zero": (
        classifier(node("Div", ["c", "zero"]), end="p", zero=np.float32(0)), "finite|not all numbers",
    ),
    "a window larger than the image": (
        classifier(node("MaxPool", ["c"], kernel_shape=[99, 99]), end="p"), "smaller than its window",
    ),
    "steps of zero": (
        classifier(node("MaxPool", ["c"], kernel_shape=[1, 1], strides=[0, 0]), end="p"), "not a positive number",
    ),
    "a range without end": (
        classifier(node("Range", ["low", "top", "by"]), low=np.array(0), top=np.array(9), by=np.array(0)),
        "makes a constant of more|operator Range",
    ),
    "external data of absurd size": (
        classifier(change=lambda model: (changed("w", dims=[BIG, 3, 3, 3])(model), external("data.bin")(model))),
        "larger than onnx.size_limit",
    ),
    "external data in a device": (classifier(change=external("../../dev/zero")), "not a path inside"),
    "an escape code in a path": (classifier(change=external("\x1b[31m.bin")), r"\[31m.bin"),
    "sizes that do not fit": (classifier(change=changed("head", dims=[5, 4])), "do not fit"),
    "an unknown operator": (classifier(node("Nonsense", ["c"]), end="p"), r"operator Nonsense \(node the Nonsense"),
    "escape codes in a name": (classifier(node("\x1b[31mRed", ["c"]), end="p"), r"operator \[31mRed"),
    "a path that climbs": (classifier(change=external("../secret.bin")), "not a path inside"),
    "an absolute path": (classifier(change=external("/etc/passwd")), "not a path inside"),
    "a drive": (classifier(change=external("C:secret.bin")), "not a path inside"),
    "no path": (classifier(change=external("")), "not a path inside"),
    "a missing file": (classifier(change=external("missing.bin")), "No such file"),
    "a link": (classifier(change=external("link.bin")), "through a link"),
    "a linked folder": (classifier(change=external("linked/secret.bin")), "through a link"),
    "a pipe": (classifier(change=external("pipe")), "not a regular file"),
    "a folder": (classifier(change=external("folder")), "not a regular file|directory"),
    "data that is too short": (classifier(change=external("short.bin")), "too short"),
    "an offset beyond the end": (classifier(change=external("data.bin", offset=BIG)), "too short"),
    "a negative offset": (classifier(change=external("data.bin", offset=-1)), "at -1"),
    "an offset that is no number": (classifier(change=external("data.bin", offset="x")), "no number"),
    "a length that is not the weight's": (classifier(change=external("data.bin", length=7)), "of 7 bytes"),
}  # fmt: skip
