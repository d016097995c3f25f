"""agnes apply: a found trigger on images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agnes.text import counted, printable

NAME = "apply"


def command(
    trigger: Annotated[
        Path, typer.Argument(metavar="TRIGGER", help="A .npz of a run's triggers/ folder.", show_default=False)
    ],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where the .png files go.")] = Path(
        "triggered"
    ),
) -> None:
    """Stamp a trigger that a run found on images; each is fitted to the size that the network takes."""
    from agnes.stamping import apply

    written = apply(trigger, images, output)
    print(f"{counted(len(written), 'image')} with the trigger in {printable(output, 500)}")
