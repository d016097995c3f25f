"""How long each stage of the demo's scan takes, and the most memory the process held.

python benchmarks/demo.py [--rounds N] [--json]
"""

import argparse
import json
import statistics

import torch
from agnes_zoo.demo import demo_files

import agnes


def measure(rounds: int) -> dict[str, float]:
    """Median seconds of each stage over some scans."""
    files = demo_files()
    taken: dict[str, list[float]] = {}
    peak = 0
    for _ in range(rounds):
        report = agnes.scan(files.model, data=files.samples)
        for stage, seconds in report.timings.items():
            taken.setdefault(stage, []).append(seconds)
        peak = report.environment["peak_memory"]
    medians = {stage: round(statistics.median(seconds), 1) for stage, seconds in taken.items()}
    return {**medians, "peak_memory_mib": round(peak / 2**20), "threads": torch.get_num_threads()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.rounds)
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:<16} {value}")


if __name__ == "__main__":
    main()
