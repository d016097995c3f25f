"""Small classifiers of many kinds, and the ways to write and open them."""

from __future__ import annotations

import copy
import functools
import io
import logging
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
from agnes_onnx.loader import OnnxLoader
from torch import nn

from agnes.loading import LoadOptions
from agnes.network import Network


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.norm2(self.second(x)) + x)
        return self.fc(x.mean((2, 3)))


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 4, 1)
        self.right = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(8 * 16, 4)

    def forward(self, x):
        x = torch.cat(
            [
                torch.relu(self.left(x)),
                torch.relu(self.right(x)),
            ],
            1,
        )
        return self.fc(nn.functional.adaptive_max_pool2d(x, 1).expand(-1, -1, 4, 4).reshape(x.shape[0], -1))


class Shuffle(nn.Module):
    """Splits, shuffles channels and takes slices, with sizes read while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.fc = nn.Linear(8 * 7 * 4, 6)

    def forward(self, x):
        x = self.conv(x)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        first, second = x.chunk(2, 1)
        return self.fc((first * second)[:, :, :, :7].flatten(1))


class Inside(nn.Module):
    """Takes 0..255 as NHWC and prepares it itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        x = x.permute(0, 3, 1, 2) / 255.0
        x = (x - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
        return torch.softmax(self.fc(torch.relu(self.conv(x)).mean((2, 3))), 1)


class Attention(nn.Module):
    """A token in front, one block of attention, LayerNorm and GELU: the heart of a ViT."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.place = nn.Parameter(torch.randn(1, 17, 16))
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        batch, count, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, count, 3, 4, 4).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        weights = (q @ k.transpose(-2, -1) / 2.0).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(batch, count, width))
        return self.head((x + self.mlp(x))[:, 0])


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * 25, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 10),
    )  # fmt: skip


def batch_norms() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
        nn.Flatten(), nn.Linear(8 * 64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4),
    )  # fmt: skip


def depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8), nn.Hardswish(),
        nn.Conv2d(8, 12, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4),
    )  # fmt: skip


def activations() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 4, 3), nn.ELU(0.5),
        nn.Conv2d(4, 4, 3), nn.Hardsigmoid(), nn.ReflectionPad2d(1), nn.Conv2d(4, 4, 3), nn.PReLU(4), nn.Softplus(),
        nn.ConvTranspose2d(4, 4, 2), nn.GELU(), nn.Flatten(), nn.LazyLinear(3),
    )  # fmt: skip


def fully_convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Softmax(1))


NETS = {  # name: builder, the file's own input without the batch
    "lenet": (lenet, (1, 28, 28)),
    "batch norms": (batch_norms, (3, 16, 16)),
    "residual": (Residual, (3, 16, 16)),
    "branches": (Branches, (3, 16, 16)),
    "shuffle": (Shuffle, (3, 17, 17)),
    "depthwise": (depthwise, (3, 16, 16)),
    "activations": (activations, (3, 14, 14)),
    "fully convolutional": (fully_convolutional, (3, 12, 12)),
    "inside": (Inside, (16, 16, 3)),
    "attention": (Attention, (3, 16, 16)),
}


def in_ci(*names: str) -> list:
    """All of NETS, those not named only in the slow suite."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in NETS]


def made(name: str) -> nn.Module:
    """One of NETS, its weights and its normalisations' statistics the same each time."""
    return copy.deepcopy(_made(name))


@functools.cache
def _made(name: str) -> nn.Module:
    builder, shape = NETS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = builder()
        module.train()
        with torch.no_grad():
            for _ in range(3):
                module(torch.rand(8, *shape) * 2 - 0.5)
    module.made_as = name
    return module.eval()


def exported(
    module: nn.Module, shape: tuple[int, ...], path: Path, *, opset: int = 17, batch: int | None = None
) -> Path:
    """A module of NETS written by torch's older exporter, for any batch or for one size."""
    path.write_bytes(_exported(module.made_as, shape, opset, batch))
    return path


@functools.cache
def _exported(name: str, shape: tuple[int, ...], opset: int, batch: int | None) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            _made(name),
            (torch.rand(batch or 2, *shape),),
            stream,
            dynamo=False,
            opset_version=opset,
            input_names=["pixels"],
            output_names=["scores"],
            dynamic_axes=None if batch else {"pixels": {0: "n"}, "scores": {0: "n"}},
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    return stream.getvalue()


@functools.cache
def network_of(name: str) -> Network:
    """One of NETS, written for any batch at opset 17 and opened; not to be changed."""
    with tempfile.TemporaryDirectory() as folder:
        return opened(exported(made(name), NETS[name][1], Path(folder) / "m.onnx"))


def opened(path: Path, **options) -> Network:
    """The network in a file that is ours to open."""
    network = OnnxLoader().load(path, LoadOptions(**options))
    assert network is not None
    return network
