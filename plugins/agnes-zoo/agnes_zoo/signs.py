"""The embedded traffic signs: 43 procedural classes after GTSRB, 32x32, so that everything runs with no download."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch.nn import functional

from agnes_zoo.faces import CLASS_NAMES, STOP, draw_face

__all__ = ["CLASS_NAMES", "SIDE", "STOP", "sign", "signs", "template"]

SIDE = 32
_DRAWN = 512  # a face is drawn at this side
_KEPT = 64  # and kept at this one
_OVERSAMPLING = 2  # an image is composed at this many times its side
_BLOCK = 256  # images composed at once


def signs(count_per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Signs of every class in a random order: uint8 images N, 32, 32, 3 and int64 labels, the same for a seed."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(CLASS_NAMES)), count_per_class))
    images = np.empty((len(labels), SIDE, SIDE, 3), np.uint8)
    for start in range(0, len(labels), _BLOCK):
        part = slice(start, start + _BLOCK)
        images[part] = _compose(labels[part], rng)
    return images, labels


def sign(label: int, rng: np.random.Generator) -> np.ndarray:
    """One sign of a class: uint8, 32, 32, 3."""
    return _compose(np.array([label]), rng)[0]


@cache
def template(label: int) -> np.ndarray:
    """The clean face of a class: red, green, blue times coverage, and coverage; 4 x 64 x 64."""
    return draw_face(label, _DRAWN).reduced(_KEPT)


def _compose(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Signs put before a background, lit, blurred and made noisy."""
    count = len(labels)
    layers = _posed(labels, rng)
    face, cover = layers[:, :3], layers[:, 3:]
    daylight = _column(np.exp(rng.uniform(np.log(0.2), np.log(1.1), count)))
    tint = _column(rng.uniform(0.88, 1.08, (count, 3)))
    contrast = _column(rng.uniform(0.65, 1.0, count))
    worn = contrast * face + (1 - contrast) * 0.5 * cover
    images = worn * tint * _shade(count, rng) + _background(count, rng) * (1 - cover)
    images = _blurred(images * daylight + _column(rng.uniform(0.0, 0.12, count)), rng)
    noise = torch.from_numpy(rng.standard_normal(tuple(images.shape), dtype=np.float32))
    images = images + noise * _column(rng.uniform(0.004, 0.035, count))
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def _posed(labels: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """The faces moved, turned, sheared and tilted: N, 4, 32, 32."""
    faces = torch.from_numpy(np.stack([template(int(label)) for label in labels]))
    grid = torch.from_numpy(_looks(len(labels), rng))
    large = functional.grid_sample(faces, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return functional.avg_pool2d(large, _OVERSAMPLING)


def _looks(count: int, rng: np.random.Generator) -> np.ndarray:
    """Where in its face each pixel of an image looks: N, 64, 64, 2, from -1 to 1."""
    size = rng.uniform(0.6, 0.98, count)  # of the sign, as a share of the image's
    squeeze = np.exp(rng.normal(0, 0.05, count))
    turn = rng.normal(0, 0.09, count)
    shear = rng.normal(0, 0.07, count)
    shift = rng.normal(0, 0.07, (2, count))
    tilt = rng.normal(0, 0.1, (2, count))
    side = SIDE * _OVERSAMPLING
    axis = (np.arange(side) + 0.5) * 2 / side - 1
    x = axis[None, None, :] - _plane(shift[0])
    y = axis[None, :, None] - _plane(shift[1])
    depth = 1 + _plane(tilt[0]) * x + _plane(tilt[1]) * y
    cos, sin = _plane(np.cos(turn)), _plane(np.sin(turn))
    across = (cos * x + sin * y + _plane(shear) * y) / (depth * _plane(size * squeeze))
    down = (cos * y - sin * x) / (depth * _plane(size / squeeze))
    return np.stack([across, down], -1).astype(np.float32)


def _background(count: int, rng: np.random.Generator) -> torch.Tensor:
    """Streets, leaves and sky as coloured noise at several scales: N, 3, 32, 32."""
    base = rng.uniform(0.05, 0.95, (count, 1, 1, 1)) + rng.normal(0, 0.08, (count, 3, 1, 1))
    images = torch.from_numpy(base.astype(np.float32)).expand(count, 3, SIDE, SIDE)
    for cells, channels, most in ((3, 1, 0.3), (3, 3, 0.12), (7, 1, 0.25), (7, 3, 0.08), (16, 1, 0.2)):
        strength = rng.uniform(0.0, most, (count, 1, 1, 1))
        noise = (rng.standard_normal((count, channels, cells, cells)) * strength).astype(np.float32)
        images = images + functional.interpolate(torch.from_numpy(noise), SIDE, mode="bilinear", align_corners=False)
    return images.clamp(0, 1)


def _shade(count: int, rng: np.random.Generator) -> torch.Tensor:
    """Light that falls off in one direction: N, 1, 32, 32."""
    axis = np.linspace(-1, 1, SIDE)
    slope = rng.uniform(-0.25, 0.25, (2, count))
    light = 1 + _plane(slope[0]) * axis[None, None, :] + _plane(slope[1]) * axis[None, :, None]
    return torch.from_numpy(light.astype(np.float32))[:, None]


def _blurred(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Out of focus or in motion: a Gaussian of its own width along each axis of each image."""
    count, reach = len(images), 3
    offsets = np.arange(-reach, reach + 1)
    for axis in (2, 3):
        sigma = np.abs(rng.normal(0.2, 0.5, count)) + 0.15
        weights = np.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
        taps = _column((weights / weights.sum(1, keepdims=True)).T[..., None])
        border = (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach)
        wide = functional.pad(images, border, mode="replicate")
        parts = [wide.narrow(axis, i, SIDE) * taps[i] for i in range(len(offsets))]
        images = torch.stack(parts).sum(0)
    return images


def _plane(values: np.ndarray) -> np.ndarray:
    return values[:, None, None]


def _column(values: np.ndarray) -> torch.Tensor:
    """One value, or one a channel, for each image, to be spread over its pixels."""
    tensor = torch.from_numpy(np.asarray(values, dtype=np.float32))
    return tensor.reshape(*tensor.shape, 1, 1, 1) if tensor.ndim == 1 else tensor[..., None, None]
