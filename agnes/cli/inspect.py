"""agnes inspect: what a model file holds, and which methods apply to it."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from agnes import options, settings
from agnes.cli import arguments

NAME = "inspect"


def command(
    model: arguments.Model,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="PATH", help="Benign images, to say what they offer to methods."),
    ] = None,
    set_: arguments.Set = None,
    json: arguments.Json = False,
    config: arguments.Config = None,
    block: arguments.Block = None,
    arch: arguments.Arch = None,
    mean: arguments.Mean = None,
    std: arguments.Std = None,
    scale: arguments.Scale = None,
    layout: arguments.Layout = None,
    input_shape: arguments.InputShape = None,
    trust_model_code: arguments.Trust = False,
) -> None:
    """Show a model's format, layers, kinds and parameters, and which methods apply to it and why not."""
    typed = options.among(locals())
    configuration = settings.read_config(config)
    chosen = options.resolved(typed, configuration)
    from agnes.reports import inspection

    found = inspection.inspect(
        model,
        options.load_options(chosen, trust_model_code=trust_model_code),
        chosen.data,
        chosen.block,
        settings.merged(configuration.plugins, settings.parse_assignments(set_ or ())),
    )
    print(jsonlib.dumps(found, indent=2, ensure_ascii=False) if json else inspection.text(found))
