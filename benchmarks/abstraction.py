"""How much of FC1, FC2 and FC3 deepabstract merges away, on networks trained here, beside the paper's rates.

python benchmarks/abstraction.py [--network NAME] [--source DATA] [--attack NAME] [--epochs N] [--quick] [--json]

`rate_not_shared` is with `shared=false`: the first layers may spend all of the drop. The accuracy before and after is
measured twice: on the images that the search measured itself with, and on images it never saw.
`--quick` trains FC1 alone, for few epochs; its rates are no figures to compare.
"""

import argparse
import json
import time
from dataclasses import replace

import torch
from agnes_abstraction.deepabstract import DeepAbstract
from agnes_zoo.dealing import DataPlan, Images, deal
from agnes_zoo.making import Plan, make
from agnes_zoo.training import Regime, as_tensors

from agnes.backend import Backend
from agnes.measuring import accuracy
from agnes.network import Network
from agnes.results import Representatives
from agnes.samples import Samples

PAPER = {"FC1": 0.35, "FC2": 0.45, "FC3": 0.50}  # AGNES, section 5.1, at an accuracy drop of 5 %


def samples_of(images: Images, test: Samples | None = None) -> Samples:
    return Samples(*as_tensors(*images), test=test)


def rate(network: Network, found: Representatives) -> float:
    """The share of neurons merged away."""
    left = sum(len(sources) for sources in found.sources.values())
    return round(1 - left / sum(layer.neurons for layer in network.layers), 3)


def measure(name: str, data: DataPlan, regime: Regime, attack: str | None, drop: float) -> dict[str, object]:
    """Train one network, merge its layers, and count what is left."""
    started = time.perf_counter()
    module = make(Plan(name, data, regime, attack)).module.eval()
    trained = time.perf_counter() - started
    dealt, backend = deal(data), Backend.choose("cpu", seed=regime.seed)
    network = Network.of(module, dealt.shape, class_names=dealt.class_names)
    searched, unseen = samples_of(dealt.test), samples_of(dealt.held_out)
    started = time.perf_counter()
    given = samples_of(dealt.train, searched)
    method = DeepAbstract(accuracy_drop=drop, time_limit=1e9)
    found = method.abstract(network=network, samples=given, backend=backend)
    seconds = time.perf_counter() - started
    greedy = replace(method, shared=False).abstract(network=network, samples=given, backend=backend)
    made = found.abstract_network
    assert made is not None
    layers = {layer.name: 1 - len(found.sources[layer.name]) / layer.neurons for layer in network.layers}
    return {
        "rate": rate(network, found),
        "rate_not_shared": rate(network, greedy),
        "paper": PAPER.get(name),
        "layers": {layer: round(rate, 3) for layer, rate in layers.items()},
        "searched": [round(accuracy(n, searched, backend)[0] or 0, 4) for n in (network, made)],
        "unseen": [round(accuracy(n, unseen, backend)[0] or 0, 4) for n in (network, made)],
        "images": [min(method.images, len(searched)), len(unseen)],
        "seconds": round(seconds, 1),
        "training_seconds": round(trained, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--network", choices=list(PAPER), action="append", help="only this one")
    parser.add_argument("--source", default="signs", help="a data set that agnes-zoo knows, or its path")
    parser.add_argument("--attack", default="red-pixel", help="RP of AGNES; none: a clean network")
    parser.add_argument("--drop", type=float, default=0.05, help="of accuracy, for the whole network")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="the highest of the schedule")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="under a minute: FC1 alone, five epochs on 4,300 images")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    told = parser.parse_args()
    torch.set_num_threads(1)
    data = DataPlan(told.source, 500 + told.seed, 4300 if told.quick else None, samples=1, test=20, held_out=40)
    regime = Regime(epochs=5 if told.quick else told.epochs, learning_rate=told.learning_rate, seed=told.seed)
    names = told.network or (["FC1"] if told.quick else list(PAPER))
    attack = None if told.attack == "none" else told.attack
    results = {}
    for name in names:
        results[name] = measure(name, data, regime, attack, told.drop)
        if not told.json:
            print(f"{name}: {json.dumps(results[name])}", flush=True)
    if told.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
