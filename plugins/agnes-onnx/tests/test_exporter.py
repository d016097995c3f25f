import onnx
import pytest
import torch
from agnes_onnx.exporter import OnnxExporter
from agnes_onnx.runtime import Reference
from onnx_classifiers import exported, in_ci, made, network_of, opened
from torch import nn

from agnes.errors import OutputError
from agnes.network import Network


def run(path, images):
    return Reference().run(path.read_bytes(), images).logits


@pytest.mark.parametrize("name", in_ci("batch norms", "residual", "shuffle", "attention"))
def test_a_network_written_and_opened_again_is_the_same(name, tmp_path):
    first = network_of(name)
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
    path = OnnxExporter(opset=15).export(network_of("batch norms"), tmp_path / "out.onnx")
    model = onnx.load(path)
    assert [node.op_type for node in model.graph.node].count("BatchNormalization") == 2
    assert model.opset_import[0].version == 15


def test_a_network_that_was_never_a_file_gets_plain_names(tmp_path):
    path = OnnxExporter().export(Network.of(made("residual"), (3, 16, 16), mean=(0.5,)), tmp_path / "out.onnx")
    model = onnx.load(path)
    assert [model.graph.input[0].name, model.graph.output[0].name] == ["input", "logits"]


def test_the_network_is_left_as_it_was(tmp_path):
    network = network_of("residual")
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


@pytest.mark.parametrize("opset", [9, 13, 18, pytest.param(20, marks=pytest.mark.slow), 23])
@pytest.mark.parametrize("name", ["lenet", *(pytest.param(n, marks=pytest.mark.slow) for n in ("inside", "attention"))])
def test_the_opset_is_chosen_by_a_setting(name, opset, tmp_path):
    first = network_of(name)
    again = opened(OnnxExporter(opset=opset).export(first, tmp_path / "out.onnx"))
    images = torch.rand(3, *first.input_shape)
    assert again.facts["opset"] == opset
    assert torch.allclose(again(images), first(images), rtol=1e-4, atol=1e-5)


def test_an_opset_that_torch_does_not_write_is_said_in_one_line(tmp_path, capfd):
    with pytest.raises(OutputError, match="torch cannot write this network as ONNX opset 99"):
        OnnxExporter(opset=99).export(network_of("lenet"), tmp_path / "out.onnx")
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_and_a_network_torch_cannot_write_are_said(tmp_path):
    network = Network.of(made("residual"), (3, 16, 16))
    with pytest.raises(OutputError, match="cannot be written"):
        OnnxExporter().export(network, tmp_path / "nowhere" / "out.onnx")

    class Odd(nn.Module):
        def forward(self, x):
            return torch.special.i0(x).flatten(1)[:, :4]

    with pytest.raises(OutputError, match="torch cannot write this network as ONNX opset 17"):
        OnnxExporter().export(Network.of(Odd(), (3, 4, 4)), tmp_path / "out.onnx")
