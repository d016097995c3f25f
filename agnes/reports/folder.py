"""The run folder: report.json, and triggers/ as pictures and arrays. A file is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from agnes.errors import OutputError, UsageError
from agnes.reports import json, pictures
from agnes.results import Report

if TYPE_CHECKING:
    from agnes.samples import Samples

REPORT = "report.json"
TRIGGERS = "triggers"
REPAIRED = "repaired"
_PARTIAL = ".partial"


@contextlib.contextmanager
def claimed(output: Path | None) -> Iterator[None]:
    """Make sure, before any work is done, that the folder can be written; leave none behind that stayed empty."""
    if output is None:
        yield
        return
    with writing(output):
        existed = output.exists()
        if existed and not output.is_dir():
            raise UsageError(f"{output} is a file; give a folder with -o")
        if existed and any(output.iterdir()) and not (output / REPORT).exists():
            raise UsageError(f"{output} holds something else than a run; give a new folder with -o")
        output.mkdir(parents=True, exist_ok=True)
        probe = output / f"{REPORT}{_PARTIAL}"
        probe.write_bytes(b" " * 4096)
        probe.unlink()
    try:
        yield
    finally:
        if not existed:
            with contextlib.suppress(OSError):
                output.rmdir()  # only if nothing was written


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says about a full or forbidden disk into one line."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}; give another folder with -o"
        ) from error


def write(report: Report, output: Path, samples: Samples | None) -> None:
    """Write a run's triggers, then its report, over those of an earlier run."""
    partial = output / f"{TRIGGERS}{_PARTIAL}"
    text = json.as_text(report)
    with writing(output):
        try:
            _write_triggers(report, partial, samples)
            _replace_folder(partial, output / TRIGGERS)
            _forget_repairs(output, report)
            write_text(output / REPORT, text)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    partial = path.with_name(path.name + _PARTIAL)
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write_triggers(report: Report, partial: Path, samples: Samples | None) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    if not report.triggers:
        return
    partial.mkdir()
    names = report.model["class_names"]
    for index, trigger in enumerate(report.triggers):
        stem = Path(json.trigger_stem(index, trigger)).name
        (partial / f"{stem}.npz").write_bytes(pictures.arrays(trigger))
        (partial / f"{stem}.png").write_bytes(pictures.picture(trigger, names[trigger.target], samples))


def _forget_repairs(output: Path, report: Report) -> None:
    """Remove the repaired networks of an earlier run in this folder."""
    for old in output.glob(f"{REPAIRED}.*"):
        if report.repair is None or old.name != report.repair.exported:
            old.unlink()


def _replace_folder(new: Path, old: Path) -> None:
    """The new folder in the place of the old one; without a new one the old one goes."""
    shutil.rmtree(old, ignore_errors=True)
    if new.exists():
        os.replace(new, old)
