"""The ten classes of `signs10` out of a file with all 43: `python -m agnes_zoo.experiments.ten ALL.npz TEN.npz`.

The first 54 training images of each class go before its test images, to scan and to repair with.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np

from agnes.reading.parts import ranks
from agnes_zoo.data.choosing import TEN

MOVED = 54  # four to scan with and fifty to repair with, as at the scale `small`


def ten_of(found: Mapping[str, np.ndarray], moved: int = MOVED) -> dict[str, np.ndarray]:
    """Images and labels of both parts, the labels from 0 to 9."""
    parts = {}
    for part in ("train", "test"):
        images, labels = found[f"{part}_images"], found[f"{part}_labels"]
        own = np.isin(labels, TEN)
        parts[part] = images[own], np.searchsorted(TEN, labels[own])
    goes = ranks(parts["train"][1])[0] < moved
    chosen = {}
    for name, train, test in zip(("images", "labels"), parts["train"], parts["test"], strict=True):
        chosen |= {f"train_{name}": train[~goes], f"test_{name}": np.concatenate([train[goes], test])}
    return chosen


if __name__ == "__main__":
    with np.load(sys.argv[1], allow_pickle=False) as everything:
        np.savez_compressed(sys.argv[2], **ten_of(everything))  # type: ignore[arg-type]
