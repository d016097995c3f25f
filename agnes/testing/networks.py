"""Small networks of every common shape, the same for the same seed: what a method must be able to work on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn import functional

INPUT_SHAPE = (3, 12, 12)  # channels, height, width that every network here takes
CLASSES = 5

_ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU,
    lambda: nn.ReLU(inplace=True),
    lambda: nn.LeakyReLU(0.1),
    nn.SiLU,
    nn.Tanh,
)


class Residual(nn.Module):
    """Two convolutions around which the input goes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity() if inputs == outputs and stride == 1 else nn.Conv2d(inputs, outputs, 1, stride)
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(maps)))))
        out += self.shortcut(maps)
        return self.relu2(out)


class PreActivation(nn.Module):
    """A residual block that normalises and activates before each convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps + self.conv2(self.relu2(self.bn2(self.conv1(self.relu1(self.bn1(maps))))))


class Dense(nn.Module):
    """Every step reads all the maps before it; each joint is normalised after it is made."""

    def __init__(self, inputs: int, growth: int, steps: int = 2) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(inputs + growth * i) for i in range(steps))
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(steps))
        self.convs = nn.ModuleList(nn.Conv2d(inputs + growth * i, growth, 3, padding=1) for i in range(steps))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        for norm, relu, conv in zip(self.norms, self.relus, self.convs, strict=True):
            maps = torch.cat([maps, conv(relu(norm(maps)))], 1)
        return maps


class Branches(nn.Module):
    """Three ways through, joined by channel."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.small = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.ReLU())
        self.large = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1), nn.ReLU(), nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU()
        )
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), nn.Conv2d(inputs, outputs, 1), nn.ReLU())

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.small(maps), self.large(maps), self.pooled(maps)], dim=1)


class Functional(nn.Module):
    """As many published files are written: calls instead of modules, views by the batch's size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1)
        self.fc1 = nn.Linear(8 * 3 * 3, 16)
        self.fc2 = nn.Linear(16, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = functional.max_pool2d(functional.relu(self.conv1(images)), 2)
        maps = functional.max_pool2d(functional.relu(self.conv2(maps), inplace=True), 2)
        flat = maps.view(maps.size(0), -1)
        flat = functional.dropout(functional.relu(self.fc1(flat)), training=self.training)
        return self.fc2(flat)


def plain(seed: int = 0) -> nn.Module:
    """Convolutions, pooling and two linear layers."""
    return _settled(
        lambda: nn.Sequential(*_conv(3, 6), nn.MaxPool2d(2), *_conv(6, 8), nn.MaxPool2d(2), *_mlp(72, 16)),
        seed,
    )


def batch_norm(seed: int = 0) -> nn.Module:
    """Convolution, BatchNorm, ReLU, as one layer each."""
    return _settled(lambda: nn.Sequential(*_conv_norm(3, 6), *_conv_norm(6, 8, 2), *_average_head(8)), seed)


def residual(seed: int = 0) -> nn.Module:
    return _settled(
        lambda: nn.Sequential(*_conv_norm(3, 6), Residual(6, 6), Residual(6, 8, 2), *_average_head(8)), seed
    )


def pre_activation(seed: int = 0) -> nn.Module:
    return _settled(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            PreActivation(6),
            PreActivation(6),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            *_average_head(6),
        ),
        seed,
    )


def dense(seed: int = 0) -> nn.Module:
    """A DenseNet's blocks: everything before a cut is read again after it."""
    return _settled(
        lambda: nn.Sequential(*_conv(3, 4), Dense(4, 3), nn.AvgPool2d(2), Dense(10, 3), *_average_head(16)), seed
    )


def branching(seed: int = 0) -> nn.Module:
    """An Inception's blocks."""
    return _settled(lambda: nn.Sequential(*_conv(3, 6), Branches(6, 4), Branches(12, 3), *_average_head(9)), seed)


def depthwise(seed: int = 0) -> nn.Module:
    """A MobileNet's separable convolutions."""
    return _settled(
        lambda: nn.Sequential(*_conv_norm(3, 6), *_separable(6, 8), *_separable(8, 8), *_average_head(8)), seed
    )


def fully_connected(seed: int = 0) -> nn.Module:
    return _settled(lambda: nn.Sequential(*_mlp(432, 24, 16)), seed)


def max_pooled(seed: int = 0) -> nn.Module:
    """Global max pooling before the last layer."""
    return _settled(lambda: nn.Sequential(*_conv(3, 6), *_conv(6, 8), *_max_head(8)), seed)


