"""A trigger on image files: what `agnes apply` writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agnes.errors import OutputError, UsageError
from agnes.reading.folders import images_below
from agnes.reading.images import decode
from agnes.reading.parts import Listing
from agnes.reading.triggers import read_trigger
from agnes.text import printable

if TYPE_CHECKING:
    import torch

    from agnes.results import Trigger


@dataclass(frozen=True)
class Stamped:
    """One image with the trigger on it."""

    source: Path
    written: Path


def apply(trigger: Path | str, images: Sequence[Path | str], output: Path | str) -> list[Stamped]:
    """Write each image, fitted to the trigger's size, with the trigger on it; a folder keeps its class folders."""
    read, folder = read_trigger(trigger), Path(output)
    plan = _plan([Path(image) for image in images], folder)
    stamped = []
    for source, written in plan.items():
        pixels = decode(Listing((source,)), _size(read), printable(source)).images
        _write(read.apply(pixels)[0], written)
        stamped.append(Stamped(source, written))
    return stamped


def _plan(images: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Where each image goes; nothing is written over another, nor over an image it was made from."""
    plan: dict[Path, Path] = {}
    for image in images:
        if image.is_dir():
            plan |= {file: (folder / file.relative_to(image)).with_suffix(".png") for file in images_below(image)}
        else:
            plan[image] = folder / f"{image.stem}.png"
    if not plan:
        raise UsageError("no images found; give image files or folders of them")
    owners: dict[Path, Path] = {source.resolve(): source for source in plan}
    for source, written in plan.items():
        other = owners.setdefault(written.resolve(), source)
        if other != source or written.resolve() == source.resolve():
            raise UsageError(
                f"{printable(source)} would be written over {printable(other)}; choose another folder with -o"
            )
    return plan


def _size(trigger: Trigger) -> tuple[int, int, int]:
    height, width = trigger.change().shape
    return trigger.channels, height, width


def _write(image: torch.Tensor, path: Path) -> None:
    from PIL import Image

    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path)
    except OSError as error:
        raise OutputError(f"{printable(path)} cannot be written: {error.strerror or error}") from error
