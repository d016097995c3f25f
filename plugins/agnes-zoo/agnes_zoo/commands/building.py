"""What `agnes zoo build` does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import typer

from agnes.errors import UsageError
from agnes_zoo import building, recipes
from agnes_zoo.commands.progress import shown

INTERRUPTED = 130


def built(name: str, output: Path, jobs: int | None, quiet: bool) -> int:
    """Build what is missing; the exit code."""
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs takes a number from 1 on, not {jobs}")
    recipe = recipes.read(name)
    total = len(recipe.entries)
    with shown(recipe.name, quiet) as seen:

        def tell(model: str, record: dict[str, Any], done: int) -> None:
            seen.say(_line(model, record))
            seen.step(done, total)

        try:
            manifest = building.build(recipe, output, jobs or os.cpu_count() or 1, tell)
        except KeyboardInterrupt:
            typer.echo("agnes: interrupted; the same command goes on where the build was", err=True)
            return INTERRUPTED
    if not quiet:
        failed = (
            f", {len(manifest.failed)} missed their bars (see 'failed' in manifest.json)" if manifest.failed else ""
        )
        typer.echo(f"{output}: {len(manifest.models)} of {total} models{failed}")
    return 2 if manifest.failed else 0


def _line(model: str, record: dict[str, Any]) -> str:
    kind = record["attack"] or "clean"
    if "reason" in record:
        return f"{model}  {record['arch']} on {record['data']}, {kind}: failed, {record['reason']}"
    success = "" if record["asr"] is None else f", attack success {record['asr']:.1%}"
    return (
        f"{model}  {record['arch']} on {record['data']}, {kind}: accuracy {record['accuracy']:.1%}{success}, "
        f"{record['seconds']:.0f} s"
    )
