"""The families of image classifiers, each small, and the ways that torch has of writing them at any opset."""

from __future__ import annotations

import copy
import functools
import io
import logging
import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from onnx import version_converter
from onnx_classifiers import Attention, lenet
from torch import nn
from torch.onnx.errors import UnsupportedOperatorError

from agnes.testing import networks

NEWEST = onnx.defs.onnx_opset_version()
OPSETS = {  # exporter: the opsets that its files can be had at; nothing brings a dynamo file back to 13
    "legacy": (13, 17, 18, 20, NEWEST),
    "dynamo": (17, 18, 20, NEWEST),
}
_WRITTEN = {"legacy": (13, 17, 18, 20), "dynamo": (18, 20)}  # opsets that torch writes itself; others are converted


class NoSuchFile(Exception):
    """onnx cannot convert a file to an opset."""


class Inception(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.small = nn.Sequential(*_unit(inputs, outputs, 1))
        self.wide = nn.Sequential(
            *_unit(inputs, outputs, 1), *_unit(outputs, outputs, (1, 3)), *_unit(outputs, 4, (3, 1))
        )
        self.pooled = nn.Sequential(nn.AvgPool2d(3, 1, padding=1), *_unit(inputs, outputs, 1))

    def forward(self, x):
        return torch.cat([self.small(x), self.wide(x), self.pooled(x)], 1)


class Fire(nn.Module):
    """SqueezeNet's block."""

    def __init__(self, inputs: int, squeezed: int, outputs: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.one = nn.Conv2d(squeezed, outputs, 1)
        self.three = nn.Conv2d(squeezed, outputs, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.squeeze(x))
        return torch.cat([self.relu(self.one(x)), self.relu(self.three(x))], 1)


class Inverted(nn.Module):
    """MobileNetV3's block: depthwise, with squeeze and excitation, and the input around it."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.Hardswish())
        self.depth = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        self.excite = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(hidden, 4, 1), nn.ReLU(), nn.Conv2d(4, hidden, 1), nn.Hardsigmoid()
        )
        self.reduce = nn.Sequential(nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x):
        maps = nn.functional.relu6(self.norm(self.depth(self.expand(x))))
        return x + self.reduce(maps * self.excite(maps))


class Vit(nn.Module):
    """As torchvision writes it, around torch's own attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, stride=8)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.place = nn.Parameter(torch.randn(1, 17, 16))
        self.before, self.between = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Dropout(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.patches(x).reshape(x.shape[0], 16, 16).permute(0, 2, 1)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        y = self.before(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head((x + self.mlp(self.between(x)))[:, 0])


def _unit(inputs, outputs, size, activation=nn.ReLU, stride=1):
    padding = tuple(n // 2 for n in size) if isinstance(size, tuple) else size // 2
    yield from (nn.Conv2d(inputs, outputs, size, stride, padding, bias=False), nn.BatchNorm2d(outputs), activation())


def _head(channels):
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)


def alexnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2, padding=2), nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2), nn.Conv2d(8, 12, 3, padding=1, groups=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Dropout(), nn.Linear(108, 24), nn.ReLU(inplace=True), nn.Dropout(),
        nn.Linear(24, 5),
    )  # fmt: skip


def vgg_bn() -> nn.Module:
    return nn.Sequential(
        *_unit(3, 4, 3), *_unit(4, 4, 3), nn.MaxPool2d(2), *_unit(4, 8, 3), nn.MaxPool2d(2), *_unit(8, 8, 3),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 5),
    )  # fmt: skip


def resnet18(width: int = 4) -> nn.Module:
    blocks, channels = [], width
    for stage in range(4):
        outputs = width << stage
        for step in range(2):
            blocks.append(networks.Residual(channels, outputs, 2 if stage and not step else 1))
            channels = outputs
    return nn.Sequential(*_unit(3, width, 7, stride=2), nn.MaxPool2d(3, 2, 1), *blocks, *_head(channels))


def squeezenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(8, 4, 6), Fire(12, 4, 6),
        nn.Dropout(), nn.Conv2d(12, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def mobilenet() -> nn.Module:
    return nn.Sequential(*_unit(3, 6, 3, nn.Hardswish, 2), Inverted(6, 12), Inverted(6, 12), *_head(6))


def inception() -> nn.Module:
    return nn.Sequential(*_unit(3, 6, 3, stride=2), Inception(6, 4), nn.MaxPool2d(2), Inception(12, 4), *_head(12))


def _activated(activation):
    return lambda: nn.Sequential(*_unit(3, 6, 3, activation, 2), nn.Conv2d(6, 6, 3), activation(), *_head(6))


FAMILIES = {  # name: builder, the input without the batch
    "lenet": (lenet, (1, 28, 28)),
    "alexnet": (alexnet, (3, 32, 32)),
    "vgg-bn": (vgg_bn, (3, 32, 32)),
    "resnet-18": (resnet18, (3, 32, 32)),
    "pre-activation resnet": (networks.pre_activation, networks.INPUT_SHAPE),
    "densenet": (networks.dense, networks.INPUT_SHAPE),
    "mobilenet": (mobilenet, (3, 32, 32)),
    "squeezenet": (squeezenet, (3, 32, 32)),
    "inception": (inception, (3, 32, 32)),
    "global max pooling": (networks.max_pooled, networks.INPUT_SHAPE),
    "global average pooling": (networks.average_pooled, networks.INPUT_SHAPE),
    "written as calls": (networks.written_as_calls, networks.INPUT_SHAPE),
    "leaky relu": (_activated(lambda: nn.LeakyReLU(0.1)), (3, 16, 16)),
    "elu": (_activated(nn.ELU), (3, 16, 16)),
    "gelu": (_activated(nn.GELU), (3, 16, 16)),
    "silu": (_activated(nn.SiLU), (3, 16, 16)),
    "hardswish": (_activated(nn.Hardswish), (3, 16, 16)),
    "vit": (Vit, (3, 32, 32)),
    "vit of plain steps": (Attention, (3, 16, 16)),
}


@functools.cache
def family(name: str) -> nn.Module:
    """One of FAMILIES, in eval mode, its weights and statistics the same each time; not to be changed."""
    builder, shape = FAMILIES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = builder().train()
        with torch.no_grad():
            for _ in range(3):
                module(torch.rand(8, *shape) * 2 - 0.5)
    return module.eval()


def written(name: str, exporter: str, opset: int) -> bytes:
    """A family as one of torch's exporters writes it, converted to the opset where torch does not write that."""
    own = _WRITTEN[exporter]
    if opset in own:
        return _written(name, exporter, opset)
    model = onnx.load_model_from_string(_written(name, exporter, max(own) if opset > max(own) else min(own)))
    try:
        converted = version_converter.convert_version(model, opset)
        onnx.checker.check_model(converted)
        return converted.SerializeToString()
    except (RuntimeError, onnx.checker.ValidationError) as error:
        raise NoSuchFile(f"onnx does not convert this file to opset {opset}") from error


@functools.cache
def _written(name: str, exporter: str, opset: int) -> bytes:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    module, images = copy.deepcopy(family(name)), torch.rand(2, *FAMILIES[name][1])
    with warnings.catch_warnings(), torch.enable_grad():  # without gradients torch traces attention's fused kernel
        warnings.simplefilter("ignore")
        try:
            return _legacy(module, images, opset) if exporter == "legacy" else _dynamo(module, images, opset)
        except UnsupportedOperatorError as error:
            raise NoSuchFile(f"torch writes no such file: {error}") from error


def _legacy(module: nn.Module, images: torch.Tensor, opset: int) -> bytes:
    stream = io.BytesIO()
    torch.onnx.export(
        module,
        (images,),
        stream,
        dynamo=False,
        opset_version=opset,
        input_names=["pixels"],
        output_names=["scores"],
        dynamic_axes={"pixels": {0: "n"}, "scores": {0: "n"}},
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
    )
    return stream.getvalue()


def _dynamo(module: nn.Module, images: torch.Tensor, opset: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        shapes = ({0: torch.export.Dim("n")},)
        torch.onnx.export(
            module,
            (images,),
            path,
            dynamo=True,
            verbose=False,
            external_data=False,
            opset_version=opset,
            dynamic_shapes=shapes,
        )
        return path.read_bytes()
