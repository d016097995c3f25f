"""How long `agnes --help` and `agnes plugins` take with a plugin installed that needs three seconds to import.

python benchmarks/startup.py [--rounds N] [--json]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "agnes --help": ["-m", "agnes", "--help"],
    "agnes plugins": ["-m", "agnes", "plugins"],
    "agnes plugins --json": ["-m", "agnes", "plugins", "--json"],
    "agnes run --help": ["-m", "agnes", "run", "--help"],
}


def install_slow_plugin(folder: Path) -> None:
    """A distribution on the path whose module sleeps when imported."""
    (folder / "agnes_slow.py").write_text("import time\ntime.sleep(3)\n")
    info = folder / "agnes_slow-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: agnes-slow\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[agnes.stimulation]\nsleeper = agnes_slow:Sleeper\n")


def measure(rounds: int) -> dict[str, float]:
    """Median seconds of each command, the commands taken in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        install_slow_plugin(Path(folder))
        environment = {**os.environ, "PYTHONPATH": folder}
        for _ in range(rounds + 1):
            for name, arguments in COMMANDS.items():
                started = time.perf_counter()
                subprocess.run([sys.executable, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)
                seconds[name].append(time.perf_counter() - started)
    return {name: round(statistics.median(taken[1:]), 3) for name, taken in seconds.items()}  # the first warms the disk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.rounds)
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, taken in found.items():
            print(f"{name:<22} {taken:.3f} s")


if __name__ == "__main__":
    main()
