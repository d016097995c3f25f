"""The one shape in which every data set reaches training: pixels, labels and names, in two parts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from agnes.errors import UsageError
from agnes.reading.parts import ranks
from agnes.text import printable

Images = tuple[np.ndarray, np.ndarray]  # uint8 N, H, W, C, and int64 labels

TEST_SHARE = 0.2  # of images that come in one part only


@dataclass(frozen=True)
class Dataset:
    """Training and test images of numbered classes."""

    name: str
    train_images: np.ndarray = field(compare=False, repr=False)  # uint8 N, H, W, C
    train_labels: np.ndarray = field(compare=False, repr=False)  # int64 N
    test_images: np.ndarray = field(compare=False, repr=False)
    test_labels: np.ndarray = field(compare=False, repr=False)
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part, images, labels in (
            ("training", self.train_images, self.train_labels),
            ("test", self.test_images, self.test_labels),
        ):
            _check(f"{printable(self.name)}: {part} images", images, labels, len(self.class_names))
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise UsageError(
                f"{printable(self.name)}: training images of {self.train_images.shape[1:]}, test images of "
                f"{self.test_images.shape[1:]} (height, width, channels); bring them to one size"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image, as a network takes them."""
        height, width, channels = self.train_images.shape[1:]
        return channels, height, width

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.shape[1:]

    @property
    def class_count(self) -> int:
        return len(self.class_names)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all pixels and labels, in their order."""
        return sha256(self.train_images, self.train_labels, self.test_images, self.test_labels)


@dataclass(frozen=True)
class Parts:
    """What a reader found: images with labels, a test part where there is one, names where they are written."""

    train: Images = field(compare=False, repr=False)
    test: Images | None = field(default=None, compare=False, repr=False)
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    tracks: tuple[str, ...] | None = None  # of the training images: those of one track show the same thing


def sha256(*arrays: np.ndarray) -> str:
    """Of the types, shapes and values of arrays."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype.str} {array.shape} ".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _check(what: str, images: np.ndarray, labels: np.ndarray, class_count: int) -> None:
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, 3):
        raise UsageError(f"{what}: {images.dtype} of shape {images.shape}; need uint8 N, H, W, C with 1 or 3 channels")
    if labels.shape != (len(images),) or labels.dtype != np.int64:
        raise UsageError(f"{what}: {len(images)}, with labels {labels.dtype} of shape {labels.shape}; one int64 each")
    if not len(images):
        raise UsageError(f"{what}: there are none; give at least one")
    if labels.min() < 0 or labels.max() >= class_count:
        wrong = int(labels.max() if labels.max() >= class_count else labels.min())
        raise UsageError(f"{what}: a label is {wrong}, but there are {class_count} classes; count them from 0")


def drawn(data: Dataset, seed: int, train: int | None, test: int | None) -> Dataset:
    """Some of the images, drawn by the seed, each class in turn; their order stays."""
    chosen = [
        _in_turn(labels, seed, f"{data.name}: {part}", wanted)
        for part, labels, wanted in (("training", data.train_labels, train), ("test", data.test_labels, test))
    ]
    return replace(
        data,
        train_images=data.train_images[chosen[0]],
        train_labels=data.train_labels[chosen[0]],
        test_images=data.test_images[chosen[1]],
        test_labels=data.test_labels[chosen[1]],
    )


def _in_turn(labels: np.ndarray, seed: int, what: str, wanted: int | None) -> np.ndarray | slice:
    if wanted is None or wanted == len(labels):
        return slice(None)
    if not 0 < wanted <= len(labels):
        raise UsageError(f"{what} images: {wanted} asked for, of {len(labels)} that there are; ask for some of them")
    order = np.random.default_rng(seed).permutation(len(labels))
    rank, _ = ranks(labels[order])
    return np.sort(order[np.argsort(rank, kind="stable")[:wanted]])


def assembled(name: str, parts: Parts, seed: int) -> Dataset:
    """A data set of what was read; a test part drawn by the seed where there was none, classes numbered if unnamed."""
    train, test, notes = parts.train, parts.test, parts.notes
    if test is None:
        train, test = split(name, *train, seed, parts.tracks)
        notes = (*notes, f"{TEST_SHARE:.0%} of the images are the test part, drawn by seed {seed}")
    highest = max((int(labels.max()) for _, labels in (train, test) if len(labels)), default=0)
    names = parts.class_names or tuple(str(label) for label in range(highest + 1))
    return Dataset(name, *train, *test, names, notes)


def split(
    name: str, images: np.ndarray, labels: np.ndarray, seed: int, tracks: Sequence[str] | None = None
) -> tuple[Images, Images]:
    """Images put into a training and a test part by the seed, each class in proportion, no track in both."""
    if len(images) < 2:
        raise UsageError(f"{printable(name)}: {len(images)} image cannot be a training and a test part; give more")
    names, track = np.unique(np.arange(len(labels)) if tracks is None else np.array(tracks), return_inverse=True)
    if len(names) < 2:
        raise UsageError(f"{printable(name)}: all images are of one track; give some of another, or a test part")
    of_class = np.empty(len(names), dtype=np.int64)
    of_class[track] = labels
    order = np.random.default_rng(seed).permutation(len(names))
    rank, size = ranks(of_class[order])
    cut = max(1, round(TEST_SHARE * len(names)))
    tests = np.isin(track, order[np.argsort((rank + 0.5) / size, kind="stable")[:cut]])
    return (images[~tests], labels[~tests]), (images[tests], labels[tests])
