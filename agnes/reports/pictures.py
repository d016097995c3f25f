"""Triggers as pictures: where they change an image, with what, and three images before and after."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from agnes.results import Trigger
from agnes.text import printable

if TYPE_CHECKING:
    from agnes.samples import Samples

_SIDE = 128  # of one picture, about
_GAP = 8
_LINE = 22
_SHOWN = 3
_PAGE = (224, 224, 224)


def arrays(trigger: Trigger) -> bytes:
    """What somebody else needs to apply the trigger, as the bytes of an .npz file."""
    buffer = io.BytesIO()
    facts = {"kind": np.array(type(trigger).__name__), "target": np.array(trigger.target)}
    np.savez_compressed(buffer, allow_pickle=False, **facts, **trigger.arrays())
    return buffer.getvalue()


def picture(trigger: Trigger, class_name: str, samples: Samples | None) -> bytes:
    """The trigger as a .png: strength, what it adds, then images above and the same with the trigger below."""
    columns = [(_strength(trigger), _pattern(trigger))]
    if samples is not None and len(samples):
        images = _shown(trigger, samples)
        columns += list(zip(images, trigger.apply(images), strict=True))
    tiles = [[_tile(tile) for tile in column] for column in columns]
    return _png(_sheet(tiles, _caption(trigger, class_name)))


def _shown(trigger: Trigger, samples: Samples) -> torch.Tensor:
    images = samples.images
    if samples.labels is not None:
        others = images[samples.labels != trigger.target]
        images = others if len(others) else images
    step = max(1, len(images) // _SHOWN)
    return images[::step][:_SHOWN].detach().cpu()


def _strength(trigger: Trigger) -> torch.Tensor:
    """White where a pixel changes most, black where it does not change."""
    change = trigger.change().detach().cpu()
    return (change / change.max().clamp_min(1e-6))[None]


def _pattern(trigger: Trigger) -> torch.Tensor:
    """What the trigger makes of a grey image."""
    grey = torch.full((1, trigger.channels, *trigger.change().shape), 0.5)
    return trigger.apply(grey)[0].detach().cpu()


def _tile(image: torch.Tensor) -> Image.Image:
    """Channels, height, width in [0, 1] as a picture of some size, every pixel a square."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).numpy().transpose(1, 2, 0)
    pixels = pixels.repeat(3, 2) if pixels.shape[2] != 3 else pixels
    scale = max(1, round(_SIDE / max(pixels.shape[:2])))
    tile = Image.fromarray(np.ascontiguousarray(pixels[:, :, :3]))
    return tile.resize((tile.width * scale, tile.height * scale), Image.Resampling.NEAREST)


def _caption(trigger: Trigger, class_name: str) -> list[str]:
    convicts = "  CONVICTS" if trigger.convicts else ""
    images = "images" if trigger.unseen else "images it was chosen on"
    return [
        f"to {trigger.target} {printable(class_name, 40)}{convicts}",
        f"{trigger.asr:.0%} of {trigger.held_out} {images}, {trigger.pixels} pixels, size {trigger.l1:.1f}",
    ]


def _sheet(tiles: list[list[Image.Image]], caption: list[str]) -> Image.Image:
    width, height = tiles[0][0].size
    sheet = Image.new(
        "RGB",
        (max(4, len(tiles)) * (width + _GAP) + _GAP, 2 * (height + _GAP) + _GAP + _LINE * len(caption)),
        _PAGE,
    )
    draw = ImageDraw.Draw(sheet)
    for row, line in enumerate(caption):
        draw.text((_GAP, _GAP + row * _LINE - 2), line, fill="black", font=ImageFont.load_default(15))
    for column, pair in enumerate(tiles):
        for row, tile in enumerate(pair):
            at = (_GAP + column * (width + _GAP), _LINE * len(caption) + _GAP + row * (height + _GAP))
            sheet.paste(tile, at)
    return sheet


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
