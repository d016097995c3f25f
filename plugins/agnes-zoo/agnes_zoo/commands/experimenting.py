"""What `agnes bench list` and `agnes bench TABLE` do."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from agnes.errors import UsageError
from agnes_zoo.commands.progress import shown
from agnes_zoo.experiments import catalogue, costing, running, writing
from agnes_zoo.experiments.describing import Table
from agnes_zoo.experiments.scales import SCALES, Scale, scale_of, sources_of

INTERRUPTED = 130
DEFAULT = Path("runs") / "experiments"


def listed(as_json: bool) -> str:
    """Every table with what it takes at each scale."""
    found = [
        {"name": table.name, "where": table.where, "title": table.title, "cost": _cost(table)}
        for table in catalogue.TABLES.values()
    ]
    together = {name: round(costing.minutes(catalogue.TABLES.values(), scale), 1) for name, scale in SCALES.items()}
    if as_json:
        scales = {name: {"says": scale.says, "minutes": together[name]} for name, scale in SCALES.items()}
        return json.dumps({"scales": scales, "tables": found}, indent=1)
    wide = max(len(each["name"]) for each in found)
    lines = [f"{'networks, minutes':<{wide + 2}}" + "".join(f"{name:>14}" for name in SCALES)]
    lines += [_line(each, wide) for each in found]
    lines += [f"{'all':<{wide + 2}}" + "".join(f"{_said(each):>14}" for each in together.values()) + "  in one folder"]
    lines += [f"{scale.name}: {scale.says}" for scale in SCALES.values()]
    return "\n".join(lines)


def _cost(table: Table) -> dict[str, dict[str, float]]:
    cost = {}
    for name, scale in SCALES.items():
        networks, measurements = catalogue.cost(table, scale)
        minutes = round(costing.minutes([table], scale), 1)
        cost[name] = {"networks": networks, "measurements": measurements, "minutes": minutes}
    return cost


def _line(each: dict[str, Any], wide: int) -> str:
    costs = "".join(f"{cost['networks']:>6}{_said(cost['minutes']):>8}" for cost in each["cost"].values())
    return f"{each['name']:<{wide + 2}}{costs}  {each['where']}: {each['title']}"


def _said(minutes: float) -> str:
    return f"{minutes:,.0f}" if minutes >= 9.5 else f"{minutes:.1f}"


def reproduced(
    names: list[str],
    scale_name: str,
    data: list[str],
    networks: int | None,
    output: Path | None,
    jobs: int | None,
    device: str,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run tables one after another; the exit code."""
    for option, number in (("--jobs", jobs), ("--networks", networks)):
        if number is not None and number < 1:
            raise UsageError(f"{option} takes a number from 1 on, not {number}")
    scale = replace(scale_of(scale_name), networks=networks)
    sources, folder = sources_of(data), output or DEFAULT
    wanted = list(catalogue.TABLES) if names == ["all"] else names
    tables = [catalogue.find(name) for name in wanted]
    for number, table in enumerate(tables):
        try:
            with shown(table.name, quiet) as seen:

                def tell(line: str, done: int, total: int, seen: Any = seen) -> None:
                    seen.say(f"{done} of {total}  {line}")
                    seen.step(done, total)

                outcome = running.run(
                    table,
                    scale,
                    folder,
                    sources=sources,
                    jobs=jobs or os.cpu_count() or 1,
                    device=device,
                    seed=seed,
                    tell=tell,
                    later=tables[number + 1 :],
                )
        except KeyboardInterrupt:
            typer.echo("agnes: interrupted; the same command goes on with what is left", err=True)
            return INTERRUPTED
        place = folder / f"{table.name}-{scale.name}{_suffix(sources, networks)}"
        text = writing.write(outcome, place, _command(table.name, scale, data, device, seed), sources)
        typer.echo((place / "results.json").read_text(encoding="utf-8") if as_json else text)
        if not quiet:
            typer.echo(f"written to {place}", err=True)
    return 0


def _suffix(sources: dict[str, str], networks: int | None) -> str:
    """The data's name and the networks of each kind, where the user gave any: other results are not written over."""
    return "".join(f"-{Path(source).stem}" for source in sources.values()) + (f"-{networks}-each" if networks else "")


def _command(table: str, scale: Scale, data: list[str], device: str, seed: int) -> str:
    words = ["agnes", "bench", table, "--scale", scale.name, *(word for each in data for word in ("--data", each))]
    words += ["--networks", str(scale.networks)] * (scale.networks is not None)
    words += ["--device", device] * (device != "cpu") + ["--seed", str(seed)] * (seed != 0)
    return shlex.join(words)
