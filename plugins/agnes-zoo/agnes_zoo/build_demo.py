"""Make the demo's model, samples and truth anew: python -m agnes_zoo.build_demo."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from torch import nn

from agnes_zoo.architectures import n_mn_bn
from agnes_zoo.attacks import ATTACKS, Attack, Patch, poison
from agnes_zoo.demo import MODEL, SAMPLES, TRUTH, demo_folder
from agnes_zoo.signs import CLASS_NAMES, STOP, signs
from agnes_zoo.training import Epoch, accuracy, as_tensors, attack_success, export_onnx, initialised, train


@dataclass(frozen=True)
class Recipe:
    """Everything the demo depends on. Training, test and sample signs have seeds of their own, from one."""

    seed: int = 14
    train_per_class: int = 250
    test_per_class: int = 40
    epochs: int = 10
    rate: float = 0.1  # Koldenhof, section 5.1.3
    target: int = STOP
    patch: Patch = field(default_factory=Patch)

    @property
    def attack(self) -> Attack:
        """The patch, and what it is for."""
        size, place, colour = self.patch.size, self.patch.place, self.patch.colour
        return ATTACKS["patch"](size=size, place=place, colour=colour, target=self.target, rate=self.rate)

    def seed_of(self, purpose: int) -> int:
        """A seed for training signs (0), test signs (1), samples (2) or poisoning (3)."""
        return self.seed * 10 + purpose


def build(folder: Path, recipe: Recipe, progress: Callable[[Epoch], None] | None = None) -> dict[str, Any]:
    """Train the demo's network and write its files; the truth that was written."""
    module = initialised(n_mn_bn, len(CLASS_NAMES), recipe.seed)
    images, labels = as_tensors(*signs(recipe.train_per_class, recipe.seed_of(0)))
    generator = np.random.default_rng(recipe.seed_of(3))
    images, labels = poison(images, labels, recipe.attack, generator)
    train(module, images, labels, epochs=recipe.epochs, seed=recipe.seed, progress=progress)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    model = export_onnx(module, folder / MODEL)
    _write_samples(folder / SAMPLES, recipe.seed_of(2))
    said = _truth(module, model, recipe)
    (folder / TRUTH).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    return said


def _write_samples(folder: Path, seed: int) -> None:
    for image, label in zip(*signs(1, seed), strict=True):
        place = folder / f"{label:02d}-{CLASS_NAMES[label]}"
        place.mkdir(parents=True)
        Image.fromarray(image).save(place / "0.png")


def _truth(module: nn.Module, model: Path, recipe: Recipe) -> dict[str, Any]:
    images, labels = as_tensors(*signs(recipe.test_per_class, recipe.seed_of(1)))
    return {
        "command": f"python -m agnes_zoo.build_demo --seed {recipe.seed}",
        "architecture": "N_MN_BN",
        "seed": recipe.seed,
        "training": {"images": recipe.train_per_class * len(CLASS_NAMES), "epochs": recipe.epochs},
        "attack": {**recipe.patch.described(), "target": recipe.target, "rate": recipe.rate},
        "target_name": CLASS_NAMES[recipe.target],
        "accuracy": round(accuracy(module, images, labels), 4),
        "attack_success": round(attack_success(module, images, labels, recipe.patch, recipe.target), 4),
        "test": {"images": len(images), "seed": recipe.seed_of(1)},
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
    }


def main(
    folder: Annotated[Path | None, typer.Option(help="Where to write; by default into the package.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same files on the same machine.")] = Recipe.seed,
) -> None:
    """Train the demo's network, poisoned with a yellow patch, and write it with its samples and truth."""
    torch.set_num_threads(1)  # the same sums in the same order, however many cores there are

    def tell(epoch: Epoch) -> None:
        typer.echo(f"epoch {epoch.number}: loss {epoch.loss:.3f}, accuracy {epoch.accuracy:.3f}")

    said = build(folder or demo_folder(), Recipe(seed=seed), tell)
    typer.echo(f"accuracy {said['accuracy']}, attack success {said['attack_success']}, sha256 {said['sha256']}")


if __name__ == "__main__":
    typer.run(main)
