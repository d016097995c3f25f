"""The embedded traffic signs: 43 procedural classes after GTSRB, so that everything runs with no download.

An endless stream of signs belongs to every seed and part: its image i is the same however many are asked for, in
whatever process and on however many threads. Signs are composed in blocks, each with a generator of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch.nn import functional

from agnes.errors import UsageError
from agnes_zoo.faces import CLASS_NAMES, STOP, draw_face

__all__ = ["CLASS_NAMES", "SIDE", "SIGNS", "STOP", "TEST", "TRAINING", "Kind", "sign", "signs", "stream", "template"]

SIDE = 32
TRAINING, TEST = 0, 1  # parts of a seed, which share no image
_DRAWN = 512  # a face is drawn at this side
_OVERSAMPLING = 2  # and kept, posed and then composed at this many times the image's
_BLOCK = 256  # images composed at once, about: a whole number of each class
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class Kind:
    """Which signs, and in what pixels."""

    classes: tuple[int, ...] = tuple(range(len(CLASS_NAMES)))  # of the 43; the labels number them from 0
    side: int = SIDE
    channels: int = 3  # 3 for colour, 1 for grey

    def __post_init__(self) -> None:
        if not 16 <= self.side <= 128 or self.channels not in (1, 3):
            raise UsageError(
                f"signs of side {self.side} with {self.channels} channels cannot be drawn; sides are 16 to 128, "
                "channels 1 or 3"
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(CLASS_NAMES[label] for label in self.classes)

    @property
    def block(self) -> int:
        """How many images are composed at once."""
        return max(1, _BLOCK // len(self.classes)) * len(self.classes)


SIGNS = Kind()


def signs(count_per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The first signs of a seed, as many of every class: uint8 images N, 32, 32, 3 and int64 labels."""
    return stream(count_per_class * len(CLASS_NAMES), seed)


