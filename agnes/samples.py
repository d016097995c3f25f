"""Samples: benign images and labels, and the way in for every folder and file shape they come in."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from agnes.errors import UsageError
from agnes.reading.arrays import read_npz
from agnes.reading.classes import read_class_names
from agnes.reading.folders import list_folder
from agnes.reading.images import OTHER_SUFFIXES, READABLE, SUFFIXES, decode
from agnes.reading.lists import SUFFIXES as LIST_SUFFIXES
from agnes.reading.lists import list_csv
from agnes.reading.parts import LabelRule, Listing, Part, Size, limit_note, ranks, spread
from agnes.text import printable

_GIVE = "give a folder of images (one folder per class), an .npz, a .csv list or one image"


@dataclass(frozen=True)
class Samples:
    """Benign images with labels. May hold one image per class or none labelled; knows nothing of any trigger."""

    images: torch.Tensor = field(compare=False, repr=False)  # N, C, H, W float32 in [0, 1]
    labels: torch.Tensor | None = field(default=None, compare=False, repr=False)  # N int64, None when unknown
    class_names: tuple[str, ...] | None = None
    source: str = "images"  # what the user named
    test: Samples | None = None  # for accuracy, kept by every selection below
    notes: tuple[str, ...] = ()
    label_rule: LabelRule | None = None  # how class names became numbers; None where numbers were given
    inverted: bool = False  # made from the network under scan, where a user gave none

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or not self.images.is_floating_point():
            shape = tuple(self.images.shape)
            raise UsageError(f"{self.source}: images of shape {shape}, {self.images.dtype}; give N, C, H, W floats")
        if self.labels is None:
            return
        if self.labels.shape != (len(self.images),) or self.labels.dtype != torch.int64:
            shape = tuple(self.labels.shape)
            raise UsageError(
                f"{self.source}: labels of shape {shape}, {self.labels.dtype} for {len(self.images)} images; give one "
                "int64 an image"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> Size:
        """Channels, height and width of every image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @property
    def labelled(self) -> bool:
        return self.labels is not None

    @cached_property
    def sha256(self) -> str:
        """Of pixels and labels; the test part has its own."""
        digest = hashlib.sha256()
        for tensor in (self.images, self.labels):
            if tensor is None:
                digest.update(b"none")
                continue
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def class_name(self, label: int) -> str:
        """The name of a class, or its number where it has none."""
        known = self.class_names or ()
        return known[label] if 0 <= label < len(known) else str(label)

    def subset(self, indices: torch.Tensor | Sequence[int] | slice) -> Samples:
        """Some of the images, by indices, mask or slice; the test part stays whole."""
        if not isinstance(indices, slice):
            chosen = torch.as_tensor(indices, device=self.images.device)
            indices = chosen.long() if not chosen.numel() else chosen  # torch reads [] as floats
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, images=self.images[indices], labels=labels)

    def of_class(self, label: int) -> Samples:
        return self.subset(self._labels() == label)

    def without_class(self, label: int) -> Samples:
        return self.subset(self._labels() != label)

    def _labels(self) -> torch.Tensor:
        if self.labels is None:
            raise UsageError(f"{self.source}: the images have no labels; put them in one folder per class")
        return self.labels

    def split(self, share: float, generator: torch.Generator) -> tuple[Samples, Samples]:
        """A share of the images and the rest, drawn by the generator, each class in proportion."""
        count = len(self)
        if not 0 < share < 1 or count < 2:
            raise UsageError(f"{self.source}: {count} images cannot be split at {share}; need two, and 0 < share < 1")
        order = torch.randperm(count, generator=generator, device=generator.device).cpu()
        if self.labels is not None:
            rank, size = ranks(self.labels.cpu()[order].numpy())
            order = order[torch.from_numpy(np.argsort((rank + 0.5) / size, kind="stable"))]
        cut = min(max(round(share * count), 1), count - 1)
        return self.subset(order[:cut].sort().values), self.subset(order[cut:].sort().values)

    def to(self, device: torch.device | str) -> Samples:
        labels = None if self.labels is None else self.labels.to(device)
        test = None if self.test is None else self.test.to(device)
        return replace(self, images=self.images.to(device), labels=labels, test=test)

    def with_test(self, samples: Samples) -> Samples:
        """The same images with others for measuring accuracy."""
        if samples.shape != self.shape:
            raise UsageError(f"{samples.source}: test images are {_by(samples.shape)}, the others {_by(self.shape)}")
        return replace(self, test=replace(samples, test=None))

    def check_against(self, input_shape: Sequence[int], class_count: int) -> None:
        """Raise what keeps these images from being shown to a network."""
        if not len(self):
            raise UsageError(f"{self.source}: no images; {_GIVE}")
        if self.shape != tuple(input_shape):
            raise UsageError(
                f"{self.source}: images are {_by(self.shape)} but the network takes {_by(input_shape)} (channels, "
                "height, width); read them with the network's input shape or resize them"
            )
        _check_pixels(self.images, self.source)
        self._check_classes(class_count)
        if self.test is not None:
            self.test.check_against(input_shape, class_count)

    def _check_classes(self, class_count: int) -> None:
        named = len(self.class_names or ())
        # numbered folders may name a few classes only
        if named and named != class_count and (self.label_rule != "numbers" or named > class_count):
            raise UsageError(
                f"{self.source}: class counts disagree: {named} class names, but the network has {class_count} "
                "classes; number the class folders, as in '3-cat', or name every class in classes.json"
            )
        if self.labels is None or not len(self.labels):
            return
        low, high = (int(value) for value in self.labels.aminmax())
        if low < 0 or high >= class_count:
            hint = "; count classes from 0, not from 1" if (low, high) == (1, class_count) else "; check the labels"
            raise UsageError(
                f"{self.source}: class counts disagree: a label is {high if high >= class_count else low}, but the "
                f"network has {class_count} classes, 0 to {class_count - 1}{hint}"
            )


