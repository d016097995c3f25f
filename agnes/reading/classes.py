"""From the names of classes to the numbers the network knows them by."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agnes.errors import UsageError
from agnes.reading.parts import LabelRule, open_regular
from agnes.text import printable

MAX_CLASSES = 100_000  # a folder named 999999999 is a name, not a class number
_NUMBERED = re.compile(r"([0-9]{1,9})(?:[-_. ]+(.*))?", re.DOTALL)
_SAID: dict[LabelRule, str] = {
    "names": "labels follow the known class names",
    "numbers": "labels are the numbers in the class names",
    "sorted": "labels follow the sorted order of the class names",
}


@dataclass(frozen=True)
class Numbering:
    """The label of each class name, and the rule that gave it."""

    labels: dict[str, int]
    class_names: tuple[str, ...] | None
    rule: LabelRule

    @property
    def note(self) -> str:
        return _SAID[self.rule]


def number_classes(found: Iterable[str], every: Sequence[str], known: Sequence[str] | None, source: str) -> Numbering:
    """Number class names: by the known names, else by the numbers they begin with, else in sorted order.

    `found` are the names that occur, `every` all that were offered (a class folder may be empty).
    """
    names = sorted(set(found))
    clean = None if known is None else tuple(printable(name) for name in known)
    if known and set(names) <= set(known):
        return Numbering({name: list(known).index(name) for name in names}, clean, "names")
    numbers = {name: leading_number(name) for name in names}
    if all(number is not None for number in numbers.values()):
        labels = {name: number for name, number in numbers.items() if number is not None}
        return Numbering(labels, clean or _numbered_names(labels), "numbers")
    ordered = sorted(set(every))
    if known:
        _check_stand_in(names, ordered, known, source)
    labels = {name: i for i, name in enumerate(ordered)}
    return Numbering(labels, clean or tuple(printable(name) for name in ordered), "sorted")


def leading_number(name: str) -> int | None:
    """The number that a name is or begins with: 14 for '00014' and '14-stop'."""
    match = _NUMBERED.fullmatch(name)
    return int(match[1]) if match and int(match[1]) < MAX_CLASSES else None


def _numbered_names(labels: dict[str, int]) -> tuple[str, ...] | None:
    rests = {label: (_NUMBERED.fullmatch(name) or [None] * 3)[2] for name, label in labels.items()}
    if not any(rests.values()):
        return None
    return tuple(printable(rests.get(i) or i) for i in range(max(rests) + 1))


def _check_stand_in(names: list[str], ordered: list[str], known: Sequence[str], source: str) -> None:
    """Sorted order may stand in for known names only where nothing contradicts it."""
    strangers = [name for name in names if name not in set(known)]
    if len(strangers) < len(names):
        raise UsageError(
            f"{source}: class '{printable(strangers[0])}' is not among the known class names; rename it or number "
            "the classes, as in '3-cat'"
        )
    if len(ordered) != len(known):
        raise UsageError(
            f"{source}: {len(ordered)} classes here, {len(known)} known class names, none in common; name the classes "
            "alike or number them, as in '3-cat'"
        )


def read_class_names(path: Path) -> tuple[tuple[str, ...], str] | None:
    """The names in a classes.json in a folder or beside what was named, with a note; None without one."""
    places = [path / "classes.json"] if path.is_dir() else []
    for place in [*places, path.absolute().parent / "classes.json"]:
        if not place.exists():
            continue
        with open_regular(place, most=2**20 * 8) as file:
            content = file.read()
        try:
            names = json.loads(content)
        except (ValueError, RecursionError):
            names = None
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise UsageError(f'{printable(place)}: not a list of class names; write ["first", "second", ...]')
        if len(set(names)) != len(names):
            raise UsageError(f"{printable(place)}: a class name occurs twice; make the names differ")
        return tuple(names), f"class names from {printable(place)}"
    return None
