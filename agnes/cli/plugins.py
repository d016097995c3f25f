"""agnes plugins: what is installed, and what a plugin may be told."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated

import typer

from agnes.cli import arguments
from agnes.registry import Registry

NAME = "plugins"


def command(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show this plugin's settings, needs and paper.")
    ] = None,
    json: arguments.Json = False,
    block: arguments.Block = None,
) -> None:
    """List the installed plugins, or show one: its settings and defaults, its needs, its paper."""
    from agnes.reports import listing

    registry = Registry.discover(block or ())
    if name is not None:
        shown = listing.card(registry, registry.named(name))
        print(jsonlib.dumps(shown, indent=2) if json else listing.card_text(shown))
    elif json:
        print(jsonlib.dumps(listing.rows(registry), indent=2))
    else:
        print(listing.table(listing.rows(registry)))
