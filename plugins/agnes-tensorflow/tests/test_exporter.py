"""A repaired network goes back into the Keras file that it came from."""

import shutil
from pathlib import Path

import onnx
import pytest
import torch

pytest.importorskip("agnes_tensorflow")

from agnes_tensorflow.exporter import KerasExporter
from agnes_tensorflow.loader import KerasLoader

from agnes.errors import OutputError
from agnes.loading import LoadOptions
from agnes.registry import Registry
from agnes.reports import exporting
from agnes.testing.inputs import tiny_network

NORMALISED = "normalised-sequential.keras"
WITHOUT_GAMMA = 7  # the number of beta in its normalisation without gamma


def repaired(network):
    """A copy with every weight moved, running statistics too."""
    copy = network.copy()
    with torch.no_grad():
        for name, value in copy.module.state_dict().items():
            if name in network.facts["weights"]:
                value.mul_(1.1).add_(0.01)
    return copy


@pytest.mark.parametrize(
    "name",
    [
        NORMALISED,
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("depthwise.h5", "residual.keras", "rescaled-sequential.keras", "softmax.h5", "grey.keras")
        ),
    ],
)
def test_a_repaired_network_is_written_with_its_original_layers(good, opened, tmp_path, monkeypatch, name):
    network = opened(name)
    changed = repaired(network)
    monkeypatch.chdir(tmp_path)
    path = Path(f"repaired{(good / name).suffix}")
    assert KerasExporter().export(changed, path) == path
    again = KerasLoader().load(path, LoadOptions())
    assert again is not None
    images = torch.rand(4, *network.input_shape)
    torch.testing.assert_close(again(images), changed(images), rtol=1e-4, atol=1e-5)
    assert (again(images) - network(images)).abs().max() > 1e-3
    assert [path for _, path in again.facts["weights"].values()] == [
        path for _, path in network.facts["weights"].values()
    ]
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.slow
def test_what_agnes_puts_in_front_stays_out_of_the_file(good, tmp_path):
    options = LoadOptions(mean=(0.5,), std=(0.25,))
    network = KerasLoader().load(good / "grey.keras", options)
    assert network is not None
    written = KerasExporter().export(repaired(network), tmp_path / "repaired.keras")
    assert written is not None
    again = KerasLoader().load(written, options)
    assert again is not None
    images = torch.rand(4, *network.input_shape)
    torch.testing.assert_close(again(images), repaired(network)(images), rtol=1e-4, atol=1e-5)


def test_a_network_that_is_no_longer_the_file_s_is_written_as_onnx(opened, tmp_path):
    network = opened(NORMALISED)
    changed = network.copy()
    place = next(key for key, (index, _) in network.facts["weights"].items() if index == WITHOUT_GAMMA)
    with torch.no_grad():
        changed.module.get_parameter(place.replace("bias", "weight")).mul_(3.0)
    with pytest.raises(OutputError, match=r"do not map one to one; write \.onnx"):
        KerasExporter().export(changed, tmp_path / "repaired.keras")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_engine_then_writes_onnx(opened, tmp_path):
    changed = opened("grey.keras").copy()
    changed.facts = {**changed.facts, "sha256": "another"}
    written, why = exporting.export(changed, tmp_path / "repaired", ".keras", Registry.discover(), {})
    assert written == tmp_path / "repaired.onnx"
    assert why.startswith("keras-export: ")
    assert why.endswith("write .onnx")
    (taken,) = onnx.load(written).graph.input
    assert taken.name == changed.facts["input_name"]
    assert [size.dim_value for size in taken.type.tensor_type.shape.dim[1:]] == [10, 14, 1]


def test_an_original_that_has_changed_is_not_trusted(opened, good, tmp_path):
    network = opened(NORMALISED).copy()
    source = shutil.copy(good / "plain.keras", tmp_path / "model.keras")
    network.facts = {**network.facts, "path": str(source)}
    with pytest.raises(OutputError, match="gone or has changed"):
        KerasExporter().export(network, tmp_path / "repaired.keras")
    source.unlink()
    with pytest.raises(OutputError, match="gone or has changed"):
        KerasExporter().export(network, tmp_path / "repaired.keras")


def test_a_network_from_elsewhere_is_not_written_as_keras(tmp_path):
    with pytest.raises(OutputError, match=r"not opened from a Keras file; write it as \.onnx"):
        KerasExporter().export(tiny_network("plain"), tmp_path / "model.keras")


def test_other_formats_are_left_to_others(tmp_path):
    assert KerasExporter().export(tiny_network("plain"), tmp_path / "model.onnx") is None
    assert not list(tmp_path.iterdir())
