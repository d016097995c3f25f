"""agnes bench: how well a detector and a repair do on a zoo of known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agnes_zoo.commands.naming import WithTables
from agnes_zoo.commands.options import Options, with_options

app = typer.Typer(
    cls=WithTables,
    add_completion=False,
    help="Score detectors and repairs on a zoo of known truth, and run the papers' experiments.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Zoo = Annotated[Path, typer.Argument(metavar="ZOO", help="The folder of a zoo.", show_default=False)]


@app.command("detect")
@with_options
def detect(
    zoo: Zoo,
    options: Options,
    scores: Annotated[
        Path | None,
        typer.Option(
            "--scores", metavar="FILE", help="A CSV of model, probability[, target, seconds]; nothing is scanned."
        ),
    ] = None,
) -> None:
    """Scan every model, or take scores from a file, and compare with the truth. What is scanned is kept."""
    from agnes_zoo.commands.benching import Bench

    raise typer.Exit(Bench(zoo, options).detect(scores))


@app.command("repair")
@with_options
def repair(zoo: Zoo, options: Options) -> None:
    """Accuracy and the true trigger's success before and after repair; the scans of bench detect are used again."""
    from agnes_zoo.commands.benching import Bench

    raise typer.Exit(Bench(zoo, options).repair())


@app.command("calibrate")
@with_options
def calibrate(
    zoos: Annotated[list[Path], typer.Argument(metavar="ZOO", help="The folders of zoos.", show_default=False)],
    options: Options,
    unlike: Annotated[
        Path | None,
        typer.Option("--unlike", metavar="ZOO", help="Learn from no architecture that occurs in this zoo."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--calibration", metavar="FILE", help="Where the weights go; in the output folder by default."),
    ] = None,
) -> None:
    """Fit the weights that turn what methods find into a probability, on the scans of bench detect."""
    from agnes_zoo.commands.calibrating import Calibrating

    raise typer.Exit(Calibrating(zoos, options, unlike).calibrate(file))


@app.command("list")
def list_(json: Annotated[bool, typer.Option("--json", help="Print JSON alone on standard output.")] = False) -> None:
    """The papers' tables and figures, with the networks and measurements that each takes at each scale."""
    from agnes_zoo.commands.experimenting import listed

    typer.echo(listed(json))


@app.command("table")
def table(
    names: Annotated[
        list[str], typer.Argument(metavar="TABLE...", help="Tables that the list names, or all.", show_default=False)
    ],
    scale: Annotated[str, typer.Option("--scale", metavar="SCALE", help="tiny, small or paper.")] = "tiny",
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="[signs=|grey=|ten=]NAME",
            help="Data in the place of the scale's, all or some. Repeatable.",
        ),
    ] = None,
    networks: Annotated[
        int | None,
        typer.Option("--networks", metavar="N", help="Of each kind, of other seeds; the scale's number by default."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="The results. Default: runs/experiments.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", metavar="N", help="Processes side by side; all cores by default.")
    ] = None,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1 or mps.")] = "cpu",
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the measurements.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON alone on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Reproduce tables of the papers, our figures beside theirs; the word table may be left out.

    What was trained and measured is kept, and shared by all tables of a folder: the same command goes on where it was.
    """
    from agnes_zoo.commands.experimenting import reproduced

    raise typer.Exit(reproduced(names, scale, data or [], networks, output, jobs, device, seed, json, quiet))