def stream(count: int, seed: int, part: int = TRAINING, kind: Kind = SIGNS) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` signs of a seed's part: uint8 images N, H, W, C and int64 labels, each class in turn."""
    if count < 0 or seed < 0:
        raise UsageError(f"{count} signs of seed {seed} cannot be drawn; give a count and a seed of 0 or more")
    images = np.empty((count, kind.side, kind.side, kind.channels), np.uint8)
    labels = np.empty(count, np.int64)
    for number, start in enumerate(range(0, count, kind.block)):
        rng = np.random.default_rng((seed, part, number))
        order = _order(kind, rng)
        composed = _compose(order, kind, rng)  # whole, so that none of it depends on the count
        stop = min(start + kind.block, count)
        images[start:stop], labels[start:stop] = composed[: stop - start], order[: stop - start]
    return images, labels


def sign(label: int, rng: np.random.Generator) -> np.ndarray:
    """One sign of a class: uint8, 32, 32, 3."""
    return _compose(np.array([label]), SIGNS, rng)[0]


@cache
def template(label: int, side: int = SIDE * _OVERSAMPLING) -> np.ndarray:
    """The clean face of a class: red, green, blue times coverage, and coverage; 4 x side x side."""
    return draw_face(label, _DRAWN).reduced(side)


def _order(kind: Kind, rng: np.random.Generator) -> np.ndarray:
    """The labels of a block: rounds of all classes, each round in an order of its own."""
    count = len(kind.classes)
    return rng.permuted(np.tile(np.arange(count), (kind.block // count, 1)), axis=1).ravel()


def _compose(labels: np.ndarray, kind: Kind, rng: np.random.Generator) -> np.ndarray:
    """Signs put before a background, lit, blurred and made noisy."""
    count, side = len(labels), kind.side
    layers = _posed(labels, kind, rng)
    face, cover = layers[:, :3], layers[:, 3:]
    daylight = _column(np.exp(rng.uniform(np.log(0.2), np.log(1.1), count)))
    tint = _column(rng.uniform(0.88, 1.08, (count, 3)))
    contrast = _column(rng.uniform(0.65, 1.0, count))
    worn = contrast * face + (1 - contrast) * 0.5 * cover
    images = worn * tint * _shade(count, side, rng) + _background(count, side, rng) * (1 - cover)
    images = _blurred(images * daylight + _column(rng.uniform(0.0, 0.12, count)), rng)
    if kind.channels == 1:
        red, green, blue = (images[:, i : i + 1] * weight for i, weight in enumerate(_LUMA))
        images = red + green + blue
    noise = torch.from_numpy(rng.standard_normal(tuple(images.shape), dtype=np.float32))
    images = images + noise * _column(rng.uniform(0.004, 0.035, count))
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def _posed(labels: np.ndarray, kind: Kind, rng: np.random.Generator) -> torch.Tensor:
    """The faces moved, turned, sheared and tilted: N, 4, H, W."""
    large = kind.side * _OVERSAMPLING
    faces = torch.from_numpy(np.stack([template(kind.classes[label], large) for label in labels]))
    grid = torch.from_numpy(_looks(len(labels), large, rng))
    posed = functional.grid_sample(faces, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return functional.avg_pool2d(posed, _OVERSAMPLING)


def _looks(count: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Where in its face each pixel of an image looks: N, H, W, 2, from -1 to 1."""
    size = rng.uniform(0.6, 0.98, count)  # of the sign, as a share of the image's
    squeeze = np.exp(rng.normal(0, 0.05, count))
    turn = rng.normal(0, 0.09, count)
    shear = rng.normal(0, 0.07, count)
    shift = rng.normal(0, 0.07, (2, count))
    tilt = rng.normal(0, 0.1, (2, count))
    axis = ((np.arange(side) + 0.5) * 2 / side - 1).astype(np.float32)
    x = axis[None, None, :] - _plane(shift[0])
    y = axis[None, :, None] - _plane(shift[1])
    depth = 1 + _plane(tilt[0]) * x + _plane(tilt[1]) * y
    cos, sin = np.cos(turn), np.sin(turn)
    looks = np.empty((count, side, side, 2), np.float32)
    looks[..., 0] = (_plane(cos / size / squeeze) * x + _plane((sin + shear) / size / squeeze) * y) / depth
    looks[..., 1] = (_plane(cos / size * squeeze) * y - _plane(sin / size * squeeze) * x) / depth
    return looks


def _background(count: int, side: int, rng: np.random.Generator) -> torch.Tensor:
    """Streets, leaves and sky as coloured noise at several scales: N, 3, H, W."""
    base = rng.uniform(0.05, 0.95, (count, 1, 1, 1)) + rng.normal(0, 0.08, (count, 3, 1, 1))
    images = torch.from_numpy(base.astype(np.float32)).expand(count, 3, side, side)
    for cells, channels, most in ((3, 1, 0.3), (3, 3, 0.12), (7, 1, 0.25), (7, 3, 0.08), (16, 1, 0.2)):
        strength = rng.uniform(0.0, most, (count, 1, 1, 1))
        noise = (rng.standard_normal((count, channels, cells, cells)) * strength).astype(np.float32)
        images = images + functional.interpolate(torch.from_numpy(noise), side, mode="bilinear", align_corners=False)
    return images.clamp(0, 1)


def _shade(count: int, side: int, rng: np.random.Generator) -> torch.Tensor:
    """Light that falls off in one direction: N, 1, H, W."""
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    across, down = (_plane(slope) for slope in rng.uniform(-0.25, 0.25, (2, count)))
    return torch.from_numpy(1 + across * axis[None, None, :] + down * axis[None, :, None])[:, None]


def _blurred(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Out of focus or in motion: a Gaussian of its own width along each axis of each image."""
    count, side = len(images), images.shape[-1]
    scale = side / SIDE
    reach = max(1, round(3 * scale))
    offsets = np.arange(-reach, reach + 1)
    for axis in (2, 3):
        sigma = scale * (np.abs(rng.normal(0.2, 0.5, count)) + 0.15)
        weights = np.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
        taps = _column((weights / weights.sum(1, keepdims=True)).T[..., None])
        border = (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach)
        wide = functional.pad(images, border, mode="replicate")
        images = wide.narrow(axis, 0, side) * taps[0]
        for step in range(1, len(offsets)):
            images = images + wide.narrow(axis, step, side) * taps[step]
    return images


def _plane(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)[:, None, None]


def _column(values: np.ndarray) -> torch.Tensor:
    """One value, or one a channel, for each image, to be spread over its pixels."""
    tensor = torch.from_numpy(np.asarray(values, dtype=np.float32))
    return tensor.reshape(*tensor.shape, 1, 1, 1) if tensor.ndim == 1 else tensor[..., None, None]
