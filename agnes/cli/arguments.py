"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_FILE = "The model file"

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="The model file.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON alone on standard output.")]
Block = Annotated[
    list[str] | None,
    typer.Option("--block", metavar="NAME", help="Leave out a plugin or a distribution. Repeatable."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME.SETTING=VALUE", help="A setting of a plugin. Repeatable."),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Read this file instead of ./agnes.toml.", show_default=False),
]
Arch = Annotated[
    str | None,
    typer.Option("--arch", metavar="NAME", help="The architecture, where the file holds weights only."),
]
Mean = Annotated[
    str | None,
    typer.Option("--mean", metavar="A,B,C", help="What the model wants subtracted from scale x pixel."),
]
Std = Annotated[str | None, typer.Option("--std", metavar="A,B,C", help="What the model wants divided by.")]
Scale = Annotated[
    float | None,
    typer.Option("--scale", metavar="X", help="255 for a model that takes pixels of 0 to 255.", show_default=False),
]
Layout = Annotated[
    str | None,
    typer.Option("--layout", metavar="NCHW|NHWC", help="The layout of the file's own input."),
]
InputShape = Annotated[
    str | None,
    typer.Option("--input-shape", metavar="C,H,W", help="The input's shape, where the file does not say."),
]
Trust = Annotated[
    bool,
    typer.Option("--trust-model-code", help="Open files whose format runs code. Never read from a file."),
]
TestData = Annotated[
    Path | None,
    typer.Option(
        "--test-data",
        metavar="FILE",
        help="Labelled images that a repair is measured on; without --repair-data some of them help to repair.",
        show_default=False,
    ),
]
RepairData = Annotated[
    Path | None,
    typer.Option(
        "--repair-data",
        metavar="FILE",
        help="Labelled images to repair with, and for nothing else.",
        show_default=False,
    ),
]
Compact = Annotated[
    bool | None,
    typer.Option(
        "--compact", help="Take pruned channels out of the repaired model, where that can be.", show_default=False
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Of everything random. Default: 0.")]
Device = Annotated[str | None, typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1 or mps.")]
Precision = Annotated[str | None, typer.Option("--precision", metavar="NAME", help="float32, tf32 or bfloat16.")]
Memory = Annotated[
    str | None, typer.Option("--memory", metavar="SIZE", help="For one chunk of work, as in 512M or 4G.")
]
TimeBudget = Annotated[
    str | None, typer.Option("--time-budget", metavar="TIME", help="For the whole run, as in 90, 5m or 1h.")
]
MaxAccuracyDrop = Annotated[
    float | None,
    typer.Option(
        "--max-accuracy-drop",
        metavar="SHARE",
        help="What a repair may cost before the next method is tried. Default: 0.02.",
        show_default=False,
    ),
]
