"""What `agnes bench detect` and `agnes bench repair` do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import typer

from agnes.errors import UsageError
from agnes.reports.environment import versions
from agnes.reports.folder import write_bytes, write_text, writing
from agnes.reports.json import plain
from agnes_zoo.bench import scans
from agnes_zoo.bench import scores as score_files
from agnes_zoo.commands.options import Options
from agnes_zoo.commands.progress import shown
from agnes_zoo.manifest import Manifest
from agnes_zoo.scoring import detection, plots, repairs, tables

INTERRUPTED = 130
SCHEMA_VERSION = "1.0"  # of results.json


@dataclass(frozen=True)
class Bench:
    """One scoring of one zoo."""

    zoo: Path
    options: Options

    @cached_property
    def manifest(self) -> Manifest:
        found = Manifest.read(self.zoo)
        if not found.models:
            raise UsageError(f"{self.zoo} holds no models yet; agnes zoo build goes on with it")
        return found

    @property
    def output(self) -> Path:
        return self.options.output or Path("runs") / f"bench-{self.zoo.resolve().name}"

    def detect(self, scores: Path | None) -> int:
        """Write results and tables of detection; the exit code."""
        try:
            found = self.scans() if scores is None else score_files.read(scores, self.manifest.models)
        except KeyboardInterrupt:
            return interrupted()
        rows = detection.rows(self.manifest.models, found)
        summary = detection.summary(rows, seed=self.options.seed)
        how = f"scores from {scores.name}" if scores is not None else f"scanned with {self._said()}"
        text = tables.detection(summary, self.zoo.resolve().name, how)
        truth = np.array([row.trojaned for row in rows])
        picture = plots.picture(np.array([row.probability for row in rows]), truth, summary["measures"]["auc"]["value"])
        guarded = None if scores is not None else all(scan.guarded for scan in found)
        said = {"bench": "detect", "scans": how, "kept_from_the_truth_by_the_kernel": guarded, **summary}
        self._write("detect", said, [row.as_json() for row in rows], text, picture)
        return self._tell(said, text)

    def repair(self) -> int:
        """Write results and tables of repair; the exit code."""
        from agnes_zoo.bench import repaired

        try:
            found = self.scans()
        except KeyboardInterrupt:
            return interrupted()
        rows = repaired.rows(self.zoo, self.manifest, self.output, found)
        summary = repairs.summary(rows, seed=self.options.seed)
        text = tables.repair(summary, self.zoo.resolve().name)
        said = {"bench": "repair", "scans": f"scanned with {self._said()}", **summary}
        self._write("repair", said, [row.as_json() for row in rows], text, None)
        return self._tell(said, text)

    def _said(self) -> str:
        return f"agnes run {' '.join(self.options.arguments)}"

    def scans(self) -> list[scans.Scan]:
        """A scan of every model, made now or before."""
        jobs, arguments = self.options.jobs, self.options.arguments
        if jobs < 1:
            raise UsageError(f"--jobs takes a number from 1 on, not {jobs}")
        total, done = len(self.manifest.models), 0
        with shown("scans", self.options.quiet) as seen:

            def tell(scan: scans.Scan) -> None:
                nonlocal done
                done += 1
                seen.say(_line(scan))
                seen.step(done, total)

            return scans.run(self.zoo, self.manifest, self.output, arguments, jobs=jobs, tell=tell)

    def _write(
        self, name: str, said: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], text: str, picture: bytes | None
    ) -> None:
        folder = self.output / name
        document = {
            "schema_version": SCHEMA_VERSION,
            "zoo": {
                "name": self.zoo.resolve().name,
                "recipe": self.manifest.recipe,
                "complete": self.manifest.complete,
            },
            **said,
            "versions": versions(),
            "rows": rows,
        }
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / "results.csv", tables.as_csv(rows))
            write_text(folder / "results.json", json.dumps(plain(document), indent=1) + "\n")
            write_text(folder / "table.md", text)
            if picture is not None:
                write_bytes(folder / "plot.png", picture)

    def _tell(self, said: Mapping[str, Any], text: str) -> int:
        typer.echo(json.dumps(plain(dict(said)), indent=1) if self.options.json else text)
        if not self.options.quiet:
            typer.echo(f"written to {self.output / said['bench']}", err=True)
        return 0


def _line(scan: scans.Scan) -> str:
    if scan.status == "failed":
        return f"{scan.name}  failed: {scan.reason}"
    probability = "" if scan.probability is None else f", probability {scan.probability:.3f}"
    target = f", target {scan.targets[0]}" if scan.targets else ""
    return f"{scan.name}  {scan.status}{probability}{target}" + (f", {scan.seconds:.0f} s" if scan.seconds else "")


def interrupted() -> int:
    typer.echo("agnes: interrupted; the same command goes on with the models that are left", err=True)
    return INTERRUPTED
