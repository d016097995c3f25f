"""What `agnes bench calibrate` does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from agnes.calibration import SCHEMA_VERSION
from agnes.errors import UsageError
from agnes.reports.environment import versions
from agnes.reports.folder import write_text, writing
from agnes.reports.json import plain
from agnes_zoo.bench import reports
from agnes_zoo.bench.scans import SCANS, Scan
from agnes_zoo.commands.benching import Bench, interrupted
from agnes_zoo.scoring.calibrating import Fit, Known, every_fit

FILE = "calibration.json"


@dataclass(frozen=True)
class Calibrating(Bench):
    """One calibration on one zoo."""

    def calibrate(self, file: Path | None) -> int:
        """Write the calibration file; the exit code."""
        try:
            found = self.scans()
        except KeyboardInterrupt:
            return interrupted()
        known, settings = self._known(found)
        fits = every_fit(known)
        document = {
            "schema_version": SCHEMA_VERSION,
            "command": f"agnes bench calibrate {self.zoo.resolve().name} {' '.join(self.options.arguments)}".strip(),
            "zoo": {"name": self.zoo.resolve().name, "recipe": self.manifest.recipe, "models": len(known)},
            "versions": versions(),
            "settings": settings,
            "weighings": [fit.as_json() for fit in fits],
            "models": [
                {"name": model.name, "trojaned": model.trojaned, "traits": dict(model.traits)} for model in known
            ],
        }
        place = file or self.output / FILE
        with writing(place.parent):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_text(place, json.dumps(plain(document), indent=1) + "\n")
        typer.echo(_table(fits))
        if not self.options.quiet:
            typer.echo(f"written to {place}", err=True)
        return 0

    def _known(self, found: Sequence[Scan]) -> tuple[list[Known], dict[str, Mapping[str, Any]]]:
        """What was said of each model, and the settings that all were scanned with."""
        known: list[Known] = []
        settings: dict[str, Mapping[str, Any]] = {}
        for scan in found:
            if scan.status == "failed":
                raise UsageError(f"{scan.name} could not be scanned ({scan.reason}); a calibration needs every model")
            report = reports.read(self.output / SCANS / scan.name)
            if report is None:
                raise UsageError(f"the report on {scan.name} cannot be read; scan it again, with another -o")
            missed = [run["name"] for run in report["methods"] if run["status"] == "failed"]
            if missed:
                raise UsageError(f"{scan.name}: {missed[0]} failed; a calibration needs every method on every model")
            known.append(Known(scan.name, bool(self.manifest.models[scan.name]["trojaned"]), _values(report)))
            judged = {run["name"]: run["settings"] for run in report["methods"] if run["stage"] in _JUDGED}
            if settings and judged != settings:
                raise UsageError(f"{scan.name} was scanned with other methods or settings than the models before it")
            settings = judged
        return known, settings


_JUDGED = ("inversion", "diagnosis")


def _values(report: Mapping[str, Any]) -> dict[str, float]:
    """What each source says."""
    return {trait.source: round(trait.value, 6) for trait in reports.traits_of(report)}


def _table(fits: Sequence[Fit]) -> str:
    """A line for each set of methods."""
    lines = ["left out one at a time: AUC, Brier score, threshold"]
    for fit in fits:
        methods = ", ".join(dict.fromkeys(source.partition(":")[0] for source in fit.sources))
        auc = "-" if fit.auc is None else f"{fit.auc:.3f}"
        lines.append(f"{auc}  {fit.brier or 0:.3f}  {fit.threshold:.2f}  {methods}")
    return "\n".join(lines)
