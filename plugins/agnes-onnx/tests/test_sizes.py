import itertools
import subprocess
import sys

import pytest
import torch
from agnes_onnx import sizes
from onnx_classifiers import NETS, exported, made
from torch import nn


@pytest.mark.parametrize("kind", [nn.MaxPool2d, nn.AvgPool2d])
def test_pools_are_sized_as_torch_sizes_them(kind):
    for size, kernel, stride, pad, up in itertools.product((5, 8, 9), (2, 3), (1, 2, 3), (0, 1), (False, True)):
        pool = kind((kernel, kernel), (stride, stride), (pad, pad), ceil_mode=up)
        images = torch.zeros(2, 3, size, size + 1)
        assert sizes.by_rule(pool, [images.to("meta")]).shape == pool(images).shape


def test_convolutions_are_sized_as_torch_sizes_them():
    for size, kernel, stride, pad, dilation in itertools.product((7, 8), (1, 3), (1, 2, 3), (0, 1, 2), (1, 2)):
        conv = nn.Conv2d(4, 6, (kernel, 2), (stride, 1), (pad, 0), (dilation, 1), groups=2)
        images = torch.zeros(2, 4, size, 5)
        assert sizes.by_rule(conv, [images.to("meta")]).shape == conv(images).shape


@pytest.mark.parametrize("module", [nn.Conv2d(3, 4, 9), nn.Conv2d(5, 4, 1), nn.MaxPool2d((9, 9), (1, 1), (0, 0))])
def test_what_does_not_fit_is_an_error(module):
    with pytest.raises(ValueError, match=r"its input is smaller|channels"):
        sizes.by_rule(module, [torch.zeros(2, 3, 8, 8, device="meta")])


SLOWER = ("residual", "inside", "attention", "branches", "shuffle")


@pytest.mark.parametrize("name", ["depthwise", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOWER)])
def test_opening_a_usual_network_imports_neither_torchs_compiler_nor_onnxruntime(name, tmp_path):
    path = exported(made(name), NETS[name][1], tmp_path / "m.onnx")
    program = (
        "import sys, pathlib, threading, agnes.loading, agnes_onnx.loader as l;"
        f"l.OnnxLoader().load(pathlib.Path({str(path)!r}), agnes.loading.LoadOptions());"
        "heavy = {'torch._dynamo', 'sympy', 'onnxruntime', 'torchvision'} & set(sys.modules);"
        "left = [t for t in threading.enumerate() if 'tqdm' not in t.name];"  # torch.fx starts one where tqdm is
        "sys.exit(str(heavy) if heavy else len(left) - 1)"
    )
    assert subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0
