"""agnes doctor: versions, device, broken plugins."""

from __future__ import annotations

import json as jsonlib

import typer

from agnes.cli import arguments

NAME = "doctor"


def command(json: arguments.Json = False, block: arguments.Block = None) -> None:
    """Check this installation: versions, device, plugins that cannot be imported.

    Exit codes: 0 all is well, 2 something is wrong.
    """
    from agnes import health
    from agnes.reports import terminal

    found = health.examine(block or ())
    if json:
        print(jsonlib.dumps(found.as_json(), indent=2))
    else:
        terminal.health(found, terminal.console())
    raise typer.Exit(0 if found.sound else 2)
