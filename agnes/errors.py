"""What can go wrong, and the exit code each kind leaves the command with."""

from __future__ import annotations


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
    """A cooperative deadline has passed; what was found so far is kept."""


class OutOfMemory(AgnesError):
    """Not even one item fits the memory there is."""


class OutputError(AgnesError):
    """The run folder or an exported file could not be written."""
