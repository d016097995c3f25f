"""Pictures, folders and files of every kind, for the tests that read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

RGB = (200, 100, 50)
ZEROS = np.zeros((2, 4, 5, 3), np.uint8)


def picture(path: Path, colour=RGB, size=(8, 8), mode="RGB", **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)
    return path


def folders(root: Path, names, each: int = 2) -> Path:
    """Class folders whose i-th class is painted in red i."""
    for i, name in enumerate(names):
        for j in range(each):
            picture(root / name / f"{j}.png", (i, j, 0))
    return root


def file(name: str, content: bytes):
    def write(path: Path) -> Path:
        (path / name).write_bytes(content)
        return path / name

    return write


def arrays_file(**held):
    def write(path: Path) -> Path:
        np.savez(path / "x.npz", **held)
        return path / "x.npz"

    return write