def average_pooled(seed: int = 0) -> nn.Module:
    """Global average pooling of one map for each class; the last layer is a convolution."""
    return _settled(
        lambda: nn.Sequential(*_conv(3, 6), *_conv(6, CLASSES), nn.AdaptiveAvgPool2d(1), nn.Flatten()), seed
    )


def softmax_tail(seed: int = 0) -> nn.Module:
    """Ends in probabilities, as Keras writes its files."""
    return _settled(lambda: nn.Sequential(*_conv(3, 6), nn.MaxPool2d(2), *_mlp(216, 12), nn.Softmax(dim=1)), seed)


def written_as_calls(seed: int = 0) -> nn.Module:
    """Without modules for activations, pooling and views."""
    return _settled(Functional, seed)


def random_network(seed: int) -> nn.Module:
    """A stem, one to three blocks and a head, drawn by the seed."""
    draw = random.Random(seed)

    def build() -> nn.Module:
        channels = draw.choice((4, 6))
        modules = [nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), draw.choice(_ACTIVATIONS)()]
        for _ in range(draw.randint(1, 3)):
            block, channels = _random_block(draw, channels)
            modules += block
        head = draw.choice((_average_head, _max_head, _flat_head))
        modules += head(channels)
        if draw.random() < 0.2:
            modules.append(nn.Softmax(dim=-1))
        return nn.Sequential(*modules)

    return _settled(build, seed)


def networks() -> dict[str, Callable[[int], nn.Module]]:
    """Every builder by name; each takes a seed."""
    builders = (plain, batch_norm, residual, pre_activation, dense, branching, depthwise, fully_connected)
    builders += (max_pooled, average_pooled, softmax_tail, written_as_calls)
    return {builder.__name__: builder for builder in builders}


def _random_block(draw: random.Random, channels: int) -> tuple[list[nn.Module], int]:
    """Some modules that keep 12x12 or smaller maps, and their channels."""
    wider = channels + draw.choice((0, 2))
    activation = draw.choice(_ACTIVATIONS)
    choices: list[tuple[list[nn.Module], int]] = [
        ([nn.Conv2d(channels, wider, 3, padding=1), activation()], wider),
        ([nn.Conv2d(channels, wider, 3, padding=1), nn.BatchNorm2d(wider), activation(), nn.Dropout(0.3)], wider),
        ([nn.Conv2d(channels, wider, 3, padding=1), activation(), nn.BatchNorm2d(wider)], wider),
        ([Residual(channels, wider, draw.choice((1, 2)))], wider),
        ([PreActivation(channels)], channels),
        ([Dense(channels, 2)], channels + 4),
        ([Branches(channels, 2)], 6),
        ([*_separable(channels, wider)], wider),
        ([nn.MaxPool2d(2, ceil_mode=True)], channels),
    ]
    return draw.choice(choices)


def _conv(inputs: int, outputs: int) -> Iterable[nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()


def _conv_norm(inputs: int, outputs: int, stride: int = 1) -> Iterable[nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def _separable(inputs: int, outputs: int) -> Iterable[nn.Module]:
    yield from (nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False), nn.BatchNorm2d(inputs), nn.ReLU6())
    yield from (nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU6())


def _mlp(inputs: int, *hidden: int) -> Iterable[nn.Module]:
    yield nn.Flatten()
    for width in hidden:
        yield from (nn.Linear(inputs, width), nn.ReLU())
        inputs = width
    yield nn.Linear(inputs, CLASSES)


def _average_head(channels: int) -> Iterable[nn.Module]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)


def _max_head(channels: int) -> Iterable[nn.Module]:
    return nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)


def _flat_head(channels: int) -> Iterable[nn.Module]:
    return nn.AdaptiveAvgPool2d(2), *_mlp(4 * channels, 10)


def _settled(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The module in eval mode, all its numbers drawn by the seed; torch's own generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        module = build()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                _settle_norm(part, generator)
            elif isinstance(part, (nn.Conv2d, nn.Linear)):
                part.weight.normal_(0, (2 / part.weight[0].numel()) ** 0.5, generator=generator)
                if part.bias is not None:
                    part.bias.normal_(0, 0.1, generator=generator)
    return module.eval()


def _settle_norm(norm: nn.BatchNorm2d, generator: torch.Generator) -> None:
    """Statistics and factors as training leaves them: none is zero or one."""
    for tensor, low, high in (
        (norm.weight, 0.5, 1.5),
        (norm.bias, -0.3, 0.3),
        (norm.running_mean, -0.3, 0.3),
        (norm.running_var, 0.4, 2.0),
    ):
        if tensor is not None:
            tensor.uniform_(low, high, generator=generator)
