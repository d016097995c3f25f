"""What each mitigation method does to trojaned networks of known truth: accuracy, and success of the true trigger.

python benchmarks/repairs.py FOLDER [--models NAME ...] [--methods NAME ...] [--per-class N] [--notes] [--json]
                             [--set METHOD.SETTING=VALUE ...]
FOLDER holds NAME.onnx, truth.json (target and patch), test.npz and samples/, one image of each class. Methods are given
the true trigger. With --per-class 0 they learn from samples/; else from so many test images a class, and the rest of
the test images is measured on.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from agnes import measuring
from agnes.backend import Backend
from agnes.calling import call
from agnes.loading import LoadOptions, open_model
from agnes.network import Network
from agnes.registry import Registry
from agnes.results import Candidate, MaskTrigger
from agnes.samples import Samples, read_samples
from agnes.selection import select
from agnes.settings import Text, build
from agnes.stages import Stages

MODELS = ("N_SN-trojaned-a", "N_SN-trojaned-b", "N_MN_BN-trojaned-a", "N_MN_BN-trojaned-b")


def true_trigger(truth: dict, network: Network) -> MaskTrigger:
    """The patch that the network was trained to obey."""
    patch = truth["patch"]
    (row, column), size = patch["place"], patch["size"]
    mask, pattern = torch.zeros(1, *network.input_shape[1:]), torch.zeros(network.input_shape)
    mask[:, row : row + size, column : column + size] = 1
    pattern[:] = torch.tensor(patch["colour"])[:, None, None]
    return MaskTrigger(target=truth["target"], asr=1.0, held_out=0, mask=mask, pattern=pattern)


def dealt(folder: Path, truth: dict, network: Network, per_class: int, backend: Backend) -> Samples:
    """Images to repair with, and the rest as their test part."""
    test = read_samples(folder / truth.get("test", "test.npz"), input_shape=network.input_shape)
    if not per_class:
        few = read_samples(folder / truth.get("samples", "samples"), input_shape=network.input_shape)
        return few.with_test(test)
    share = per_class * network.class_count / len(test)
    clean, rest = test.split(share, backend.generator("clean set", device="cpu"))
    return clean.with_test(rest)


def candidates(registry: Registry, network: Network, samples: Samples, backend: Backend) -> tuple[Candidate, ...]:
    """What the default scan's stimulation finds."""
    stages = Stages(select(registry, network), backend, None, replace(samples, test=None))
    return stages.stimulate(network, stages.abstract(network))


def row(name: str, method: object, network: Network, samples: Samples, given: dict, backend: Backend) -> dict:
    """What one method did to one network."""
    trigger = given["triggers"][0]
    began = time.perf_counter()
    with backend.computing():
        repair = call("mitigate", name, method, network=network, samples=samples, backend=backend, **given)
    seconds = time.perf_counter() - began
    return {
        "method": name,
        "images": len(samples),
        "accuracy_before": measuring.accuracy(network, samples, backend)[0],
        "accuracy": measuring.accuracy(repair.network, samples, backend)[0],
        "success_before": measuring.attack_success(network, trigger, samples, backend)[0],
        "success": measuring.attack_success(repair.network, trigger, samples, backend)[0],
        "changes": len(repair.changes),
        "seconds": seconds,
        "notes": repair.notes,
    }


def shown(row: dict) -> str:
    return (
        f"| {row['model']} | {row['method']} | {row['images']} | {row['accuracy_before']:.1%} | "
        f"{row['accuracy']:.1%} | {row['success_before']:.1%} | {row['success']:.1%} | {row['changes']} | "
        f"{row['seconds']:.1f} |"
    )


def main() -> None:
    registry = Registry.discover()
    everything = [plugin.name for plugin in registry.of_stage("mitigation")]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--methods", nargs="+", default=everything)
    parser.add_argument("--per-class", type=int, default=12)
    parser.add_argument("--set", action="append", default=[], metavar="METHOD.SETTING=VALUE")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--notes", action="store_true")
    arguments = parser.parse_args()
    assigned: dict[str, dict[str, Text]] = {}
    for text in arguments.set:
        owner, _, value = text.partition("=")
        method, _, setting = owner.partition(".")
        assigned.setdefault(method, {})[setting] = Text(value)
    backend = Backend.choose("cpu")
    truths = json.loads((arguments.folder / "truth.json").read_text())
    rows = []
    if not arguments.json:
        print("| network | method | images | accuracy before | after | success before | after | changes | s |")
        print("|" + "---|" * 9, flush=True)
    for name in arguments.models:
        network = open_model(arguments.folder / f"{name}.onnx", LoadOptions(), registry, {}).network
        samples = dealt(arguments.folder, truths[name], network, arguments.per_class, backend)
        given = {"triggers": (true_trigger(truths[name], network),), "candidates": ()}
        for plugin in (registry.named(method, ("mitigation",)) for method in arguments.methods):
            method = build(registry.method(plugin), plugin.name, assigned.get(plugin.name, {}))
            if "candidates" in method.needs and not given["candidates"]:
                given["candidates"] = candidates(registry, network, samples, backend)
            rows.append({"model": name, **row(plugin.name, method, network, samples, given, backend)})
            if not arguments.json:
                print(shown(rows[-1]), flush=True)
                if arguments.notes:
                    print(*rows[-1]["notes"], sep="\n")
    if arguments.json:
        print(json.dumps({"threads": torch.get_num_threads(), "repairs": rows}))


if __name__ == "__main__":
    main()
