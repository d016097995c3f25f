"""Files of trained networks, and that they say nothing of the truth."""

import onnx
import pytest
import torch
from agnes_zoo.architectures import n_sn_bn
from agnes_zoo.training import initialised
from agnes_zoo.writing import write

from agnes.api import open_network
from agnes.errors import AgnesError, UsageError
from agnes.loading import LoadOptions


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors", ".pt", ".pth"])
def test_every_format_is_opened_by_the_engine_and_answers_alike(suffix, tmp_path):
    module = initialised(n_sn_bn, 43, 0).eval()
    path = write(module, tmp_path / f"m{suffix}", (3, 32, 32))
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    options = LoadOptions() if suffix == ".onnx" else LoadOptions(arch="N_SN_BN", input_shape=(3, 32, 32))
    with torch.no_grad():
        assert torch.allclose(open_network(path, options)(images), module(images), atol=1e-4)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_an_unknown_format_is_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match=r"m\.h5: networks are written as \.onnx"):
        write(initialised(n_sn_bn, 43, 0), tmp_path / "m.h5", (3, 32, 32))


@pytest.mark.parametrize("name", ["onnx", "safetensors"])
def test_a_library_that_is_missing_is_named_with_its_remedy(name, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda library: None)
    with pytest.raises(AgnesError, match=rf"writing \.{name} takes {name}, .* pip install 'agnes-zoo\[train\]'"):
        write(initialised(n_sn_bn, 43, 0), tmp_path / f"m.{name}", (3, 32, 32))
    assert not list(tmp_path.iterdir())


def test_an_onnx_file_carries_no_words_but_those_of_the_format(tmp_path):
    model = onnx.load(write(initialised(n_sn_bn, 43, 0), tmp_path / "patch-to-7.onnx", (3, 32, 32)))
    assert not model.metadata_props
    assert not model.doc_string
    assert not model.graph.doc_string
    assert not any(node.doc_string for node in model.graph.node)
    assert (model.producer_name, model.graph.name) == ("pytorch", "main_graph")
    names = {value.name for value in (*model.graph.input, *model.graph.output)}
    assert names == {"image", "logits"}
