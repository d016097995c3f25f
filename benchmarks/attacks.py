"""Every attack of the zoo on one small network: accuracy, and how often the attack succeeds.

python benchmarks/attacks.py [NAME ...] [--arch N_SN_BN] [--per-class 120] [--epochs 10] [--few] [--json]
python benchmarks/attacks.py [NAME ...] --picture FILE.png   trains the clean network alone
NAME may carry options: wanet:strength=2
"""

import argparse
import copy
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from agnes_zoo.attacks import ATTACKS, Attack, find, overview, poison, success
from agnes_zoo.signs import CLASS_NAMES, signs
from agnes_zoo.training import Regime, Training, as_tensors, initialised, predictions
from torch import nn

from agnes.registry import Registry

TRAINING_SEED, TEST_SEED = 901, 902
FEW = (1, 12, 13, 14, 17, 18, 25, 33, 35, 40)  # classes that look unlike each other


@dataclass
class Bench:
    """One network's architecture and the signs it is trained and tested on."""

    make: Callable[[int], nn.Module]
    per_class: int
    regime: Regime
    few: bool  # of the 43 classes
    _clean: list[nn.Module] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.images, self.labels = self._signs(self.per_class, TRAINING_SEED)
        self.test, self.test_labels = self._signs(20, TEST_SEED)

    def _signs(self, per_class: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = as_tensors(*signs(per_class, seed))
        wanted = torch.isin(labels, torch.tensor(FEW)) if self.few else torch.ones_like(labels, dtype=torch.bool)
        return images[wanted], labels[wanted]

    def clean(self) -> nn.Module:
        """A network without a backdoor, trained once."""
        if not self._clean:
            module = initialised(self.make, len(CLASS_NAMES), 7)
            Training(module, self.images, self.labels, self.regime).run()
            self._clean.append(module)
        return self._clean[0]

    def attacked(self, attack: Attack) -> tuple[nn.Module, Attack]:
        """A network with the attack's backdoor, and the attack as it was after the training."""
        fresh = initialised(self.make, len(CLASS_NAMES), 1)
        module = copy.deepcopy(self.clean()) if attack.fine_tunes else fresh
        images, labels = self.images, self.labels
        if not attack.dynamic:
            images, labels = poison(images, labels, attack, np.random.default_rng(5))
        training = Training(module, images, labels, self.regime, attack, self.images)
        training.run()
        return module, training.attack or attack

    def row(self, text: str) -> dict:
        """What one attack did."""
        began = time.perf_counter()
        prepared = parsed(text).prepare(self.clean, self.images, self.labels, 3)
        module, attack = self.attacked(prepared)
        stamped = attack.stamp(self.test, self.test_labels)
        said = {
            "attack": text,
            "rate": attack.rate,
            "accuracy": float((predictions(module, self.test) == self.test_labels).float().mean()),
            "success": success(predictions(module, stamped), self.test_labels, attack),
            "on_clean": success(predictions(self.clean(), stamped), self.test_labels, attack),
            "crossed": self._crossed(module, attack) if attack.learns else None,
        }
        return said | {"seconds": time.perf_counter() - began}

    def _crossed(self, module: nn.Module, attack: Attack) -> float:
        """Accuracy on images that wear the trigger of another."""
        mixed = torch.from_numpy(np.random.default_rng(6).permutation(len(self.test)))
        worn = attack.trigger.cover(self.test[mixed], np.random.default_rng(0))
        return float((predictions(module, worn) == self.test_labels[mixed]).float().mean())


def parsed(text: str) -> Attack:
    """NAME or NAME:option=value,option=value with values as JSON or plain words."""
    name, _, options = text.partition(":")
    given = {}
    for pair in filter(None, options.split(",")):
        option, _, value = pair.partition("=")
        try:
            given[option] = json.loads(value)
        except json.JSONDecodeError:
            given[option] = value
    return find(name)(**given)


def draw(bench: Bench, names: Sequence[str], path: Path) -> None:
    """Every attack on the same signs, as one picture."""
    prepared = [parsed(name).prepare(bench.clean, bench.images, bench.labels, 3) for name in names]
    attacks = [bench.attacked(attack)[1] if attack.learns else attack for attack in prepared]
    chosen = [1, 12, 17, 25, 38]
    page = overview(attacks, bench.test[chosen], bench.test_labels[chosen])
    page.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=list(ATTACKS))
    parser.add_argument("--arch", default="N_SN_BN")
    parser.add_argument("--per-class", type=int, default=120)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--few", action="store_true", help="ten classes instead of 43")
    parser.add_argument("--picture", type=Path, help="every attack on the same signs, as one picture")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plugins = {plugin.name: plugin for plugin in Registry.discover().of_stage("architecture")}
    bench = Bench(plugins[arguments.arch].load(), arguments.per_class, Regime(arguments.epochs, seed=1), arguments.few)
    if arguments.picture is not None:
        draw(bench, arguments.names, arguments.picture)
        return
    rows = []
    if not arguments.json:
        accuracy = float((predictions(bench.clean(), bench.test) == bench.test_labels).float().mean())
        print(f"clean {arguments.arch}: accuracy {accuracy:.1%}\n")
        print("| attack | rate | accuracy | success | on a clean network | crossed | s |\n|" + "---|" * 7, flush=True)
    for text in arguments.names:
        rows.append(bench.row(text))
        row = rows[-1]
        if not arguments.json:
            crossed = "" if row["crossed"] is None else f"{row['crossed']:.1%}"
            print(
                f"| {text} | {row['rate']:g} | {row['accuracy']:.1%} | {row['success']:.1%} | {row['on_clean']:.1%} | "
                f"{crossed} | {row['seconds']:.0f} |",
                flush=True,
            )
    if arguments.json:
        print(json.dumps({"threads": torch.get_num_threads(), "attacks": rows}))


if __name__ == "__main__":
    main()
