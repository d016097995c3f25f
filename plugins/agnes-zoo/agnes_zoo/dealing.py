"""A data set dealt out: images to train with, to scan with, to measure a repair with, and to keep from both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from agnes.errors import UsageError
from agnes.reading.parts import ranks
from agnes_zoo.data.dataset import Images, sha256


@dataclass(frozen=True)
class DataPlan:
    """What images a zoo is made of."""

    source: str = "signs"  # a name or a path that agnes_zoo.data knows
    seed: int = 0  # of the drawing
    train: int | None = None  # images; None: as many as the data set has, or 200 signs of each class
    samples: int = 1  # benign images of each class that a scan is given
    test: int = 10  # labelled images of each class that a repair may measure itself with
    held_out: int = 20  # images of each class for the truth, in reach of no scan and no repair


@dataclass(frozen=True)
class Dealt:
    """The images, each in one of four hands."""

    train: Images = field(compare=False, repr=False)
    samples: Images = field(compare=False, repr=False)
    test: Images = field(compare=False, repr=False)
    held_out: Images = field(compare=False, repr=False)
    class_names: tuple[str, ...]
    digest: str  # of all of them

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        height, width, channels = self.train[0].shape[1:]
        return channels, height, width


@lru_cache(maxsize=2)
def deal(plan: DataPlan) -> Dealt:
    """The images of a plan; those not trained on come from the data set's test part."""
    from agnes_zoo.data import dataset
    from agnes_zoo.data.choosing import KINDS

    each = plan.samples + plan.test + plan.held_out
    if min(plan.samples, plan.held_out) < 1 or plan.test < 0:
        raise UsageError(f"{plan.source}: each class needs a sample and an image held out, at least one of each")
    wanted = each * len(KINDS[plan.source][0].classes) if plan.source in KINDS else None
    found = dataset(plan.source, seed=plan.seed, train=plan.train, test=wanted)
    train, rest = (found.train_images, found.train_labels), (found.test_images, found.test_labels)
    rank, _ = ranks(rest[1])
    edges = (plan.samples, plan.samples + plan.test, each)
    hands = [_chosen(rest, (rank >= low) & (rank < high)) for low, high in zip((0, *edges), edges, strict=False)]
    if not len(hands[2][1]):
        raise UsageError(f"{plan.source}: no test images are left to hold out; ask for fewer samples and test images")
    return Dealt(train, hands[0], hands[1], hands[2], found.class_names, digest_of(train, *hands))


def digest_of(*parts: Images) -> str:
    """SHA-256 of images and labels, in their order."""
    return sha256(*(array for part in parts for array in part))


def _chosen(images: Images, which: np.ndarray) -> Images:
    return images[0][which], images[1][which]


def write_samples(dealt: Dealt, folder: Path) -> None:
    """The images a scan is given, as train/ and test/ with a folder for each class."""
    for part, (images, labels) in (("train", dealt.samples), ("test", dealt.test)):
        write_images(folder / part, images, labels, dealt.class_names)


def write_images(folder: Path, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> None:
    """One folder for each class, its number first, its images numbered."""
    rank, _ = ranks(labels)
    for image, label, number in zip(images, labels, rank, strict=True):
        place = folder / f"{label:02d}-{_plain(class_names[int(label)])}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0]).save(place / f"{number}.png")


def _plain(name: str) -> str:
    """A class name that may be part of a file's name anywhere."""
    return "".join(c if c.isalnum() or c in "-_ " else "_" for c in name)[:60] or "class"
