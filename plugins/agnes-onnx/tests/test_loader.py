import numpy as np
import onnx
import pytest
import torch
from agnes_onnx.exporter import OnnxExporter
from agnes_onnx.loader import OnnxLoader
from agnes_onnx.runtime import Reference
from onnx import TensorProto, helper, numpy_helper
from onnx_classifiers import NETS, exported, in_ci, made, network_of, opened
from torch import nn

from agnes import confinement
from agnes.errors import Refused, UsageError
from agnes.loading import LoadOptions


def as_pixels(name, images):
    """What the network is given so that its file is given `images`."""
    return images.permute(0, 3, 1, 2) if name == "inside" else images


def hand_built(path, nodes, weights, shape=("n", 3, 8, 8), opset=17, **graph):
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    target = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    made_graph = helper.make_graph(nodes, "by hand", [source], [target], stored, **graph)
    model = helper.make_model(made_graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def numbers(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_a_network_gives_the_logits_of_the_module_its_file_was_made_from(net):
    name, module, shape = net
    same_logits(network_of(name), name, module, shape)


@pytest.mark.parametrize("name", in_ci("shuffle", "attention", "inside"))
def test_a_file_of_one_fixed_batch_size_takes_any(name, tmp_path):
    module, shape = made(name), NETS[name][1]
    same_logits(opened(exported(module, shape, tmp_path / "m.onnx", batch=1)), name, module, shape)


@pytest.mark.parametrize("name", ["residual", "inside"])
def test_a_network_is_compared_on_the_users_images_too(name, tmp_path, monkeypatch):
    given, run = [], Reference.run
    monkeypatch.setattr(Reference, "run", lambda self, file, images: given.append(images) or run(self, file, images))
    pixels = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels)
    path = exported(made(name), NETS[name][1], tmp_path / "m.onnx")
    facts = opened(path, images=tmp_path / "images.npz", scale=2.0).facts
    assert (facts["parity"]["images"], facts["parity"]["real_images"]) == (8, 4)
    real = torch.from_numpy(pixels[:4] / np.float32(255)) * 2
    assert torch.allclose(given[0][4:], real if name == "inside" else real.permute(0, 3, 1, 2))
    assert opened(path, images=tmp_path / "nowhere").facts["parity"]["real_images"] == 0


@pytest.mark.parametrize("opset", range(7, onnx.defs.onnx_opset_version() + 1))
def test_every_opset_that_onnx_knows_is_read(opset, tmp_path):
    nodes = [
        n("Conv", ["x", "w"], "c", pads=[1] * 4),
        n("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], "b"),
        n("Relu", ["b"], "r"),
        n("Add", ["r", "c"], "a"),
        n("MaxPool", ["a"], "p", kernel_shape=[2, 2], strides=[2, 2]),
        n("Concat", ["p", "p"], "both", axis=1),
        n("GlobalAveragePool", ["both"], "pooled"),
        n("Flatten", ["pooled"], "flat"),
        n("Gemm", ["flat", "head", "bias"], "y"),
    ]
    four = {name: np.abs(numbers(4)) + 0.1 for name in ("scale", "shift", "mean", "variance")}
    weights = {"w": numbers(4, 3, 3, 3), "head": numbers(8, 4), "bias": numbers(4), **four}
    network = opened(hand_built(tmp_path / "m.onnx", nodes, weights, opset=opset))
    assert network.facts["opset"] == opset
    assert network.facts["parity"]["relative"] < 1e-5
    assert {"conv", "batch_norm", "relu", "max_pool", "concat", "linear"} <= network.kinds


def same_logits(network, name, module, shape):
    images = torch.rand(5, *shape)
    with torch.no_grad():
        ours, theirs = network(as_pixels(name, images)), module(images).flatten(1)
    ours = ours.softmax(1) if network.peeled else ours
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert network.facts["parity"]["relative"] < 1e-5


@pytest.mark.parametrize(("opset", "name"), [(7, "lenet"), (9, "lenet"), (11, "shuffle"), (11, "inside")])
def test_an_old_opset_is_read_alike(opset, name, tmp_path):
    network = opened(exported(made(name), NETS[name][1], tmp_path / "m.onnx", opset=opset))
    assert network.facts["opset"] == opset
    assert network.facts["parity"]["relative"] < 1e-5


def test_gradients_reach_the_pixels_and_every_weight(net):
    network = network_of(net[0]).copy()
    network.module.requires_grad_(True)
    images = torch.rand(3, *network.input_shape, requires_grad=True)
    network(images).square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in network.module.parameters())


LAYERS = {
    "lenet": ["0", "3", "7"],
    "batch norms": ["0", "5"],
    "residual": ["first", "second"],
    "branches": ["left", "right"],
    "shuffle": ["conv"],
    "depthwise": ["0", "3", "5"],
    "activations": ["0", "2", "4", "6", "9", "12"],
    "fully convolutional": ["0", "2"],
    "inside": ["conv"],
    "attention": ["patches", "qkv", "out", "mlp.0", "mlp.2"],
}


def test_layers_are_found_under_the_names_of_the_original(net):
    assert [layer.name for layer in network_of(net[0]).layers] == LAYERS[net[0]]


def test_every_layer_can_be_cut_and_resumed(net):
    network = network_of(net[0])
    images = torch.rand(3, *network.input_shape)
    with torch.no_grad():
        for layer in network.layers:
            assert torch.allclose(network.after(layer, network.until(layer, images)), network(images), atol=1e-5)


def test_weights_are_parameters_of_native_modules(net):
    name, module, _ = net
    network = network_of(name)
    missing = {"attention": 16 + 17 * 16}.get(name, 0)  # the tokens are no layer's weights
    assert network.parameter_count == sum(p.numel() for p in module.parameters()) - missing
    kept = sum(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in network.module.modules())
    assert kept == sum(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in module.modules())


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("depthwise", {"clamp", "hardswish", "silu", "avg_pool"}),
        ("activations", {"gelu", "elu", "leaky_relu", "sigmoid", "smooth", "pad"}),
        ("attention", {"gelu", "matmul"}),
    ],
)
@pytest.mark.parametrize("opset", [13, 20])
def test_activations_are_recognised_however_the_file_writes_them(name, kinds, opset, tmp_path):
    network = opened(exported(made(name), NETS[name][1], tmp_path / "m.onnx", opset=opset))
    assert kinds <= network.kinds
    assert "erf" not in network.kinds


