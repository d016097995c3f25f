"""A table that was run, as CSV, Markdown, JSON and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agnes.reports.environment import versions
from agnes.reports.folder import write_bytes, write_text, writing
from agnes.reports.json import plain
from agnes_zoo.experiments import plotting
from agnes_zoo.experiments.running import Figure, Outcome, named
from agnes_zoo.scoring import tables

SCHEMA_VERSION = "1.0"


def write(outcome: Outcome, folder: Path, command: str, sources: Mapping[str, str]) -> str:
    """All files of a table; the Markdown."""
    text = markdown(outcome, command)
    document = {
        "schema_version": SCHEMA_VERSION,
        "table": outcome.table.name,
        "where": outcome.table.where,
        "title": outcome.table.title,
        "note": outcome.table.note,
        "scale": outcome.scale.name,
        "command": command,
        "data": dict(sources),
        "networks": outcome.networks,
        "seconds": round(outcome.seconds, 1),
        "versions": versions(),
        "figures": [_as_json(figure) for figure in outcome.figures],
    }
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "results.csv", tables.as_csv(lines(outcome)))
        write_text(folder / "results.json", json.dumps(plain(document), indent=1) + "\n")
        write_text(folder / "table.md", text)
        write_bytes(folder / "plot.png", plotting.plot(outcome))
    return text


def lines(outcome: Outcome) -> list[dict[str, Any]]:
    """A line for each figure of each network."""
    return [
        {
            "table": outcome.table.name,
            "scale": outcome.scale.name,
            "row": figure.row,
            "column": figure.column,
            "network": number,
            "value": value,
            "paper": figure.paper,
        }
        for figure in outcome.figures
        for number, value in enumerate(figure.values or (None,))
    ]


def markdown(outcome: Outcome, command: str) -> str:
    """Our figures, each with the paper's in brackets."""
    table = outcome.table
    rows = [row.name for row in table.rows_at(outcome.scale.name)]
    head = ("", *(column.name + (" (ratio)" if column.over else "") for column in table.columns))
    body = [(row, *(cell(figure) for figure in named(outcome, row))) for row in rows]
    failed = dict.fromkeys(reason for figure in outcome.figures for reason in figure.failed)
    others = stand_ins(outcome)
    parts = [
        f"# {table.where}: {table.title}\n",
        f"Scale {outcome.scale.name} ({outcome.scale.says}); `{command}`; {outcome.networks} networks, "
        f"{outcome.seconds:.0f} s of measuring.\n",
        "Ours, the mean's 95 % interval where there are several networks, and in brackets the paper's.\n",
        tables.table(head, body),
        *([table.note + "\n"] if table.note else []),
        *([f"In the place of the paper's networks: {', '.join(others)}.\n"] if others else []),
        *(f"Not measured: {reason}\n" for reason in failed),
    ]
    return "\n".join(parts)


def stand_ins(outcome: Outcome) -> list[str]:
    """The networks that the scale has others for."""
    asked = dict.fromkeys(row.models.arch for row in outcome.table.rows_at(outcome.scale.name))
    chosen = {arch: outcome.scale.one.get(arch, arch) for arch in asked}
    return [f"{other} for {arch}" for arch, other in chosen.items() if other != arch]


def cell(figure: Figure) -> str:
    """`0.93, 0.90 to 0.97 (1.00)`; a dash for what could not be measured."""
    ours = "–" if figure.value is None else shown(figure.value)
    if figure.interval is not None and figure.interval[0] != figure.interval[1]:
        ours += f", {shown(figure.interval[0])} to {shown(figure.interval[1])}"
    return ours if figure.paper is None else f"{ours} ({shown(figure.paper)})"


def shown(value: float) -> str:
    """A figure with three digits that matter."""
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value)}" if abs(value) > 1 else f"{value:.2f}".rstrip("0").rstrip(".")
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"


def _as_json(figure: Figure) -> dict[str, Any]:
    return {
        "row": figure.row,
        "column": figure.column,
        "value": figure.value,
        "interval": figure.interval,
        "values": figure.values,
        "paper": figure.paper,
        "failed": figure.failed,
    }
