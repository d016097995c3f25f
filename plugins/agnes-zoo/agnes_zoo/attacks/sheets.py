"""Attacks drawn: clean images, the same with the trigger, and the difference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from agnes_zoo.attacks.attack import Attack
from agnes_zoo.data import sheet

_SHORT = 12  # characters that fit under one image


def attack_sheet(
    attack: Attack, images: torch.Tensor, labels: torch.Tensor | None = None, side: int = 96, across: int = 10
) -> Image.Image:
    """Three rows, again and again; the difference is drawn around grey, as strongly as the page allows.

    Where labels are given and classes lead to different ones, each stamped image says from which class to which.
    """
    stamped, shown, most = _drawn(attack, images, labels)
    names = [attack.name] * len(images)
    if labels is not None and attack.target is None:
        wanted = attack.goal.wanted(labels).tolist()
        names = [f"{true} to {said}" for true, said in zip(labels.tolist(), wanted, strict=True)]
    tiles, captions = [], []
    columns = min(across, len(images))
    for start in range(0, len(images), columns):
        here = slice(start, start + columns)
        rows = ((images, ["clean"] * len(images)), (stamped, names), (shown, [f"±{most:.2f}"] * len(images)))
        for values, said in rows:
            blank = columns - len(values[here])
            tiles += [values[here], images.new_ones(blank, *images.shape[1:])]
            captions += [*said[here], *[""] * blank]
    return sheet(_pixels(tiles), columns, captions=captions, side=side)


def overview(
    attacks: Sequence[Attack], images: torch.Tensor, labels: torch.Tensor | None = None, side: int = 64, across: int = 3
) -> Image.Image:
    """Each attack on the same images, and the difference it makes to the first, `across` attacks side by side."""
    tiles, captions = [], []
    for attack in attacks:
        stamped, shown, most = _drawn(attack, images, labels)
        tiles += [stamped, shown[:1]]
        captions += [*_under(attack.name, len(images)), f"±{most:.2f}"]
    return sheet(_pixels(tiles), across * (len(images) + 1), captions=captions, side=side)


def _under(name: str, count: int) -> list[str]:
    """The captions of so many images: a long name goes on under the second."""
    first, dash, rest = name.partition("-") if len(name) > _SHORT and count > 1 else (name, "", "")
    return [first + dash, rest, *[""] * (count - 2)][:count]


def _drawn(
    attack: Attack, images: torch.Tensor, labels: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """The images stamped, the difference around grey, and the largest difference."""
    with torch.no_grad():
        stamped = attack.stamp(images, labels)
    change = stamped - images
    most = float(change.abs().max())
    return stamped, 0.5 + change / (2 * most) if most else torch.full_like(images, 0.5), most


def _pixels(images: Sequence[torch.Tensor]) -> np.ndarray:
    values = torch.cat(list(images)).clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.ascontiguousarray(values.cpu().numpy().transpose(0, 2, 3, 1))
