"""agnes bench: how well a detector and a repair do on a zoo of known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agnes_zoo.commands.options import Options, with_options

app = typer.Typer(
    add_completion=False,
    help="Score detectors and repairs on a zoo of known truth.",
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
