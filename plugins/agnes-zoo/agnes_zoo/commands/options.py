"""The options of a bench, said once for all its commands."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer


@dataclass(frozen=True)
class Options:
    """Where results go, how each network is scanned, and what is shown."""

    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="The results. Default: runs/bench-ZOO.")
    ] = None
    plugin: Annotated[
        list[str] | None, typer.Option("--plugin", metavar="NAME", help="Scan with this method. Repeatable.")
    ] = None
    only: Annotated[bool, typer.Option("--only", help="Leave out the stages that no named method serves.")] = False
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME.SETTING=VALUE", help="A setting of a plugin. Repeatable."),
    ] = None
    block: Annotated[
        list[str] | None,
        typer.Option("--block", metavar="NAME", help="Leave out a plugin or a distribution. Repeatable."),
    ] = None
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the scans, and of the intervals.")] = 0
    device: Annotated[str | None, typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1 or mps.")] = None
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="SIZE", help="For one chunk of a scan, as in 512M.")
    ] = None
    time_budget: Annotated[
        str | None, typer.Option("--time-budget", metavar="TIME", help="For each scan, as in 90, 5m or 1h.")
    ] = None
    jobs: Annotated[int, typer.Option("--jobs", "-j", metavar="N", help="Scans side by side.")] = 1
    json: Annotated[bool, typer.Option("--json", help="Print JSON alone on standard output.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """What goes on to every `agnes run`."""
        named = {"--plugin": self.plugin, "--set": self.set, "--block": self.block}
        words = [word for option, values in named.items() for value in values or () for word in (option, value)]
        single = {"--device": self.device, "--memory": self.memory, "--time-budget": self.time_budget}
        words += [word for option, value in single.items() if value is not None for word in (option, value)]
        return (*words, *(["--only"] if self.only else []), "--seed", str(self.seed))


def with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with an option for each field of Options, in the place of its parameter `options`."""
    hints = get_type_hints(Options, include_extras=True)
    shared = [
        inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[each.name])
        for each in fields(Options)
    ]

    @wraps(command)
    def spread(**given: Any) -> Any:
        options = Options(**{each.name: given.pop(each.name) for each in fields(Options)})
        return command(**given, options=options)

    own = inspect.signature(command, eval_str=True).parameters.values()
    kept = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own if each.name != "options"]
    spread.__signature__ = inspect.Signature([*kept, *shared])  # type: ignore[attr-defined]
    return spread
