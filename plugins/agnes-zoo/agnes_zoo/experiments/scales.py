"""How large an experiment is: images, epochs, networks of a kind, and what the searches may cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agnes.errors import UsageError, suggestion
from agnes_zoo.dealing import DataPlan, deal
from agnes_zoo.experiments.describing import Models
from agnes_zoo.making import Plan
from agnes_zoo.training import Regime

_SEED = 70_000_000  # no recipe comes near
_STOP_OF_43, _STOP_OF_TEN = 14, 4
_ALL = "all"


@dataclass(frozen=True)
class Scale:
    """One size of all experiments."""

    name: str
    says: str
    data: Mapping[str, DataPlan]
    training: Regime
    count: int  # networks of a kind, at most
    epochs: float  # share of the paper's epochs, where a table goes through them
    costs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # method -> settings that bound its cost
    one: Mapping[str, str] = field(default_factory=dict)  # architecture -> the small one that stands for it
    longer: Mapping[str, int] = field(default_factory=dict)  # network, or it and the attack -> epochs it needs
    lessons: int = 50  # test images of each class where a repair learns from them
    networks: int | None = None  # of each kind, where the user says how many

    def plan(self, models: Models, number: int, sources: Mapping[str, str]) -> Plan:
        """The plan of one network; `sources` are data that the user named, by the scale's name for them or for all."""
        data = self.data[models.data]
        source = sources.get(models.data, sources.get(_ALL))
        if source is not None:
            data = replace(data, source=source)
        if models.repaired:
            data = replace(data, test=self.lessons)
        arch = self.one.get(models.arch, models.arch)
        attack, options = models.attack, models.options
        if models.turns:
            attack, options = models.turns[number % len(models.turns)]
        epochs = self.longer.get(f"{arch} {attack}", self.longer.get(arch, self.training.epochs))
        if models.epochs is not None:
            epochs = max(1, round(models.epochs * self.epochs))
        regime = replace(self.training, **{"epochs": epochs, "seed": _SEED + number, **models.training})
        if attack is None:
            return Plan(arch, data, regime)
        return Plan(arch, data, regime, attack, {"target": _stop(data), **options})


def _stop(data: DataPlan) -> int:
    """The stop sign, or a class in its place."""
    classes = _classes(data)
    return _STOP_OF_43 if classes > _STOP_OF_43 else min(_STOP_OF_TEN, classes - 1)


def _classes(data: DataPlan) -> int:
    from agnes_zoo.data.choosing import KINDS

    return len(KINDS[data.source][0].classes) if data.source in KINDS else len(deal(data).class_names)


_TINY_COSTS = {
    "kmeans": {"images": 50, "rounds": 2},
    "deepabstract": {"images": 50, "time_limit": 10.0, "precision": 0.1},
    "abs": {"samples": 8},
    "aproxsm": {"samples": 8},
    "abssm": {"samples": 8},
    "abs-mask": {"steps": 30, "restarts": 1, "candidates": 3, "null": 0, "batch": 8, "test_images": 50},
    "abs-feature": {"steps": 20, "restarts": 1, "candidates": 3, "null": 0, "batch": 8, "test_images": 50},
    "two-stage": {"steps": 60, "null": 0, "batch": 8, "test_images": 50},
    "neural-cleanse": {"steps": 60, "batch": 8, "test_images": 50},
    "tao-inversion": {"steps": 20, "warm_up": 10, "views": 0, "batch": 4, "test_images": 50, "probe": 0},
    "retrain": {"steps": 20},
    "unlearn": {"steps": 20},
}
_SMALL_COSTS = {
    "kmeans": {"images": 500},
    "deepabstract": {"images": 200, "time_limit": 60.0},
    "abs-mask": {"steps": 100, "restarts": 1, "null": 0},
    "abs-feature": {"steps": 100, "restarts": 1, "null": 0},
    "two-stage": {"steps": 300, "null": 0},
    "neural-cleanse": {"steps": 200, "batch": 16},
    "tao-inversion": {"probe": 0},
    "retrain": {"steps": 600},
    "unlearn": {"steps": 100},
}
_PAPER_COSTS = {"abs-mask": {"null": 0}, "abs-feature": {"null": 0}, "two-stage": {"null": 0}}  # no table shows them
_PLAIN = ("N_SN", "N_MN", "N_LN", "NN1", "LeNet", "AlexNet", "VGG", "ABS_LeNet", "MNIST_2CONV", "GTSRB_5CONV")
_NORMED = (
    "N_SN_BN",
    "N_MN_BN",
    "N_LN_BN",
    "NiN",
    "ResNet32",
    "ResNet110",
    "resnet18",
    "resnet50",
    "vgg11_bn",
    "vgg16_bn",
)

SCALES: Mapping[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale(
            "tiny",
            "one small network of ten embedded signs, few epochs and steps: shows that a table runs, and nothing more",
            {
                "signs": DataPlan("signs10", _SEED, train=800, samples=1, test=5, held_out=10),
                "grey": DataPlan("signs10-grey", _SEED, train=400, samples=1, test=5, held_out=10),
                "ten": DataPlan("signs10", _SEED, train=800, samples=1, test=5, held_out=10),
            },
            Regime(epochs=6, batch=32),
            count=1,
            epochs=0.2,
            lessons=5,
            costs=_TINY_COSTS,
            one={
                **dict.fromkeys(_PLAIN, "N_SN"),
                **dict.fromkeys(_NORMED, "N_SN_BN"),
                **dict.fromkeys(("FC1", "FC2", "FC3"), "FC1"),
                "MNIST_2CONV": "MNIST_2CONV",  # it takes 28x28 grey
            },
        ),
        Scale(
            "small",
            "ten embedded signs, the papers' smaller architectures, a part of their steps",
            {
                "signs": DataPlan("signs10", _SEED, train=2000, samples=4, test=10, held_out=10),
                "grey": DataPlan("signs10-grey", _SEED, train=2000, samples=1, test=10, held_out=10),
                "ten": DataPlan("signs10", _SEED, train=2000, samples=1, test=10, held_out=10),
            },
            Regime(epochs=12, batch=32),
            count=1,
            epochs=1.0,
            longer=dict.fromkeys(("LeNet", "ABS_LeNet", "N_SN corner-patch"), 24),  # 12 are too few
            costs=_SMALL_COSTS,
            one={
                **dict.fromkeys(("ResNet32", "ResNet110", "resnet18"), "ResNet8"),
                "NiN": "N_SN_BN",
                "vgg16_bn": "vgg11_bn",
            },
        ),
        Scale(
            "paper",
            "the papers' counts, epochs and settings; give their data with --data",
            {
                "signs": DataPlan("signs", _SEED, samples=1, test=50, held_out=50),
                "grey": DataPlan("signs10-grey", _SEED, samples=1, test=50, held_out=50),
                "ten": DataPlan("signs10", _SEED, samples=1, test=50, held_out=50),
            },
            Regime(epochs=15, batch=64, learning_rate=1e-3),
            count=1_000,
            epochs=1.0,
            costs=_PAPER_COSTS,
        ),
    )
}


def scale_of(name: str) -> Scale:
    """The scale a user typed."""
    if name not in SCALES:
        raise UsageError(f"there is no scale '{name}'{suggestion(name, SCALES)}")
    return SCALES[name]


def sources_of(words: list[str]) -> dict[str, str]:
    """`gtsrb.npz`, or `grey=mnist/`, as data by name."""
    found = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or name not in SCALES["tiny"].data:
            name, path = _ALL, word
        found[name] = str(Path(path).expanduser()) if Path(path).expanduser().exists() else path
    return found
