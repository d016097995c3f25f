"""Contact sheets: many small images on one page, to be looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from agnes.errors import UsageError
from agnes.text import printable

_GAP = 4
_LINE = 14
_PAGE = (224, 224, 224)


def sheet(
    images: np.ndarray,  # uint8 N, H, W, C with 1 or 3 channels
    columns: int = 10,
    *,
    captions: Sequence[str] | None = None,  # one an image, written under it
    side: int = 96,  # of one image on the page, about; every pixel becomes a square
) -> Image.Image:
    """The images row by row on one page."""
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, 3) or not len(images):
        raise UsageError(f"a sheet shows uint8 images N, H, W, C; these are {images.dtype} of shape {images.shape}")
    if columns < 1 or (captions is not None and len(captions) != len(images)):
        raise UsageError(f"a sheet of {len(images)} images needs 1 column or more, and one caption an image or none")
    columns = min(columns, len(images))
    scale = max(1, round(side / max(images.shape[1:3])))
    height, width = (length * scale for length in images.shape[1:3])
    down, across = height + _GAP + (_LINE if captions else 0), width + _GAP
    page = Image.new("RGB", (columns * across + _GAP, math.ceil(len(images) / columns) * down + _GAP), _PAGE)
    draw = ImageDraw.Draw(page)
    for index, pixels in enumerate(images):
        left, top = _GAP + index % columns * across, _GAP + index // columns * down
        tile = Image.fromarray(np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
        page.paste(tile.resize((width, height), Image.Resampling.NEAREST), (left, top))
        if captions:
            _write(draw, captions[index], left, top + height, width)
    return page


def _write(draw: ImageDraw.ImageDraw, text: str, left: int, top: int, width: int) -> None:
    """A line of text, cut where the image above it ends."""
    font, shown = ImageFont.load_default(10), printable(text, 80)
    while len(shown) > 1 and draw.textlength(shown, font=font) > width:
        shown = shown[:-2] + "…"
    draw.text((left, top), shown, fill="black", font=font)
