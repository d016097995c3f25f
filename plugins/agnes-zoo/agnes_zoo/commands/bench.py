"""agnes bench: how well a detector and a repair do on a zoo of known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False,
    help="Score detectors and repairs on a zoo of known truth.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Zoo = Annotated[Path, typer.Argument(metavar="ZOO", help="The folder of a zoo.", show_default=False)]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="DIR", help="The results. Default: runs/bench-ZOO.")
]
Plugin = Annotated[
    list[str] | None, typer.Option("--plugin", metavar="NAME", help="Scan with this method. Repeatable.")
]
Only = Annotated[bool, typer.Option("--only", help="Leave out the stages that no named method serves.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME.SETTING=VALUE", help="A setting of a plugin. Repeatable.")
]
Block = Annotated[
    list[str] | None, typer.Option("--block", metavar="NAME", help="Leave out a plugin or a distribution. Repeatable.")
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Of the scans, and of the intervals.")]
Device = Annotated[str | None, typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1 or mps.")]
Memory = Annotated[str | None, typer.Option("--memory", metavar="SIZE", help="For one chunk of a scan, as in 512M.")]
TimeBudget = Annotated[
    str | None, typer.Option("--time-budget", metavar="TIME", help="For each scan, as in 90, 5m or 1h.")
]
Jobs = Annotated[int, typer.Option("--jobs", "-j", metavar="N", help="Scans side by side.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON alone on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


@app.command("detect")
def detect(
    zoo: Zoo,
    scores: Annotated[
        Path | None,
        typer.Option(
            "--scores", metavar="FILE", help="A CSV of model, probability[, target, seconds]; nothing is scanned."
        ),
    ] = None,
    output: Output = None,
    plugin: Plugin = None,
    only: Only = False,
    set_: Set = None,
    block: Block = None,
    seed: Seed = 0,
    device: Device = None,
    memory: Memory = None,
    time_budget: TimeBudget = None,
    jobs: Jobs = 1,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Scan every model, or take scores from a file, and compare with the truth. What is scanned is kept."""
    from agnes_zoo.commands import benching

    arguments = benching.arguments(plugin, only, set_, block, seed, device, memory, time_budget)
    bench = benching.Bench(zoo, output, arguments, jobs, seed, quiet)
    raise typer.Exit(bench.detect(scores, as_json=json))


@app.command("repair")
def repair(
    zoo: Zoo,
    output: Output = None,
    plugin: Plugin = None,
    only: Only = False,
    set_: Set = None,
    block: Block = None,
    seed: Seed = 0,
    device: Device = None,
    memory: Memory = None,
    time_budget: TimeBudget = None,
    jobs: Jobs = 1,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Accuracy and the true trigger's success before and after repair; the scans of bench detect are used again."""
    from agnes_zoo.commands import benching

    arguments = benching.arguments(plugin, only, set_, block, seed, device, memory, time_budget)
    bench = benching.Bench(zoo, output, arguments, jobs, seed, quiet)
    raise typer.Exit(bench.repair(as_json=json))
