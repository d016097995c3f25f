"""Image files to pixels. Files are hostile: formats named, sizes checked before decoding, regular files only."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from agnes.errors import AgnesError, Refused, UsageError
from agnes.reading.parts import Listing, Part, Size, check_total, open_regular
from agnes.text import counted, printable

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP")
READABLE = "PNG, JPEG, BMP, PPM and WebP"
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm", ".webp"})
# images that AGNES leaves alone: their decoders are many, old or run programs
OTHER_SUFFIXES = frozenset(
    {".gif", ".tif", ".tiff", ".svg", ".eps", ".ps", ".pdf", ".ico", ".tga", ".jp2", ".avif", ".heic", ".psd", ".dds"}
)
MAX_PIXELS = 25_000_000  # of one file, by its header

_DEEP = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})  # 16 bits, grey
_GREY = _DEEP | {"1", "L", "LA", "La"}
_ORIENTATION = 0x0112  # EXIF
_SWAPPED = frozenset({5, 6, 7, 8})  # orientations that exchange height and width


@dataclass(frozen=True)
class Header:
    """What is known of an image before it is decoded."""

    height: int
    width: int
    grey: bool


def decode(listing: Listing, input_shape: Size | None, source: str) -> Part:
    """Read every file of a listing into one tensor, fitted to the network's input where that is known."""
    if not listing.files:
        raise UsageError(f"{source}: no images found; give a folder of images, an .npz, a .csv list or one image")
    size = input_shape or _common_size(listing.files, source)
    if size[0] not in (1, 3):
        raise UsageError(
            f"{source}: the network takes {size[0]} channels and image files have 1 or 3; give an .npz of arrays"
        )
    check_total(len(listing.files), size, source)
    images = torch.empty((len(listing.files), *size), dtype=torch.float32)
    target = images.numpy()  # the same memory
    done: Counter[str] = Counter()
    for i, path in enumerate(listing.files):
        with opened(path) as image:
            values = _pixels(image, size, done)
        target[i] = values
    labels = None if listing.labels is None else torch.tensor(listing.labels, dtype=torch.int64)
    return Part(images, labels, (*listing.notes, *_notes(done, size)))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """An image whose header is checked; whatever its decoder raises becomes one line that names the file."""
    from PIL import Image, UnidentifiedImageError

    name = printable(path)
    with open_regular(path) as file:
        try:
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Refused(_too_large(name, f"{image.width}x{image.height} pixels"))
                yield image
        except AgnesError:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # Pillow's own caps
            raise Refused(_too_large(name, "a decompression bomb")) from error
        except UnidentifiedImageError:
            raise UsageError(
                f"{name}: not an image that AGNES reads ({READABLE}); convert it or leave it out"
            ) from None
        except Exception as error:  # decoders raise OSError, SyntaxError, struct.error and more
            reason = printable(error, 80) or type(error).__name__
            raise UsageError(f"{name}: damaged image ({reason}); replace it or leave it out") from error


def _too_large(name: str, what: str) -> str:
    return f"{name}: {what}; AGNES decodes at most {MAX_PIXELS // 10**6} million pixels a file; make it smaller"


def _common_size(files: tuple[Path, ...], source: str) -> Size:
    """The one size that all files have; 3 channels if any has colour."""
    first, colour = None, False
    for path in files:
        header = _header(path)
        colour |= not header.grey
        first = first or header
        if (header.height, header.width) != (first.height, first.width):
            raise UsageError(
                f"{source}: images differ in size ({first.width}x{first.height} and {header.width}x{header.height}, "
                f"{printable(path.name)}) and the network's input size is not known; name it or resize the images"
            )
    assert first is not None
    return (3 if colour else 1), first.height, first.width


def _header(path: Path) -> Header:
    with opened(path) as image:
        width, height = image.size
        if _orientation(image) in _SWAPPED:
            width, height = height, width
        return Header(height, width, image.mode in _GREY)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF says nothing of how the image is turned
        return 1


def _upright(image: Image.Image) -> Image.Image:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    turn = turns.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _plain(image: Image.Image, done: Counter[str]) -> Image.Image:
    """The image in mode L, RGB or (of 16 bits) F in [0, 1]; alpha is dropped, as training code does."""
    from PIL import Image

    if image.mode in _DEEP:
        done["deep"] += 1
        return Image.fromarray(np.asarray(image).astype(np.float32) / 65535)
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if image.has_transparency_data:
        done["alpha"] += 1
    if image.mode in _GREY:
        return image if image.mode == "L" else image.convert("L")
    if image.mode in ("P", "PA") and image.has_transparency_data:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _pixels(image: Image.Image, size: Size, done: Counter[str]) -> np.ndarray:
    """Decoded, upright, in the network's channels and size: C, H, W float32 in [0, 1]."""
    from PIL.Image import Resampling

    channels, height, width = size
    image.load()
    upright = _upright(image)
    done["turned"] += upright is not image
    plain = _plain(upright, done)
    if plain.mode == "RGB" and channels == 1:
        done["luma"] += 1
        plain = plain.convert("L")
    if plain.size != (width, height):
        done["resized"] += 1
        plain = plain.resize((width, height), Resampling.BILINEAR)  # Pillow's bilinear is antialiased
    values = np.asarray(plain, dtype=np.float32)
    values = np.clip(values, 0, 1) if plain.mode == "F" else values / np.float32(255)
    if plain.mode == "RGB":
        return values.transpose(2, 0, 1)
    done["repeated"] += channels == 3
    return np.broadcast_to(values, size)


def _notes(done: Counter[str], size: Size) -> tuple[str, ...]:
    _, height, width = size
    target = f"{height}x{width}" if height == width else f"height {height}, width {width}"
    said = {
        "resized": f"resized {{}} to {target}",
        "repeated": "repeated the grey of {} to 3 channels",
        "luma": "turned the colours of {} to grey",
        "alpha": "dropped the transparency of {}",
        "deep": "scaled the 16 bits of {} to [0, 1]",
        "turned": "turned {} upright by the EXIF orientation",
    }
    return tuple(text.format(counted(done[key], "image")) for key, text in said.items() if done[key])
