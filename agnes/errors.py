"""What can go wrong, and the exit code each kind leaves the command with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AgnesError(Exception):
    """A failure with a name: one line that says what is wrong, whose it is and what to do. The scan failed."""

    exit_code = 2


class Refused(AgnesError):
    """A file that AGNES will not open, with the reason and the way out."""

    exit_code = 3


class NothingApplicable(AgnesError):
    """No installed method serves this network or file."""

    exit_code = 3


class UsageError(AgnesError):
    """The command, a setting or the data handed in is wrong; nothing was run."""

    exit_code = 4


class OutOfTime(AgnesError):
    """A cooperative deadline has passed. A method that has results by then hands them over in `partial`."""

    def __init__(self, message: str, partial: object = None) -> None:
        super().__init__(message)
        self.partial = partial


class OutOfMemory(AgnesError):
    """Not even one item fits the memory there is."""


class OutputError(AgnesError):
    """The run folder or an exported file could not be written."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: the nearest known one, or all of them where they are few."""
    names = {name.lower(): name for name in sorted(known)}
    word = word.lower()
    parts = [name for name in names if len(word) > 2 and (word in name or (len(name) > 2 and name in word))]
    near = difflib.get_close_matches(word, parts, n=1, cutoff=0) or difflib.get_close_matches(
        word, names, n=1, cutoff=0.5
    )
    if near:
        return f"; did you mean '{names[near[0]]}'?"
    return f"; there is {', '.join(names.values())}" if 0 < len(names) <= 12 else ""
