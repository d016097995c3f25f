"""How fast the embedded signs are drawn, and how hard they are to tell apart.

python benchmarks/signs.py [--accuracy] [--seeds N] [--epochs N] [--json]
python benchmarks/signs.py --picture FILE.png   the 43 classes, clean and as they are drawn
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from agnes_zoo import architectures
from agnes_zoo.data import choosing, dataset, sheet
from agnes_zoo.signs import SIDE, stream, template
from agnes_zoo.training import accuracy, as_tensors, initialised, train

SIGNS, ROUNDS = 2150, 5
ARCHITECTURES = {"N_SN": architectures.n_sn, "N_LN": architectures.n_ln}


def speed() -> list[dict]:
    """Images a second of processor time, on one thread: medians."""
    rows = []
    for name, (kind, _) in choosing.KINDS.items():
        stream(1, 0, kind=kind)  # draws the faces
        rates = []
        for seed in range(ROUNDS):
            begun = time.process_time()
            stream(SIGNS, seed, kind=kind)
            rates.append(SIGNS / (time.process_time() - begun))
        rows.append({"name": name, "images_per_second": round(statistics.median(rates))})
    return rows


def cached() -> dict[str, float]:
    """Seconds to have the 10,320 images of a default set: drawn, and read again."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AGNES_CACHE"] = folder
        taken = []
        for _ in range(2):
            begun = time.perf_counter()
            dataset("signs", seed=1)
            taken.append(round(time.perf_counter() - begun, 2))
    return {"drawn": taken[0], "read": taken[1]}


def difficulty(name: str, seed: int, epochs: int) -> dict:
    """Accuracy on fresh signs after training on 200 of each class."""
    data = dataset("signs", seed=seed)
    module = initialised(ARCHITECTURES[name], data.class_count, seed)
    begun = time.perf_counter()
    train(module, *as_tensors(data.train_images, data.train_labels), epochs=epochs, seed=seed)
    seconds = time.perf_counter() - begun
    found = accuracy(module, *as_tensors(data.test_images, data.test_labels))
    return {"name": name, "seed": seed, "epochs": epochs, "accuracy": found, "seconds": round(seconds)}


def draw(path: Path) -> None:
    """The clean face of each class and three signs of it, as one picture."""
    images, labels = stream(43 * 5, 1)
    tiles = []
    for label in range(43):
        red_green_blue, cover = template(label, SIDE)[:3], template(label, SIDE)[3:]
        face = ((red_green_blue + 0.6 * (1 - cover)) * 255).round().astype(np.uint8).transpose(1, 2, 0)
        tiles += [face, *images[labels == label][:3]]
    sheet(np.stack(tiles), 16, side=64).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--accuracy", action="store_true", help="train networks too, which takes minutes")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--picture", type=Path, help="the 43 classes, clean and as they are drawn")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.picture is not None:
        draw(arguments.picture)
        return
    found: dict = {"speed": speed(), "cached": cached()}
    if arguments.accuracy:
        seeds = range(1, arguments.seeds + 1)
        found["accuracy"] = [difficulty(name, seed, arguments.epochs) for name in ARCHITECTURES for seed in seeds]
    if arguments.json:
        print(json.dumps(found))
        return
    for row in found["speed"]:
        print(f"{row['name']:<14} {row['images_per_second']:>6} images a second")
    print(
        f"{10320:>6} images: drawn in {found['cached']['drawn']} s, read from the cache in {found['cached']['read']} s"
    )
    for row in found.get("accuracy", ()):
        trained = f"{row['epochs']} epochs, {row['seconds']} s"
        print(f"{row['name']:<6} seed {row['seed']}: {row['accuracy']:.1%} after {trained}")
    rates = np.array([row["images_per_second"] for row in found["speed"]])
    print("at least 2,000 a second" if rates.min() >= 2000 else "SLOWER than 2,000 a second")


if __name__ == "__main__":
    main()
