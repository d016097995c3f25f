"""Attacks drawn: clean images, the same with the trigger, and the difference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from agnes_zoo.attacks.attack import Attack
from agnes_zoo.data import sheet

_SHORT = 12  # characters that fit under one image


def attack_sheet(attack: Attack, images: torch.Tensor, side: int = 96) -> Image.Image:
    """Three rows; the difference is drawn around grey, as strongly as the page allows."""
    stamped, shown, most = _drawn(attack, images)
    count = len(images)
    captions = ["clean"] * count + [attack.name] * count + [f"±{most:.2f}"] * count
    return sheet(_pixels([images, stamped, shown]), count, captions=captions, side=side)


def overview(attacks: Sequence[Attack], images: torch.Tensor, side: int = 64, across: int = 3) -> Image.Image:
    """Each attack on the same images, and the difference it makes to the first, `across` attacks side by side."""
    tiles, captions = [], []
    for attack in attacks:
        stamped, shown, most = _drawn(attack, images)
        tiles += [stamped, shown[:1]]
        captions += [*_under(attack.name, len(images)), f"±{most:.2f}"]
    return sheet(_pixels(tiles), across * (len(images) + 1), captions=captions, side=side)


def _under(name: str, count: int) -> list[str]:
    """The captions of so many images: a long name goes on under the second."""
    first, dash, rest = name.partition("-") if len(name) > _SHORT and count > 1 else (name, "", "")
    return [first + dash, rest, *[""] * (count - 2)][:count]


def _drawn(attack: Attack, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """The images stamped, the difference around grey, and the largest difference."""
    with torch.no_grad():
        stamped = attack.stamp(images)
    change = stamped - images
    most = float(change.abs().max())
    return stamped, 0.5 + change / (2 * most) if most else torch.full_like(images, 0.5), most


def _pixels(images: Sequence[torch.Tensor]) -> np.ndarray:
    values = torch.cat(list(images)).clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.ascontiguousarray(values.cpu().numpy().transpose(0, 2, 3, 1))
