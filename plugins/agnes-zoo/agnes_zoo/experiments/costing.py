"""What a table costs: its networks and measurements, and the processor time that such took where they were run.

A measurement is priced in training steps: it takes as long as training its network on so many images. How many is
read from folders of finished tables, and how long an image takes each architecture is measured:

    python -m agnes_zoo.experiments.costing tiny-folder small-folder > agnes_zoo/experiments/costs.json
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from agnes_zoo.dealing import DataPlan
from agnes_zoo.experiments.catalogue import TABLES
from agnes_zoo.experiments.describing import Table
from agnes_zoo.experiments.running import Ask, asks_of
from agnes_zoo.experiments.scales import SCALES, Scale
from agnes_zoo.experiments.store import Store
from agnes_zoo.making import Plan, architecture
from agnes_zoo.training import Regime, Training, Watch, initialised

_CLASSES = 43
_SIGNS_OF_A_CLASS = 200  # where a plan does not say how many images
_BATCH = 32  # images a step, of a measurement of training
_DEARER = {  # the scale `paper`, of which nothing was run, over `small`: from the steps, arms and images of both
    "training": 10.0,  # images
    "neural-cleanse": 50.0,  # 43 classes for 10, 1000 steps for 200, batches of 32 for 16
    "pairs": 8.0,  # 150 steps for 60, and three starts
    "retraining": 6.0,
}
_ELSE_DEARER = 4.0  # two restarts of 200 steps for one of 100, 43 images for 40, 43 classes to test for 10


@functools.cache
def _known() -> Mapping[str, Any]:
    return json.loads(resources.files("agnes_zoo.experiments").joinpath("costs.json").read_text(encoding="utf-8"))


def minutes(tables: Iterable[Table], scale: Scale) -> float:
    """Of one core, for all that these tables ask for; what they share is done once. Without data of the user's."""
    asks = {ask.key: ask for table in tables for ask in asks_of(table, scale, {})}
    plans = {ask.plan.digest: ask.plan for ask in asks.values()}
    seconds = sum(training_seconds(plan) for plan in plans.values())
    return (seconds + sum(measuring_seconds(ask, scale) for ask in asks.values())) / 60


def training_seconds(plan: Plan) -> float:
    """An epoch's images, as often as there are epochs."""
    return _known()["milliseconds"][plan.arch] * images_of(plan.data) * plan.regime.epochs / 1000


def measuring_seconds(ask: Ask, scale: Scale) -> float:
    """As many images as such a measurement was worth."""
    return _known()["milliseconds"][ask.plan.arch] * worth(kind_of(ask), scale.name) / 1000


def worth(kind: str, scale: str) -> float:
    """In images, as measured at that scale or, where nothing was, at the one below it."""
    tiny, small = (_known()["images"].get(name, {}) for name in ("tiny", "small"))
    if scale == "tiny":
        return tiny[kind]
    both = set(tiny) & set(small)
    dearer = sum(small[each] for each in both) / max(sum(tiny[each] for each in both), 1) if both else 1.0
    at_small = small[kind] if kind in small else tiny[kind] * dearer
    return at_small if scale == "small" else at_small * _dearer(kind)


def _dearer(kind: str) -> float:
    return next((factor for word, factor in _DEARER.items() if word in kind), _ELSE_DEARER)


def kind_of(ask: Ask) -> str:
    """What measurements that cost alike have in common."""
    words = (ask.measure, *(ask.settings.get(name, "") for name in ("search", "repair", "inputs")))
    return " ".join(word for word in words if word)


def images_of(data: DataPlan) -> int:
    """The images that a network is trained on in an epoch."""
    classes = 10 if "10" in data.source else _CLASSES
    return _SIGNS_OF_A_CLASS * classes if data.train is None else data.train


def measured(folders: Sequence[Path]) -> dict[str, Any]:
    """All prices, from what the folders hold."""
    asks = {
        (name, ask.key): ask
        for name, scale in SCALES.items()
        for table in TABLES.values()
        for ask in asks_of(table, scale, {})
    }
    milliseconds = {arch: timed(arch) for arch in sorted({ask.plan.arch for ask in asks.values()})}
    spent: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (name, key), ask in asks.items():
        answers = (Store(folder).answer(key) for folder in folders)
        seconds = next((answer.seconds for answer in answers if answer is not None), None)
        if seconds is not None:
            spent[name, kind_of(ask)].append(1000 * seconds / milliseconds[ask.plan.arch])
    images: dict[str, dict[str, int]] = defaultdict(dict)
    for (name, kind), some in sorted(spent.items()):
        images[name][kind] = round(sum(some) / len(some))
    return {"milliseconds": milliseconds, "images": images}


def timed(arch: str) -> float:
    """Milliseconds of one thread that a training takes for an image."""
    module = initialised(architecture(arch), _CLASSES, 0)
    shape = getattr(module, "input_shape", (3, 32, 32))
    seconds = 0.0
    for steps in (1, 2):  # the first is for warming up
        images, labels = torch.rand(steps * _BATCH, *shape), torch.zeros(steps * _BATCH, dtype=torch.int64)
        training = Training(module, images, labels, Regime(epochs=1, batch=_BATCH))
        started = time.process_time()
        training.run(Watch())
        seconds = time.process_time() - started
    return round(1000 * seconds / (2 * _BATCH), 3)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(measured([Path(word) for word in sys.argv[1:]]), indent=1) + "\n")
