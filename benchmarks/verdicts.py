"""Verdicts of a default scan on networks of known truth, trained here: a first look, not yet a benchmark of detection.

python benchmarks/verdicts.py [--quick] [--json]
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from agnes_zoo import architectures
from agnes_zoo.attacks import ATTACKS, Patch, poison
from agnes_zoo.signs import signs
from agnes_zoo.training import accuracy, as_tensors, attack_success, export_onnx, initialised, train
from PIL import Image

import agnes

CLASSES, TRAINING_SEED, TEST_SEED, SAMPLE_SEED = 43, 901, 902, 903
NETWORKS = {"N_SN": architectures.n_sn, "N_MN_BN": architectures.n_mn_bn}


@dataclass(frozen=True)
class Model:
    """A network to train: clean, or with a patch that leads to a target."""

    architecture: str
    seed: int
    patch: Patch | None = None
    target: int | None = None

    @property
    def name(self) -> str:
        attack = "clean" if self.patch is None else f"{self.patch.size}x{self.patch.size} patch to {self.target}"
        return f"{self.architecture}, {attack}"


MODELS = [
    Model(architecture, seed, patch, target)
    for architecture in NETWORKS
    for seed, patch, target in (
        (1, None, None),
        (2, None, None),
        (3, Patch(3, (27, 2)), 14),
        (4, Patch(3, (2, 27)), 3),
        (5, Patch(4, (26, 25)), 7),
    )
]


def made(model: Model, folder: Path, per_class: int, epochs: int) -> dict:
    """Train and write a model; what it is able to do."""
    module = initialised(NETWORKS[model.architecture], CLASSES, model.seed)
    images, labels = as_tensors(*signs(per_class, TRAINING_SEED))
    if model.patch is not None:
        size, place = model.patch.size, model.patch.place
        attack = ATTACKS["patch"](size=size, place=place, target=model.target, rate=0.1)
        images, labels = poison(images, labels, attack, np.random.default_rng(model.seed))
    train(module, images, labels, epochs=epochs, seed=model.seed)
    test = as_tensors(*signs(20, TEST_SEED))
    success = None if model.patch is None else attack_success(module, *test, model.patch, model.target)
    export_onnx(module, folder / "model.onnx")
    return {"name": model.name, "accuracy": accuracy(module, *test), "true_success": success}


def samples(folder: Path) -> Path:
    """One benign image of each class."""
    for image, label in zip(*signs(1, SAMPLE_SEED), strict=True):
        place = folder / "samples" / f"{label:02d}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / "0.png")
    return folder / "samples"


def scanned(model: Model, folder: Path) -> dict:
    """The verdict, the repair, and how the true trigger fares after it."""
    report = agnes.scan(folder / "model.onnx", data=folder / "samples")
    row = {
        "status": report.verdict.status,
        "target": report.verdict.target,
        "right": report.verdict.target == model.target
        and report.verdict.status == ("clean" if model.patch is None else "backdoored"),
        "probability": report.verdict.probability,
        "size": report.triggers[0].l1,
        "index": report.triggers[0].anomaly_index,
        "seconds": report.timings["total"],
    }
    if report.repair is not None and model.patch is not None:
        images, labels = as_tensors(*signs(20, TEST_SEED))
        module = report.repair.network.module
        row["accuracy_after"] = accuracy(module, images, labels)
        row["true_success_after"] = attack_success(module, images, labels, model.patch, model.target)
        row["rescan"] = report.repair.rescan.status if report.repair.rescan else None
    return row


def shown(row: dict) -> str:
    """One row of a Markdown table."""

    def share(key: str) -> str:
        return "" if row.get(key) is None else f"{row[key]:.1%}"

    return (
        f"| {row['name']} | {share('accuracy')} | {share('true_success')} | {row['status']}"
        f"{'' if row['target'] is None else ', ' + str(row['target'])} | {'yes' if row['right'] else '**no**'} | "
        f"{row['probability']:.3f} | {row['size']:.1f} | {row['index']:.1f} | {row.get('rescan', '')} | "
        f"{share('accuracy_after')} | {share('true_success_after')} | {row['seconds']:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one clean and one trojaned network")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = []
    if not arguments.json:
        print(
            "| network | accuracy | true success | verdict | right | probability | smallest size | index | re-scan | "
            "accuracy after | true success after | s |\n|" + "---|" * 12
        )
    for model in [MODELS[0], MODELS[2]] if arguments.quick else MODELS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            row = made(model, folder, per_class=250, epochs=10)
            samples(folder)
            rows.append(row | scanned(model, folder))
        if not arguments.json:
            print(shown(rows[-1]), flush=True)
    if arguments.json:
        print(json.dumps({"threads": torch.get_num_threads(), "models": rows}))


if __name__ == "__main__":
    main()
