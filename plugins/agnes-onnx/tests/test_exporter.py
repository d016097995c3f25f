import onnx
import onnxruntime
import pytest
import torch
from agnes_onnx.exporter import OnnxExporter
from onnx_classifiers import NETS, exported, made, opened
from torch import nn

from agnes.errors import OutputError
from agnes.network import Network


def run(path, images):
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])


def test_a_network_written_and_opened_again_is_the_same(net, tmp_path):
    _, module, shape = net
    first = opened(exported(module, shape, tmp_path / "m.onnx"))
    path = OnnxExporter().export(first, tmp_path / "repaired.onnx")
    second = opened(path)
    images = torch.rand(3, *first.input_shape)
    with torch.no_grad():
        assert torch.allclose(second(images), first(images), rtol=1e-4, atol=1e-5)
    assert [layer.name for layer in second.layers] == [layer.name for layer in first.layers]
    assert second.parameter_count == first.parameter_count
    assert second.peeled == first.peeled
    assert second.facts["input_name"] == "pixels"
    assert second.facts["output_name"] == "scores"


def test_a_repaired_nhwc_network_with_softmax_takes_and_gives_what_its_original_did(tmp_path):
    network = opened(exported(made("inside"), (16, 16, 3), tmp_path / "m.onnx"), scale=255.0).copy()
    repaired = made("inside")
    with torch.no_grad():
        network.module.get_submodule("conv").weight[2] = 0
        repaired.conv.weight[2] = 0
    path = OnnxExporter().export(network, tmp_path / "repaired.onnx")
    images = torch.rand(3, 16, 16, 3) * 255
    with torch.no_grad():
        assert torch.allclose(run(path, images), repaired(images), atol=1e-6)


def test_a_fixed_batch_is_written_as_any(tmp_path):
    network = opened(exported(made("lenet"), (1, 28, 28), tmp_path / "m.onnx", batch=1))
    assert network.facts["batch"] == 1
    again = opened(OnnxExporter().export(network, tmp_path / "out.onnx"))
    assert again.facts["batch"] == "any"


def test_batch_norm_is_kept_and_the_opset_chosen(tmp_path):
    network = opened(exported(made("batch norms"), NETS["batch norms"][1], tmp_path / "m.onnx"))
    path = OnnxExporter(opset=15).export(network, tmp_path / "out.onnx")
    model = onnx.load(path)
    assert [node.op_type for node in model.graph.node].count("BatchNormalization") == 2
    assert model.opset_import[0].version == 15


def test_a_network_that_was_never_a_file_gets_plain_names(tmp_path):
    path = OnnxExporter().export(Network.of(made("residual"), (3, 16, 16), mean=(0.5,)), tmp_path / "out.onnx")
    model = onnx.load(path)
    assert [model.graph.input[0].name, model.graph.output[0].name] == ["input", "logits"]


def test_the_network_is_left_as_it_was(tmp_path):
    network = opened(exported(made("residual"), (3, 16, 16), tmp_path / "m.onnx"))
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    OnnxExporter().export(network, tmp_path / "out.onnx")
    assert not network.module.training
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())


def test_another_suffix_is_not_ours(tmp_path):
    network = Network.of(made("residual"), (3, 16, 16))
    assert OnnxExporter().export(network, tmp_path / "out.safetensors") is None


def test_what_differs_from_the_network_is_not_kept(tmp_path):
    target = tmp_path / "out.onnx"
    target.write_bytes(b"what was there")
    network = Network.of(made("residual"), (3, 16, 16))
    with pytest.raises(OutputError, match="differs from the network"):
        OnnxExporter(parity_limit=-1.0).export(network, target)
    assert target.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_is_not_there_and_a_network_torch_cannot_write_are_said(tmp_path):
    network = Network.of(made("residual"), (3, 16, 16))
    with pytest.raises(OutputError, match="cannot be written"):
        OnnxExporter().export(network, tmp_path / "nowhere" / "out.onnx")

    class Odd(nn.Module):
        def forward(self, x):
            return torch.special.i0(x).flatten(1)[:, :4]

    with pytest.raises(OutputError, match="torch cannot write this network as ONNX opset 17"):
        OnnxExporter().export(Network.of(Odd(), (3, 4, 4)), tmp_path / "out.onnx")