def test_a_piecewise_linear_file_is_seen_as_such():
    assert network_of("residual").piecewise_linear


def test_nhwc_input_with_preprocessing_inside_is_given_pixels(tmp_path):
    network = opened(exported(made("inside"), (16, 16, 3), tmp_path / "m.onnx"), scale=255.0)
    assert network.input_shape == (3, 16, 16)
    assert network.facts["layout"] == "NHWC"
    assert network.peeled == "softmax"
    images = torch.rand(2, 3, 16, 16)
    expected = made("inside")(images.permute(0, 2, 3, 1) * 255)
    assert torch.allclose(network(images).softmax(1), expected, atol=1e-6)
    assert "multiply" not in network.kinds


def test_mean_and_std_are_applied_before_the_file(tmp_path):
    network = opened(exported(made("residual"), (3, 16, 16), tmp_path / "m.onnx"), mean=(0.1, 0.2, 0.3), std=(0.5,))
    images = torch.rand(2, 3, 16, 16)
    expected = made("residual")((images - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / 0.5)
    assert torch.allclose(network(images), expected, atol=1e-5)


def test_facts_say_what_the_file_is_and_how_it_was_proven():
    facts = network_of("lenet").facts
    assert facts["format"] == "onnx"
    assert facts["producer"].startswith("pytorch")
    assert (facts["input_name"], facts["output_name"]) == ("pixels", "scores")
    assert facts["operators"]["Conv"] == 2
    assert facts["parity"]["reference"].startswith("onnxruntime")
    assert facts["isolation"] == str(confinement.strength())


def test_class_names_come_from_the_options(tmp_path):
    path = exported(made("residual"), (3, 16, 16), tmp_path / "m.onnx")
    assert opened(path, class_names=tuple("abcde")).class_names == tuple("abcde")


def test_an_open_size_is_asked_for_and_taken(tmp_path):
    path = exported(made("fully convolutional"), (3, 12, 12), tmp_path / "m.onnx")
    model = onnx.load(path)
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "size"
    onnx.save(model, path)
    with pytest.raises(UsageError, match="--input-shape"):
        opened(path)
    assert opened(path, input_shape=(3, 20, 24)).input_shape == (3, 20, 24)
    with pytest.raises(UsageError, match="the file says 3x"):
        opened(path, input_shape=(1, 20, 24))


@pytest.mark.parametrize(("sizes", "wrong"), [((3, 8, 8), "NHWC"), ((8, 8, 3), "NCHW")])
def test_a_layout_that_makes_an_image_of_eight_colours_is_told_and_not_the_images(sizes, wrong, tmp_path):
    nodes = [n("Flatten", ["x"], "f"), n("Gemm", ["f", "w"], "h"), n("Relu", ["h"], "r"), n("Gemm", ["r", "v"], "y")]
    weights = {"w": numbers(192, 6), "v": numbers(6, 4)}
    path = hand_built(tmp_path / "m.onnx", nodes, weights, ("n", *sizes))
    with pytest.raises(UsageError, match=rf"which as {wrong} is an image of 8 colours; say the other --layout"):
        opened(path, layout=wrong)
    assert opened(path).input_shape == (3, 8, 8)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_images_taken_as_rows_are_images_here_and_rows_again_in_what_is_written(layout, tmp_path):
    nodes = [n("Gemm", ["x", "w"], "h"), n("Relu", ["h"], "r"), n("Gemm", ["r", "v"], "y")]
    weights = {"w": numbers(192, 6), "v": numbers(6, 4)}
    path = hand_built(tmp_path / "m.onnx", nodes, weights, ("n", 192))
    with pytest.raises(UsageError, match=r"a row of 192 numbers; give --input-shape"):
        opened(path)
    with pytest.raises(UsageError, match="a row of 192 numbers"):
        opened(path, input_shape=(1, 8, 8))
    network = opened(path, input_shape=(3, 8, 8), layout=layout)
    images = torch.rand(5, 3, 8, 8)
    rows = (images if layout == "NCHW" else images.permute(0, 2, 3, 1)).flatten(1)
    expected = np.maximum(rows.numpy() @ weights["w"], 0) @ weights["v"]
    assert np.allclose(network(images), expected, rtol=1e-4, atol=1e-4)
    again = OnnxExporter().export(network, tmp_path / "again.onnx")
    assert np.allclose(Reference().run(again.read_bytes(), rows).logits, expected, rtol=1e-4, atol=1e-4)


def test_an_unknown_suffix_is_recognised_by_content_and_others_are_left_alone(tmp_path):
    path = exported(made("residual"), (3, 16, 16), tmp_path / "m.onnx")
    loader, options = OnnxLoader(), LoadOptions()
    assert loader.load(path.rename(tmp_path / "weights.bin"), options) is not None
    for name, content in (("a.bin", b"\x08\x07 no model"), ("a.pt", b"\x08\x07"), ("a.txt", b"hello")):
        (tmp_path / name).write_bytes(content)
        assert loader.load(tmp_path / name, options) is None
    assert loader.load(tmp_path, options) is None


# Built by hand: what torch's exporter never writes ------------------------------------------------------------------


def n(operator, inputs, output, **attributes):
    return helper.make_node(operator, inputs, [output], name=f"{output}_{operator}", **attributes)


def test_matmul_and_add_become_a_trainable_linear_layer(tmp_path):
    nodes = [
        n("Reshape", ["x", "shape"], "flat"),
        n("MatMul", ["flat", "w"], "product"),
        n("Add", ["b", "product"], "hidden"),
        n("Relu", ["hidden"], "active"),
        n("MatMul", ["active", "v"], "y"),
    ]
    weights = {"shape": np.array([0, -1]), "w": numbers(192, 6), "b": numbers(6), "v": numbers(6, 4)}
    network = opened(hand_built(tmp_path / "m.onnx", nodes, weights))
    assert network.parameter_count == 192 * 6 + 6 + 6 * 4
    assert [layer.activation for layer in network.layers] == ["relu"]
    images = torch.rand(3, 3, 8, 8)
    expected = np.maximum(images.flatten(1).numpy() @ weights["w"] + weights["b"], 0) @ weights["v"]
    assert np.allclose(network(images).detach(), expected, rtol=1e-4, atol=1e-4)


def head(value, channels, classes=4):
    """From images to logits: the end of a hand-built graph, and its weights."""
    nodes = [n("GlobalAveragePool", [value], "pooled"), n("Flatten", ["pooled"], "flat")]
    return [*nodes, n("Gemm", ["flat", "head_w"], "y", alpha=0.5)], {"head_w": numbers(channels, classes)}


@pytest.mark.parametrize("pooling", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_padding_is_computed(pooling, auto_pad, tmp_path):
    end, weights = head("p", 4)
    nodes = [
        n("Conv", ["x", "w"], "c", auto_pad=auto_pad, strides=[2, 2], kernel_shape=[4, 4]),
        n("Add", ["c", "b"], "biased"),
        n(pooling, ["biased"], "p", auto_pad=auto_pad, kernel_shape=[2, 2], strides=[1, 1]),
        *end,
    ]
    weights = {**weights, "w": numbers(4, 3, 4, 4), "b": numbers(1, 4, 1, 1)}
    network = opened(hand_built(tmp_path / "m.onnx", nodes, weights, ("n", 3, 9, 9)))
    assert network.facts["parity"]["relative"] < 1e-5
    assert network.layers[0].bias is not None


OPERATORS = {
    "lrn": [n("LRN", ["c"], "p", size=3, alpha=0.1)],
    "max": [n("GlobalMaxPool", ["c"], "p")],
    "clip": [n("Clip", ["c", "", "one"], "p")],
    "split": [
        helper.make_node("Split", ["c", "parts"], ["a", "b"], axis=1),
        n("Concat", ["b", "a"], "p", axis=-3),
    ],
    "gather": [n("Gather", ["c", "order"], "p", axis=1)],
    "steps": [n("Slice", ["c", "low", "high", "axis", "step"], "p")],
    "edge": [n("Pad", ["c", "pads"], "p", mode="edge")],
    "tall pad": [n("Pad", ["c", "deep"], "p")],
    "division": [n("Exp", ["c"], "e"), n("Div", ["one", "e"], "p")],
    "sum": [n("Sum", ["c", "c", "c"], "p")],
    "reduced": [
        n("ReduceMax", ["c"], "m", axes=[2]), n("Unsqueeze", ["m", "two"], "u"), n("Squeeze", ["u", "two"], "p"),
    ],
    "resized": [n("Resize", ["c", "", "scales"], "p", mode="nearest", nearest_mode="floor",
                  coordinate_transformation_mode="asymmetric")],
    "double": [n("Identity", ["c"], "i"), n("Mul", ["i", "c"], "m"), n("Sub", ["m", "c"], "p")],
    "hard": [n("HardSigmoid", ["c"], "h"), n("Selu", ["h"], "p")],
    "instance": [n("InstanceNormalization", ["c", "four", "four"], "p")],
}  # fmt: skip
CONSTANTS = {
    "one": np.float32(1), "parts": np.array([1, 3]), "order": np.array([3, -4, 2, 2]), "low": np.array([1, -6]),
    "high": np.array([1 << 40, -1]), "axis": np.array([2, 3]), "step": np.array([2, 1]), "two": np.array([2]),
    "pads": np.array([0, 0, 1, 2, 0, 0, 3, 0]), "deep": np.array([0, 1, 1, 0, 0, 2, 0, 2]),
    "scales": np.array([1, 1, 2, 2], dtype=np.float32), "four": np.arange(4, dtype=np.float32),
}  # fmt: skip


@pytest.mark.parametrize("case", OPERATORS)
def test_an_operator_gives_what_onnxruntime_gives(case, tmp_path):
    end, weights = head("p", 7 if case == "tall pad" else 4)
    middle = [*OPERATORS[case]]
    if case == "reduced":
        end = [n("Flatten", ["p"], "flat"), n("Gemm", ["flat", "head_w"], "y")]
        weights = {"head_w": numbers(4 * 8, 4)}
    used = {name for node in middle for name in node.input} & set(CONSTANTS)
    weights = {**weights, "w": numbers(4, 3, 3, 3), **{name: CONSTANTS[name] for name in used}}
    nodes = [n("Conv", ["x", "w"], "c", pads=[1, 1, 1, 1], kernel_shape=[3, 3]), *middle, *end]
    network = opened(hand_built(tmp_path / "m.onnx", nodes, weights))
    assert network.facts["parity"]["relative"] < 1e-5
    images = torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        for layer in network.layers:
            assert torch.allclose(network.after(layer, network.until(layer, images)), network(images), atol=1e-5)


def test_an_operator_nobody_knows_is_named_with_its_node_and_opset(tmp_path):
    nodes = [n("Conv", ["x", "w"], "c"), n("Hardmax", ["c"], "p", axis=1), *head("p", 4)[0]]
    path = hand_built(tmp_path / "m.onnx", nodes, {"w": numbers(4, 3, 3, 3), **head("p", 4)[1]})
    with pytest.raises(Refused, match=r"operator Hardmax \(node p_Hardmax, opset 17\)"):
        opened(path)


def test_a_wrong_conversion_is_refused_with_the_first_node_that_differs(tmp_path, monkeypatch):
    from agnes_onnx.operators import CONVERTERS

    def wrong(op, graph):
        return graph.module(op, nn.LeakyReLU(0.5), graph.node(op.inputs[0]))

    monkeypatch.setitem(CONVERTERS, "Relu", wrong)
    path = exported(made("residual"), (3, 16, 16), tmp_path / "m.onnx")
    with pytest.raises(Refused, match=r"differs from onnxruntime by .* first at /Relu"):
        opened(path)


def test_a_weight_used_twice_is_kept_once(tmp_path):
    nodes = [n("Conv", ["x", "w"], "a", pads=[1] * 4), n("Conv", ["a", "w"], "b", pads=[1] * 4), *head("b", 3)[0]]
    network = opened(hand_built(tmp_path / "m.onnx", nodes, {"w": numbers(3, 3, 3, 3), **head("b", 3)[1]}))
    assert network.parameter_count == 81 + 12
    assert len(network.layers) == 2


def test_names_in_the_file_cannot_break_a_terminal_or_a_module(tmp_path):
    evil = "\x1b[31m../forward.weight"
    nodes = [n("Conv", ["x", evil], "forward"), n("Relu", ["forward"], "r"), *head("r", 4)[0]]
    nodes[0].name = "/weight/training/Conv"
    network = opened(hand_built(tmp_path / "m.onnx", nodes, {evil: numbers(4, 3, 3, 3), **head("r", 4)[1]}))
    text = repr((network.layers, network.facts, [node.name for node in network.module.graph.nodes]))
    assert "\\x1b" not in text
    assert network.layers[0].channels == 4
