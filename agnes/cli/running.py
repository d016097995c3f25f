"""Running a request before a person's eyes, or for a program."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from agnes.engine import Request
    from agnes.results import Report


@contextlib.contextmanager
def _ending_as_interrupt() -> Iterator[None]:
    """Inside, a polite request to end (as of `timeout` or a shutdown) is a Ctrl-C: what was found is written."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def show(request: Request, *, as_json: bool = False, quiet: bool = False) -> Report:
    """Run, with progress on standard error and the report on standard output; Ctrl-C and SIGTERM leave with 130."""
    from agnes import engine
    from agnes.reports import json, terminal

    watch = None if quiet else terminal.Watch(terminal.console(stderr=True))
    try:
        with _ending_as_interrupt(), contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            report = engine.run(request, progress=watch, listeners=[watch] if watch else [])
    except KeyboardInterrupt:
        kept = request.output is not None and (request.output / "report.json").exists()
        where = f"; what was found by then is in {request.output}/report.json" if kept else ""
        print(f"agnes: interrupted{where}", file=sys.stderr)
        raise typer.Exit(130) from None
    try:
        if as_json:
            sys.stdout.write(json.as_text(report))
        else:
            terminal.summary(report, request.output, terminal.console())
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has gone; the verdict stands
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return report
