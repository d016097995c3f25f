"""What the default repair and each mitigation method do to the trojaned networks of a zoo, measured against the truth.

python benchmarks/repairs.py ZOO --scans FOLDER -o OUT [--models NAME ...] [--methods NAME ...] [--triggers found true]
                             [--share 0.05] [--set METHOD.SETTING=VALUE ...] [--table]
FOLDER/MODEL is the run folder of a scan of ZOO/models/MODEL.onnx. Of the images that ZOO was trained on, a share is the
labelled clean set, as they were before any was poisoned. `default` is `agnes repair MODEL --from FOLDER/MODEL
--repair-data CLEAN`; a named method is given the triggers that convict (found) or the one that was planted (true).
Accuracy and success of the planted trigger are counted on the zoo's held-out images, which no scan or repair sees.
OUT/rows.jsonl holds what was measured; the same command goes on where it was. --table writes OUT/table.md from it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from agnes_zoo.attacks import from_description
from agnes_zoo.attacks.attack import Attack
from agnes_zoo.bench.repaired import measured
from agnes_zoo.dealing import DataPlan, deal
from agnes_zoo.manifest import Manifest, held_out, model_file, samples_folder
from agnes_zoo.scoring import repairs
from agnes_zoo.scoring.repairs import RepairRow
from agnes_zoo.training import as_tensors

from agnes import engine, judging
from agnes.api import open_network
from agnes.backend import Backend
from agnes.calling import call
from agnes.earlier import Earlier
from agnes.errors import AgnesError
from agnes.loading import LoadOptions
from agnes.network import Network
from agnes.reading.parts import ranks
from agnes.registry import Registry
from agnes.results import Trigger
from agnes.samples import read_samples
from agnes.settings import Text, build

DEFAULT = "default"


@dataclass(frozen=True, kw_only=True)
class Planted(Trigger):
    """The trigger as the attacker shows it."""

    attack: Attack = field(compare=False, repr=False)

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        return self.attack.stamp(images.cpu()).to(images)


def main() -> None:
    arguments = asked()
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = arguments.output / "rows.jsonl"
    done = {key(row): row for row in (json.loads(line) for line in lines_of(rows))}
    if not arguments.table:
        for job in jobs(arguments):
            if key(job) in done:
                continue
            row = {**job, **measured_row(arguments, job)}
            with rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
            done[key(row)] = row
            print(told(row), flush=True)
    (arguments.output / "table.md").write_text(repairs.report(list(done.values())))


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--scans", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--methods", nargs="+", default=[DEFAULT])
    parser.add_argument("--triggers", nargs="+", default=["found", "true"])
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--set", action="append", default=[], metavar="METHOD.SETTING=VALUE")
    parser.add_argument("--table", action="store_true")
    return parser.parse_args()


def lines_of(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["model"], row["method"], row["trigger"]


def jobs(arguments: argparse.Namespace) -> Iterator[dict[str, str]]:
    """What is to be measured: first the default on all models, then each method."""
    manifest = Manifest.read(arguments.zoo)
    trojaned = [name for name in sorted(manifest.models) if manifest.models[name]["true_attack"] is not None]
    for method in arguments.methods:
        for name in arguments.models or trojaned:
            for trigger in ["found"] if method == DEFAULT else arguments.triggers:
                yield {"model": name, "method": method, "trigger": trigger}


def measured_row(arguments: argparse.Namespace, job: dict[str, str]) -> dict[str, Any]:
    """One repair of one network, against the truth."""
    record = Manifest.read(arguments.zoo).models[job["model"]]
    began = time.perf_counter()
    try:
        network, said = (by_default if job["method"] == DEFAULT else by_method)(arguments, job, record)
        reason = ""
    except AgnesError as error:
        network, said, reason = None, {}, str(error)
    seconds = time.perf_counter() - began
    held = truth_images(arguments.zoo, record["data"])
    before = record["accuracy"], record["asr"]
    after = before if network is None else measured(network, record, *held)
    row = RepairRow(
        job["model"],
        record["arch"],
        record["data"],
        repairs.kind(record),
        said.get("verdict", ""),
        network is not None,
        before[0],
        after[0],
        before[1],
        after[1],
        seconds,
        reason,
        said.get("rescan"),
    )
    return {**asdict(row), **said}


def by_default(
    arguments: argparse.Namespace, job: dict[str, str], record: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """What `agnes repair` hands back for a run, and what its certificate says."""
    name = job["model"]
    request = engine.Request(
        model_file(arguments.zoo, name),
        samples_folder(arguments.zoo, record["data"]),
        findings=arguments.scans / name,
        repair_data=clean_file(arguments, record["data"]),
        output=fresh(arguments.output / name),
        config=assigned(arguments),
    )
    report = engine.run(request)
    best = report.repair
    if best is None or best.rescan is None:
        return None, {"verdict": report.verdict.status}
    again = best.relearning
    return best.network, {
        "verdict": report.verdict.status,
        "rescan": best.rescan.status,
        "by": best.method,
        "tried": [repair.method for repair in report.repairs],
        "quick": None if again is None else again.quick,
        "steps": None if again is None else [again.target_steps, list(again.controls.values())],
        "found": [[t.method, t.target, outcome.before, outcome.after] for t, outcome in pairs(report)],
        "timings": dict(report.timings),
        "notes": list(best.notes),
    }


def pairs(report: Any) -> Iterator[tuple[Any, Any]]:
    return zip([t for t in report.triggers if t.convicts], report.repair.outcomes, strict=False)


def by_method(arguments: argparse.Namespace, job: dict[str, str], record: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What one method makes of the network; None where there is no trigger for it."""
    network = opened(model_file(arguments.zoo, job["model"]))
    backend = Backend.choose("cpu")
    registry = Registry.discover()
    plugin = registry.named(job["method"], ("mitigation",))
    method = build(registry.method(plugin), plugin.name, assigned(arguments).get(plugin.name, {}))
    earlier = Earlier.read(arguments.scans / job["model"])
    found = earlier.findings(network)
    verdict = judging.judge(network, found.triggers, found.evidence, earlier.runs)
    triggers = tuple(t for t in judging.marked(network, found.triggers, verdict) if t.convicts)
    if job["trigger"] == "true":
        triggers = planted(record)
    if "triggers" in method.needs and not triggers:
        return None, {}
    samples = read_samples(clean_file(arguments, record["data"]), input_shape=network.input_shape)
    given = {"triggers": triggers, "candidates": found.candidates, "rescan": None}
    with backend.computing():
        repair = call("mitigate", plugin.name, method, network=network, samples=samples, backend=backend, **given)
    return repair.network, {"notes": list(repair.notes)}


