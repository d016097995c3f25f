"""tally: how much a run found, in one line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agnes.hookspecs import hookimpl
from agnes.method import Method

if TYPE_CHECKING:
    from agnes.results import Report


@dataclass(frozen=True)
class Tally(Method):
    """Write the number of candidates, triggers and repairs into the run folder."""

    file: str = "tally.txt"  # its name

    @hookimpl
    def run_finished(self, report: Report, folder: Path | None) -> None:
        if folder is None:
            return
        counts = f"{len(report.candidates)} candidates, {len(report.triggers)} triggers, {len(report.repairs)} repairs"
        (folder / self.file).write_text(f"{report.verdict.status}: {counts}\n", encoding="utf-8")
