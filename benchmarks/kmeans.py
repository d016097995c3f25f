"""k-means of agnes-abstraction against scikit-learn's: seconds, and how near the clusters lie to their centres.

python benchmarks/kmeans.py [--quick] [--rounds N] [--json]

Both are run in turn in one process with the same threads, on activations as a layer gives them: mixtures of a few
features with noise, cut off at zero. scikit-learn's runs once from k-means++ (n_init=1), all else as it comes.
"""

import argparse
import json
import statistics
import time

import torch
from agnes_abstraction.clustering import cluster, to_own_centre

from agnes.backend import Backend

SHAPES = {  # neurons, images, clusters
    "20,000 x 200, k = 2,000": (20_000, 200, 2_000),
    "8,000 x 5,000, k = 800": (8_000, 5_000, 800),
}
QUICK = {
    "5,000 x 200, k = 500": (5_000, 200, 500),
    "2,000 x 2,000, k = 200": (2_000, 2_000, 200),
}
FEATURES = 24


def activations(neurons: int, images: int, seed: int) -> torch.Tensor:
    """One row for each neuron."""
    generator = torch.Generator().manual_seed(seed)
    answers = torch.randn(neurons, FEATURES, generator=generator) / FEATURES**0.5
    features = torch.randn(FEATURES, images, generator=generator)
    return torch.relu(answers @ features + 0.5 * torch.randn(neurons, images, generator=generator))


def ours(points: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    backend = Backend.choose("cpu", seed=seed)
    generator = backend.generator("benchmark", device="cpu")
    return cluster(points, count, rounds=8, projection=64, generator=generator, backend=backend)


def theirs(points: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    from sklearn.cluster import KMeans

    return torch.from_numpy(KMeans(count, n_init=1, random_state=seed).fit(points.numpy()).labels_).long()


def timed(method, points: torch.Tensor, count: int, seed: int) -> tuple[float, float]:
    """Seconds and inertia."""
    started = time.perf_counter()
    labels = method(points, count, seed)
    seconds = time.perf_counter() - started
    return seconds, float(to_own_centre(points, labels).sum(dtype=torch.float64))


def measure(shape: tuple[int, int, int], rounds: int) -> dict[str, float]:
    """Medians of some rounds, each on other activations and with another seed."""
    neurons, images, count = shape
    warm = activations(300, 50, 99)
    for method in (ours, theirs):
        method(warm, 30, 0)
    runs: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
    for seed in range(rounds):
        points = activations(neurons, images, seed)
        runs["ours"].append(timed(ours, points, count, seed))
        runs["theirs"].append(timed(theirs, points, count, seed))
    seconds = {name: statistics.median(run[0] for run in taken) for name, taken in runs.items()}
    inertia = [mine[1] / other[1] for mine, other in zip(runs["ours"], runs["theirs"], strict=True)]
    return {
        "ratio": round(seconds["theirs"] / seconds["ours"], 1),
        "inertia": round(statistics.median(inertia), 4),
        "worst_inertia": round(max(inertia), 4),
        "seconds": round(seconds["ours"], 2),
        "sklearn_seconds": round(seconds["theirs"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller shapes, under a minute")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = {name: measure(shape, arguments.rounds) for name, shape in (QUICK if arguments.quick else SHAPES).items()}
    found["setting"] = {"quick": arguments.quick, "rounds": arguments.rounds, "threads": torch.get_num_threads()}
    if arguments.json:
        print(json.dumps(found))
        return
    if arguments.quick:
        print("quick: smaller shapes than those of docs/performance.md")
    for name, row in found.items():
        print(f"{name:<26} " + "  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