def read_samples(
    path: str | os.PathLike[str],
    *,
    input_shape: Sequence[int] | None = None,  # channels, height, width that the network takes
    class_names: Sequence[str] | None = None,
    limit: int | None = None,  # of images, for each part, class by class in turn
) -> Samples:
    """Read images from a folder, an .npz, a .csv list or one image file."""
    path = Path(path)
    source = printable(path)
    if limit is not None and limit < 1:
        raise UsageError(f"{source}: a limit of {limit} images leaves none; set 1 or more")
    if not path.exists():
        raise UsageError(f"{source}: no such file or folder; {_GIVE}")
    shape = None if input_shape is None else _three(input_shape)
    known, said = class_names, ()
    if known is None and (found := read_class_names(path)):
        known, said = found[0], (found[1],)
    if path.suffix.lower() == ".npz" and not path.is_dir():
        names = None if known is None else tuple(printable(name) for name in known)
        return _samples(read_npz(path, shape, limit), Listing((), class_names=names), source, said)
    listing = _list(path, known, source)
    part = decode(_limited(listing, limit), shape, source)
    if listing.test is not None:
        test = decode(_limited(listing.test, limit), _three(part.images.shape[1:]), source)
        part = replace(part, test=test)
    return _samples(part, listing, source, said)


def _list(path: Path, known: Sequence[str] | None, source: str) -> Listing:
    ending = path.suffix.lower()
    if path.is_dir():
        return list_folder(path, known, source)
    if ending in LIST_SUFFIXES:
        return list_csv(path, known)
    if ending in SUFFIXES:
        names = None if known is None else tuple(printable(name) for name in known)
        return Listing((path,), class_names=names)
    if ending in OTHER_SUFFIXES:
        raise UsageError(f"{source}: AGNES reads {READABLE}; convert the image")
    raise UsageError(f"{source}: not a kind of file AGNES reads images from; {_GIVE}")


def _limited(listing: Listing, limit: int | None) -> Listing:
    chosen = spread(listing.labels, len(listing.files), limit)
    if len(chosen) == len(listing.files):
        return listing
    labels = None if listing.labels is None else tuple(listing.labels[i] for i in chosen)
    notes = (*listing.notes, limit_note(len(chosen), len(listing.files)))
    return replace(listing, files=tuple(listing.files[i] for i in chosen), labels=labels, notes=notes)


def _samples(part: Part, listing: Listing, source: str, said: tuple[str, ...]) -> Samples:
    """Pixels and names put together, and checked."""
    _check_pixels(part.images, source)
    names = listing.class_names
    if names and part.labels is not None and len(part.labels) and int(part.labels.max()) >= len(names):
        raise UsageError(
            f"{source}: class counts disagree: a label is {int(part.labels.max())}, but there are {len(names)} class "
            "names; name every class or correct the labels"
        )
    test = None
    if part.test is not None:
        # both parts number alike, or the first part's rule would not hold for the second
        test = _samples(part.test, listing.test or listing, f"{source} (test part)", ())
    return Samples(part.images, part.labels, names, source, test, (*said, *part.notes), listing.label_rule)


def _check_pixels(images: torch.Tensor, source: str) -> None:
    if not images.numel():
        raise UsageError(f"{source}: no images; {_GIVE}")
    low, high = (float(value) for value in images.aminmax())  # NaN if any is
    if low >= 0 and high <= 1:
        return
    if low != low:
        raise UsageError(f"{source}: pixels are not all numbers (NaN); write the images again")
    hint = "divide by 255 or store them as uint8" if low >= 0 and high <= 255 else "scale or clip them to [0, 1]"
    raise UsageError(f"{source}: pixels lie in [{low:g}, {high:g}], not in [0, 1]; {hint}")


def _three(shape: Sequence[int]) -> Size:
    if len(shape) != 3 or min(shape) < 1:
        raise UsageError(f"an input shape is channels, height, width; got {tuple(shape)}")
    return int(shape[0]), int(shape[1]), int(shape[2])


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
