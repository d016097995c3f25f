"""What a person sees of a training or a build: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from agnes.reports.terminal import console
from agnes.text import printable


class Shown:
    """Says lines and moves a bar, on standard error."""

    def __init__(self, to: Console, bar: Progress | None, quiet: bool) -> None:
        self._to, self._bar, self._quiet = to, bar, quiet
        self._task: Any = None

    def say(self, line: str) -> None:
        """One line, above the bar if there is one."""
        if not self._quiet:
            self._to.print(printable(line, 300))

    def step(self, done: int, total: int) -> None:
        """So much of it is done."""
        if self._bar is None:
            return
        if self._task is None:
            self._task = self._bar.add_task("", total=total)
        self._bar.update(self._task, completed=done, total=total)


@contextmanager
def shown(what: str, quiet: bool = False) -> Iterator[Shown]:
    """Progress of one thing while it lasts."""
    to = console(stderr=True)
    if quiet or not to.is_terminal:
        yield Shown(to, None, quiet)
        return
    columns = (TextColumn(printable(what, 40), markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=to, transient=True) as bar:
        yield Shown(to, bar, quiet)


def told_epochs(seen: Shown, epochs: int) -> Callable[[Any], None]:
    """A listener that says a line for each epoch."""
    return lambda epoch: seen.say(
        f"epoch {epoch.number:>2} of {epochs}: loss {epoch.loss:.3f}, training accuracy {epoch.accuracy:.1%}"
    )
