"""Folders of images: one folder per class, a flat one, train and test side by side, GTSRB's official ones."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agnes.errors import UsageError
from agnes.reading.classes import number_classes
from agnes.reading.images import OTHER_SUFFIXES, READABLE, SUFFIXES
from agnes.reading.lists import list_csv
from agnes.reading.parts import Listing
from agnes.text import counted, printable

MAX_ENTRIES = 5_000_000  # files looked at in one folder, readable or not
_TRAIN = frozenset({"train", "training", "final_training"})
_TEST = ("test", "testing", "final_test", "val", "valid", "validation")  # the first found is the test part
_WRAPPERS = frozenset({"images", "gtsrb"})  # a folder between the one named and the classes
_GTSRB = "GT-*.csv"  # the lists in GTSRB's folders
GTSRB_NOTE = "GTSRB: whole images kept, not cropped to the sign"


@dataclass(frozen=True)
class Folder:
    """What lies in a folder: images by the subfolder they are in ('' for the folder itself)."""

    path: Path
    images: dict[str, tuple[Path, ...]]
    subfolders: tuple[str, ...]
    other: Counter[str]  # endings of images that AGNES does not read

    @property
    def groups(self) -> tuple[str, ...]:
        """The subfolders that hold images."""
        return tuple(name for name in self.subfolders if self.images.get(name))

    @property
    def notes(self) -> tuple[str, ...]:
        if not self.other:
            return ()
        endings = ", ".join(sorted(self.other))
        return (f"left out {counted(self.other.total(), 'file')} of formats AGNES does not read ({endings})",)


def list_folder(path: Path, known: Sequence[str] | None, source: str) -> Listing:
    """Find the images of a folder and their labels, in an order that does not depend on the file system."""
    folder = _survey(path)
    groups = folder.groups
    if not folder.images.get("") and len(groups) == 1 and groups[0].lower() in _WRAPPERS:
        return list_folder(path / groups[0], known, source)
    if groups and all(name.lower() in _TRAIN or name.lower() in _TEST for name in groups):
        return _split(folder, known, source)
    if groups:
        return _class_folders(folder, known, source)
    if not folder.images.get(""):
        hint = f"{folder.notes[0]}; convert them to {READABLE}" if folder.other else ""
        advice = hint or "give a folder of images (one folder per class), an .npz, a .csv list or one image"
        raise UsageError(f"{source}: no images found; {advice}")
    return _flat(folder, known)


def _split(folder: Folder, known: Sequence[str] | None, source: str) -> Listing:
    """Training and test images side by side; the test part numbers its classes as the first part does."""
    by_name = {name.lower(): name for name in folder.groups}
    tests = [by_name[name] for name in _TEST if name in by_name]
    train = next((by_name[name] for name in sorted(_TRAIN) if name in by_name), None)
    first, rest = (train, tests) if train is not None else (tests[0], tests[1:])
    main = list_folder(folder.path / first, known, source)
    if not rest:
        return main
    test = list_folder(
        folder.path / rest[0], known or (main.class_names if main.label_rule == "sorted" else None), source
    )
    if test.labels is None:
        return replace(main, notes=(*main.notes, f"left out {printable(rest[0])}/: its images have no labels"))
    return replace(main, test=test)


def _class_folders(folder: Folder, known: Sequence[str] | None, source: str) -> Listing:
    numbering = number_classes(folder.groups, folder.subfolders, known, source)
    twice = [label for label, n in Counter(numbering.labels.values()).items() if n > 1]
    if twice:
        raise UsageError(f"{source}: two class folders have the number {twice[0]}; number each class once")
    ordered = sorted(folder.groups, key=lambda name: numbering.labels[name])
    files = [(file, numbering.labels[name]) for name in ordered for file in folder.images[name]]
    notes = [numbering.note, *folder.notes]
    empty = len(folder.subfolders) - len(folder.groups)
    if empty:
        notes.append(f"{counted(empty, 'subfolder')} without images")
    if folder.images.get(""):
        notes.append(f"left out {counted(len(folder.images['']), 'image')} beside the class folders")
    if any(next((folder.path / name).glob(_GTSRB), None) for name in ordered[:1]):
        notes.append(GTSRB_NOTE)
    paths, labels = zip(*files, strict=True)
    return Listing(paths, labels, numbering.class_names, numbering.rule, tuple(notes))


def _flat(folder: Folder, known: Sequence[str] | None) -> Listing:
    """Images without class folders: labelled by a list beside them if there is one, else not at all."""
    listed = _list_beside(folder.path)
    if listed is None:
        names = None if known is None else tuple(printable(name) for name in known)
        return Listing(folder.images[""], class_names=names, notes=folder.notes)
    found = list_csv(listed, known, base=folder.path)
    notes = [f"images as listed in {printable(listed.name)}", *found.notes]
    left = set(folder.images[""]) - {folder.path / file.name for file in found.files}
    if left:
        notes.append(f"left out {counted(len(left), 'image')} that the list does not name")
    return replace(found, notes=(*notes, *folder.notes))


def _list_beside(path: Path) -> Path | None:
    """labels.csv or GTSRB's list; that of its test images is often unpacked one or two folders up."""
    if (path / "labels.csv").is_file():
        return path / "labels.csv"
    places = [path]
    if path.absolute().parent.name == "Final_Test":
        places += list(path.absolute().parents[:2])
    lists = sorted((found for place in places for found in place.glob(_GTSRB)), key=lambda found: found.name)
    return lists[0] if lists else None  # 'GT-final_test.csv', with labels, before 'GT-final_test.test.csv'


def _survey(path: Path) -> Folder:
    """Walk a folder once. Links to files are followed (and must be regular), links to folders only at the top."""
    images: dict[str, tuple[Path, ...]] = {}
    other: Counter[str] = Counter()
    seen = 0
    top, subfolders = _entries(path)
    pending: list[tuple[str, Path]] = [(name, path / name) for name in subfolders]
    found: dict[str, list[Path]] = {"": _images(path, top, other)}
    while pending:
        group, folder = pending.pop()
        files, below = _entries(folder)
        seen += len(files) + len(below)
        if seen > MAX_ENTRIES:
            raise UsageError(f"{printable(path)}: more than {MAX_ENTRIES} files; name the folder of the images alone")
        found.setdefault(group, []).extend(_images(folder, files, other))
        pending += [(group, folder / name) for name in below if not (folder / name).is_symlink()]
    images = {name: tuple(sorted(files)) for name, files in found.items()}
    return Folder(path, images, tuple(subfolders), other)


def _images(folder: Path, files: list[str], other: Counter[str]) -> list[Path]:
    endings = [(name, os.path.splitext(name)[1].lower()) for name in files]
    other.update(ending for _, ending in endings if ending in OTHER_SUFFIXES)
    return [folder / name for name, ending in endings if ending in SUFFIXES]


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the files and folders in a folder, sorted; hidden ones and leavings of archives are not there."""
    files, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith((".", "__MACOSX")):
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        reason = printable(error.strerror or error)
        raise UsageError(f"{printable(folder)}: cannot be read ({reason}); check its permissions") from error
    return sorted(files), sorted(folders)


def images_below(path: Path) -> list[Path]:
    """Every image file in a folder and its class folders, sorted."""
    return sorted(file for files in _survey(path).images.values() for file in files)
