"""What `agnes bench calibrate` does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import typer

from agnes.calibration import SCHEMA_VERSION
from agnes.errors import UsageError
from agnes.reports.environment import versions
from agnes.reports.folder import write_text, writing
from agnes.reports.json import plain
from agnes.traits import Trait
from agnes_zoo.bench import reports
from agnes_zoo.bench.scans import SCANS, Scan
from agnes_zoo.commands.benching import Bench, interrupted
from agnes_zoo.commands.options import Options
from agnes_zoo.manifest import Manifest
from agnes_zoo.scoring.calibrating import Fit, Known, every_fit

FILE = "calibration.json"
_JUDGED = ("inversion", "diagnosis")
_DIGITS = 4
_WORDS = {"skipped": "was skipped", "failed": "failed"}  # of a run's status


@dataclass(frozen=True)
class Part(Bench):
    """The models of one zoo that a calibration learns from."""

    without: frozenset[str] = frozenset()  # architectures

    @property
    def name(self) -> str:
        return self.zoo.resolve().name

    @cached_property
    def manifest(self) -> Manifest:
        found = Manifest.read(self.zoo)
        kept = {name: model for name, model in found.models.items() if model["arch"] not in self.without}
        if not kept:
            raise UsageError(f"{self.zoo} holds no models to learn from")
        return replace(found, models=kept)

    def described(self) -> dict[str, Any]:
        """What the calibration file says of the zoo."""
        return {"name": self.name, "recipe": self.manifest.recipe, "models": len(self.manifest.models)}


@dataclass(frozen=True)
class Calibrating:
    """One calibration, on the models of all zoos whose architecture is not in the zoo that it shall be unlike."""

    zoos: Sequence[Path]
    options: Options
    unlike: Path | None = None

    @cached_property
    def parts(self) -> list[Part]:
        found = [Part(zoo, self._options_for(zoo), self.without) for zoo in self.zoos]
        names = [part.name for part in found]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"two zoos are called {name}; a calibration file tells them apart by that name")
        return found

    @cached_property
    def without(self) -> frozenset[str]:
        """The architectures that nothing is learnt from."""
        if self.unlike is None:
            return frozenset()
        return frozenset(model["arch"] for model in Manifest.read(self.unlike).models.values())

    def calibrate(self, file: Path | None) -> int:
        """Write the calibration file; the exit code."""
        place = file or self._place()
        try:
            found = [(part, part.scans()) for part in self.parts]
        except KeyboardInterrupt:
            return interrupted()
        known, settings = _known(found)
        fits = every_fit(known)
        document = {
            "schema_version": SCHEMA_VERSION,
            "command": self._command(),
            "zoos": [part.described() for part in self.parts],
            "without": sorted(self.without),
            "versions": versions(),
            "settings": settings,
            "weighings": [fit.as_json() for fit in fits],
            "models": [model.as_json() for model in known],
        }
        with writing(place.parent):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_text(place, json.dumps(plain(document), indent=1) + "\n")
        typer.echo(_table(fits))
        if not self.options.quiet:
            typer.echo(f"written to {place}", err=True)
        return 0

    def _options_for(self, zoo: Path) -> Options:
        """A folder for each zoo, where there are several and one is named for the results."""
        if self.options.output is None or len(self.zoos) == 1:
            return self.options
        return replace(self.options, output=self.options.output / zoo.resolve().name)

    def _place(self) -> Path:
        """Where the file goes if nothing is said."""
        return (self.options.output or self.parts[0].output) / FILE

    def _command(self) -> str:
        unlike = () if self.unlike is None else ("--unlike", self.unlike.resolve().name)
        return " ".join(("agnes bench calibrate", *(p.name for p in self.parts), *unlike, *self.options.arguments))


def _known(found: Sequence[tuple[Part, Sequence[Scan]]]) -> tuple[list[Known], dict[str, Mapping[str, Any]]]:
    """What was said of each model, and the settings that all were scanned with."""
    known: list[Known] = []
    settings: dict[str, Mapping[str, Any]] = {}
    for part, scan in ((part, scan) for part, scans in found for scan in scans):
        name = f"{part.name}/{scan.name}"
        report = _read(part, scan, name)
        model = part.manifest.models[scan.name]
        known.append(Known(name, bool(model["trojaned"]), _traits(report), model["arch"], model["data"]))
        judged = {run["name"]: run["settings"] for run in report["methods"] if run["stage"] in _JUDGED}
        if settings and judged != settings:
            raise UsageError(f"{name} was scanned with other methods or settings than the models before it")
        settings = judged
    return known, settings


def _read(part: Part, scan: Scan, name: str) -> Mapping[str, Any]:
    """The report on a model; every method must have come to an end."""
    if scan.status == "failed":
        raise UsageError(f"{name} could not be scanned ({scan.reason}); a calibration needs every model")
    report = reports.read(part.output / SCANS / scan.name)
    if report is None:
        raise UsageError(f"the report on {name} cannot be read; scan it again, with another -o")
    for run in report["methods"]:
        if run["status"] == "failed" or (run["status"] != "ok" and run["stage"] in _JUDGED):
            how = f"{run['name']} {_WORDS[run['status']]} ({run['reason']})"
            raise UsageError(f"{name}: {how}; a calibration needs every method on every model")
    return report


def _traits(report: Mapping[str, Any]) -> dict[str, Trait]:
    """What each source says, as the file holds it."""
    return {trait.source: _rounded(trait) for trait in reports.traits_of(report)}


def _rounded(trait: Trait) -> Trait:
    by_class = {each: round(value, _DIGITS) for each, value in trait.by_class.items()}
    return replace(trait, value=round(trait.value, _DIGITS), by_class=by_class)


def _table(fits: Sequence[Fit]) -> str:
    """A line for each set of methods."""
    lines = ["left out one at a time: AUC, Brier score, threshold"]
    for fit in fits:
        methods = ", ".join(dict.fromkeys(source.partition(":")[0] for source in fit.sources))
        auc = "-" if fit.auc is None else f"{fit.auc:.3f}"
        lines.append(f"{auc}  {fit.brier or 0:.3f}  {fit.threshold:.2f}  {methods}")
    return "\n".join(lines)