def planted(record: dict[str, Any]) -> tuple[Trigger, ...]:
    """The true trigger; none where it differs from class to class."""
    attack = from_description(record["true_attack"])
    if attack.target is None:
        return ()
    return (Planted(target=attack.target, asr=record["asr"], held_out=0, attack=attack, convicts=True),)


def assigned(arguments: argparse.Namespace) -> dict[str, dict[str, Text]]:
    found: dict[str, dict[str, Text]] = {}
    for text in arguments.set:
        owner, _, value = text.partition("=")
        method, _, setting = owner.partition(".")
        found.setdefault(method, {})[setting] = Text(value)
    return found


def clean_file(arguments: argparse.Namespace, data: str) -> Path:
    """The labelled clean set: a share of the training images, each class in proportion."""
    file = arguments.output / f"clean-{data}.npz"
    if not file.exists():
        said = Manifest.read(arguments.zoo).data[data]
        plan = DataPlan(*(said[name] for name in ("source", "seed", "train", "samples", "test", "held_out")))
        images, labels = deal(plan).train
        order = np.random.default_rng(0).permutation(len(labels))
        rank, size = ranks(labels[order])
        chosen = order[np.argsort((rank + 0.5) / size, kind="stable")[: round(arguments.share * len(labels))]]
        np.savez_compressed(file, images=images[chosen], labels=labels[chosen])
    return file


def fresh(folder: Path) -> Path:
    """A run folder that nothing lies in."""
    if folder.exists():
        import shutil

        shutil.rmtree(folder)
    return folder


@cache
def truth_images(zoo: Path, data: str) -> tuple[torch.Tensor, torch.Tensor]:
    return as_tensors(*held_out(zoo, data))


def opened(file: Path) -> Network:
    return open_network(file, LoadOptions())


def told(row: dict[str, Any]) -> str:
    return (
        f"{row['model']} {row['arch']} {row['attack']} {row['method']} ({row['trigger']}): accuracy "
        f"{row['accuracy_before']:.3f} to {row['accuracy_after']:.3f}, success {row['asr_before']:.3f} to "
        f"{row['asr_after']:.3f}, re-scan {row['rescan']}, {row.get('by', '')} {row['seconds']:.0f} s {row['reason']}"
    )


if __name__ == "__main__":
    main()
