"""agnes repair: from the findings of a run to a repaired model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from agnes import options, settings
from agnes.cli import arguments, running
from agnes.errors import NothingApplicable

NAME = "repair"

From = Annotated[
    Path, typer.Option("--from", metavar="RUN", help="The folder of a run of this model.", show_default=False)
]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="PATH", help="Benign images. Default: those of the run."),
]
Plugin = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="NAME", help="Repair with this method. Repeatable."),
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="The repaired model. Default: MODEL-repaired, beside it."),
]


def command(
    model: arguments.Model,
    findings: From,
    data: Data = None,
    test_data: arguments.TestData = None,
    repair_data: arguments.RepairData = None,
    plugin: Plugin = None,
    set_: arguments.Set = None,
    output: Output = None,
    json: arguments.Json = False,
    quiet: arguments.Quiet = False,
    seed: arguments.Seed = None,
    device: arguments.Device = None,
    precision: arguments.Precision = None,
    memory: arguments.Memory = None,
    time_budget: arguments.TimeBudget = None,
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
    """Repair a model with the triggers that a run has found, measure it before and after, and scan it again.

    Exit codes: 0 the re-scan is clean, 1 a backdoor is left, 3 nothing to repair, 5 the re-scan is inconclusive.
    """
    typed = options.among({name: value for name, value in locals().items() if name != "output"})
    configuration = settings.read_config(config)
    request = options.request_of(
        model,
        replace(options.resolved(typed, configuration), only=False, plugin=tuple(plugin or ())),
        settings.parse_assignments(set_ or ()),
        configuration,
        trust_model_code=trust_model_code,
    )
    repaired = output or model.with_name(f"{model.stem}-repaired{model.suffix}")
    found = running.show(replace(request, findings=findings, repaired=repaired), as_json=json, quiet=quiet)
    if found.repair is None or found.repair.rescan is None:
        reasons = dict.fromkeys(r.reason for r in found.methods if r.stage == "mitigation" and r.reason)
        raise NothingApplicable(f"nothing was repaired: {'; '.join(reasons) or 'the run found nothing to repair with'}")
    raise typer.Exit({"clean": 0, "backdoored": 1, "inconclusive": 5}[found.repair.rescan.status])
