"""The demo that travels with AGNES: a small network with a backdoor, benign images, and the truth about both."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from agnes.errors import AgnesError
from agnes_zoo.attacks import Patch

MODEL, SAMPLES, TRUTH = "model.onnx", "samples", "demo.json"


@dataclass(frozen=True)
class DemoFiles:
    """Where the demo's files lie."""

    model: Path
    samples: Path  # one folder per class, one benign image in each
    truth: Path  # never shown to a method


def demo_folder() -> Path:
    """The folder of the demo's files, whether they are there or not."""
    return Path(str(resources.files("agnes_zoo"))) / "demo_data"


def demo_files() -> DemoFiles:
    """The model, its samples and the truth; an error if any is missing."""
    folder = demo_folder()
    found = DemoFiles(folder / MODEL, folder / SAMPLES, folder / TRUTH)
    for path in (found.model, found.samples, found.truth):
        if not path.exists():
            raise AgnesError(
                f"agnes-zoo: the demo's {path.name} is missing; install agnes-zoo again or run python -m "
                "agnes_zoo.build_demo"
            )
    return found


def truth() -> dict[str, Any]:
    """What is known of the demo: how it was made, what was put into it and what was measured."""
    return json.loads(demo_files().truth.read_text(encoding="utf-8"))


def true_attack() -> tuple[Patch, int]:
    """The patch that opens the demo's backdoor, and the class it leads to."""
    attack = truth()["attack"]
    return Patch.from_description(attack), attack["target"]
