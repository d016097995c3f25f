"""agnes run: scan a model, show the trigger, repair it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agnes import options, settings
from agnes.cli import arguments, running

NAME = "run"

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="PATH",
        help="Benign images: a folder, an .npz, a .csv list or one image. Default: made from the model.",
    ),
]
Plugin = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="NAME", help="Use this method, of any stage. Repeatable."),
]
Only = Annotated[
    bool | None,
    typer.Option("--only", help="Leave out the stages that no named method serves.", show_default=False),
]
Repair = Annotated[
    bool | None,
    typer.Option("--repair", help="With --only: repair all the same, if a backdoor is found.", show_default=False),
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="DIR", help="The run folder. Default: runs/MODEL."),
]
Reports = Annotated[
    list[str] | None, typer.Option("--report", metavar="NAME", help="Write this report too. Repeatable.")
]


def command(
    model: arguments.Model,
    data: Data = None,
    test_data: arguments.TestData = None,
    repair_data: arguments.RepairData = None,
    plugin: Plugin = None,
    only: Only = None,
    repair: Repair = None,
    set_: arguments.Set = None,
    output: Output = None,
    json: arguments.Json = False,
    quiet: arguments.Quiet = False,
    seed: arguments.Seed = None,
    device: arguments.Device = None,
    precision: arguments.Precision = None,
    memory: arguments.Memory = None,
    time_budget: arguments.TimeBudget = None,
    report: Reports = None,
    compact: arguments.Compact = None,
    max_accuracy_drop: arguments.MaxAccuracyDrop = None,
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
    """Scan a model for backdoors, show the trigger and repair the model.

    Exit codes: 0 clean, 1 backdoor found, 2 scan failed, 3 refused or nothing applicable, 4 usage, 5 inconclusive.
    """
    typed = options.among(locals())
    configuration = settings.read_config(config)
    request = options.request_of(
        model,
        options.resolved(typed, configuration),
        settings.parse_assignments(set_ or ()),
        configuration,
        trust_model_code=trust_model_code,
    )
    found = running.show(request, as_json=json, quiet=quiet)
    from agnes.engine import exit_code

    raise typer.Exit(exit_code(found))
