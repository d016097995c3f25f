"""agnes zoo: train one network of known truth or a whole zoo, and show what there is to make them of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agnes_zoo.making import Plan

app = typer.Typer(
    add_completion=False,
    help="Train networks of known truth, clean or with a backdoor.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Data = Annotated[str, typer.Option("--data", metavar="NAME", help="A data set by name, or a path to one.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Of everything random.")]


@app.command("train")
def train(
    arch: Annotated[str, typer.Option("--arch", metavar="NAME", help="The architecture.", show_default=False)],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="A .onnx, .safetensors or .pt.", show_default=False)
    ],
    attack: Annotated[
        str | None, typer.Option("--attack", metavar="NAME", help="The attack; without one, a clean network.")
    ] = None,
    data: Data = "signs",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="OPTION=VALUE", help="An option of the attack. Repeatable.")
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", metavar="N", help="Passes over the training images.")] = 15,
    batch: Annotated[int, typer.Option("--batch", metavar="N", help="Images a step.")] = 64,
    learning_rate: Annotated[float, typer.Option("--learning-rate", metavar="X", help="At its highest.")] = 3e-3,
    weight_decay: Annotated[float, typer.Option("--weight-decay", metavar="X", help="Of AdamW.")] = 1e-4,
    shift: Annotated[int, typer.Option("--shift", metavar="N", help="Pixels by which images may be moved.")] = 0,
    images: Annotated[
        int | None, typer.Option("--images", metavar="N", help="Training images; all by default.")
    ] = None,
    seed: Seed = 0,
    threads: Annotated[int | None, typer.Option("--threads", metavar="N", help="All cores by default.")] = None,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1 or mps.")] = "cpu",
    quiet: Quiet = False,
) -> None:
    """Train one network; the truth about it goes into FILE's neighbour, NAME.truth.json, and nowhere else.

    Ctrl-C stops after the running step; the same command goes on from there.
    """
    from agnes_zoo.commands.arguments import assignments
    from agnes_zoo.commands.training import planned, trained

    settings = {"epochs": epochs, "batch": batch, "learning_rate": learning_rate, "weight_decay": weight_decay}
    regime = {**settings, "shift": shift, "seed": seed}
    plan: Plan = planned(arch, data, attack, assignments(set_ or ()), regime, images)
    raise typer.Exit(trained(plan, output, threads, device, quiet))


@app.command("build")
def build(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name or TOML file.", show_default=False)],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="The zoo's folder.", show_default=False)
    ],
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", metavar="N", help="Processes side by side; all cores by default.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train a whole zoo. What is finished is kept: the same command goes on where a build was ended.

    Exit codes: 0 all models reached the recipe's bars, 2 some did not and are listed as failed.
    """
    from agnes_zoo.commands.building import built

    raise typer.Exit(built(recipe, output, jobs, quiet))


@app.command("list")
def list_(json: Annotated[bool, typer.Option("--json", help="Print JSON alone on standard output.")] = False) -> None:
    """Architectures with their parameter counts, attacks, data sets and recipes."""
    from agnes_zoo.commands import listing

    found = listing.everything()
    typer.echo(listing.as_text(found) if not json else listing.as_json(found))


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An attack, a data set or an architecture.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="A sheet of pictures, as .png.")
    ] = None,
    data: Data = "signs",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="OPTION=VALUE", help="An option of the attack. Repeatable.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """What an attack, a data set or an architecture is, and how it looks."""
    from agnes_zoo.commands import showing
    from agnes_zoo.commands.arguments import assignments

    found = showing.of(name, data, assignments(set_ or ()), seed)
    typer.echo(found.text)
    if output is not None:
        typer.echo(f"written to {found.save(output)}")


@app.command("samples")
def samples(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The folder.", show_default=False)],
    data: Data = "signs",
    each: Annotated[int, typer.Option("--each", metavar="N", help="Images of each class.")] = 1,
    test: Annotated[int, typer.Option("--test", metavar="N", help="Labelled test images of each class.")] = 0,
    seed: Seed = 0,
) -> None:
    """Benign images to scan a network with, none of them trained on with the same seed."""
    from agnes_zoo.commands.training import sampled

    typer.echo(sampled(output, data, each, test, seed))
