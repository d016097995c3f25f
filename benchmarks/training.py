"""How long an epoch on 8,600 signs takes, and what a network reaches: by batch, memory layout and architecture.

python benchmarks/training.py [--quick] [--threads N] [--epochs N] [--json]
"""

import argparse
import json
import time

import torch
from agnes_zoo.dealing import DataPlan, deal
from agnes_zoo.making import Plan, architecture, make
from agnes_zoo.training import Epoch, Regime, Watch, as_tensors, initialised

NETWORKS = ("N_SN", "N_MN", "N_MN_BN", "N_LN")
DATA = DataPlan("signs", 77, samples=1, test=0, held_out=20)
STEPS = 12  # measured, after two that are not


def step_seconds(name: str, batch: int, layout: torch.memory_format) -> float:
    """Of forward, backward and update on one batch."""
    images, labels = as_tensors(*deal(DATA).train)
    module = initialised(architecture(name), 43, 0).to(memory_format=layout).train()
    optimiser = torch.optim.AdamW(module.parameters())
    for step in range(STEPS + 2):
        if step == 2:
            started = time.perf_counter()
        inputs = images[step * batch : (step + 1) * batch].contiguous(memory_format=layout)
        loss = torch.nn.functional.cross_entropy(module(inputs), labels[step * batch : (step + 1) * batch])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return (time.perf_counter() - started) / STEPS


def layouts() -> list[dict]:
    """Seconds an epoch of 8,600 signs would take."""
    rows = []
    for name in NETWORKS:
        for batch in (64, 128, 256):
            for said, layout in (("rows", torch.contiguous_format), ("channels last", torch.channels_last)):
                seconds = step_seconds(name, batch, layout) * 8600 / batch
                rows.append({"network": name, "batch": batch, "layout": said, "epoch_seconds": round(seconds, 1)})
    return rows


def whole(name: str, epochs: int) -> dict:
    """A training as `agnes zoo train` does it."""
    ends, spent = [], []

    def ended(epoch: Epoch) -> None:
        ends.append(time.perf_counter())
        spent.append(time.process_time())

    plan = Plan(name, DATA, Regime(epochs=epochs, batch=64, seed=7))
    deal(DATA)
    started, before = time.perf_counter(), time.process_time()
    done = make(plan, watch=Watch(epoch=ended))
    return {
        "network": name,
        "epochs": epochs,
        "seconds": round(ends[-1] - started, 1),
        "processor_seconds": round(spent[-1] - before, 1),
        "accuracy": round(done.truth["accuracy"], 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="whole trainings only, of two networks")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    found = {
        "threads": torch.get_num_threads(),
        "layouts": [] if arguments.quick else layouts(),
        "trainings": [whole(name, arguments.epochs) for name in (("N_SN", "N_MN") if arguments.quick else NETWORKS)],
    }
    if arguments.json:
        print(json.dumps(found))
        return
    print(f"{found['threads']} threads")
    for row in (*found["layouts"], *found["trainings"]):
        print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
