"""Libraries do their work behind the closed doors, and what a hostile file makes them do comes to nothing."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from agnes import confinement
from agnes.errors import Refused


def test_torch_works_in_the_child():
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype("f4")
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype("f4")
    found = confinement.run("confined:infer_with_torch", weight, x, prepare=["torch"])
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    np.testing.assert_allclose(found, np.maximum(np.einsum("ncijab,ocab->noij", windows, weight), 0), atol=1e-4)


def test_a_pickled_module_can_be_read_in_the_child(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2))
    torch.save(module, tmp_path / "m.pt")
    path = tmp_path / "m.pt"
    found = confinement.run("confined:load_pickled_module", path, allow_read=[path], prepare=["torch"])
    for key, value in module.state_dict().items():
        np.testing.assert_array_equal(found[key], value.numpy())


class Payload:
    """What a hostile pickle does: run a command while it is being read."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_pickle_that_runs_a_command_leaves_no_marker(tmp_path):
    path, marker = tmp_path / "m.pt", tmp_path / "marker"
    torch.save(Payload(f"touch {marker}"), path)
    if not confinement.strength().strong:
        pytest.skip(f"isolation is {confinement.strength()}")
    with pytest.raises(Refused, match="'int' object has no attribute 'state_dict'"):  # the command gave back an error
        confinement.run("confined:load_pickled_module", path, allow_read=[path], prepare=["torch"])
    assert not marker.exists()
    torch.load(path, weights_only=False)  # outside, the same file does run its command
    assert marker.exists()


def test_onnxruntime_works_in_the_child():
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    shape = [2, 5]
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [tensor("x", 1, shape)], [tensor("y", 1, shape)]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    x = np.random.default_rng(1).standard_normal(shape).astype("f4")
    found = confinement.run("confined:infer_with_onnxruntime", model.SerializeToString(), x, prepare=["onnxruntime"])
    np.testing.assert_array_equal(found, np.maximum(x, 0))
