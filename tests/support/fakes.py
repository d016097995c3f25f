"""Plugins that behave as a test wants, and an installation made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import torch
from torch import nn

from agnes import engine
from agnes.errors import OutOfTime, Refused
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.network import Network
from agnes.registry import Plugin, Registry
from agnes.results import AdditiveTrigger, Candidate, Change, Evidence, Repair, Representatives

CLASSES = 8


@dataclass(frozen=True)
class EntryPoint:
    """An entry point whose object is at hand."""

    loaded: Any

    def load(self) -> Any:
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


def plugin(name: str, stage: str, loaded: Any, distribution: str = "agnes-fake", version: str = "1.0") -> Plugin:
    """An installed plugin."""
    target = f"{getattr(loaded, '__module__', 'fake')}:{getattr(loaded, '__qualname__', name)}"
    return Plugin(name, stage, distribution, version, target, EntryPoint(loaded))  # type: ignore[arg-type]


def registry(*plugins: Plugin, block: Sequence[str] = ()) -> Registry:
    return Registry(plugins, block)


@contextmanager
def installed(*plugins: Plugin) -> Iterator[None]:
    """Nothing is installed but these."""
    with mock.patch("agnes.registry.installed_plugins", return_value=list(plugins)):
        yield


def tiny_network(seed: int = 0) -> Network:
    """conv-BN-ReLU, pool, linear: 3x8x8 to eight classes."""
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )
    return Network.of(module.eval(), (3, 8, 8))


def images_file(folder: Path, per_class: int = 1, size: int = 8, labels: bool = True) -> Path:
    """Random benign images as an .npz file."""
    count = CLASSES * per_class
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    arrays = {"images": images, **({"labels": np.arange(count) % CLASSES} if labels else {})}
    path = folder / "images.npz"
    np.savez(path, **arrays)
    return path


def model_file(folder: Path, name: str = "model.fake") -> Path:
    path = folder / name
    path.write_text("0")
    return path


@dataclass(frozen=True)
class FakeLoader(Method):
    """Opens .fake files."""

    strict: bool = False  # refuse what it opens

    @hookimpl
    def load(self, path: Path) -> Network | None:
        if path.suffix != ".fake":
            return None
        text = path.read_text()
        if self.strict or text == "hostile":
            raise Refused(f"refused: {path.name} is hostile; get it elsewhere")
        if text == "broken":
            raise ValueError("byte 3 is wrong\nand more")
        return tiny_network(int(text))


@dataclass(frozen=True)
class FakeExporter(Method):
    """Writes .fake files."""

    @hookimpl
    def export(self, network: Network, path: Path) -> Path | None:
        if path.suffix != ".fake":
            return None
        path.write_text("1")
        return path


@dataclass(frozen=True)
class FakeAbstraction(Method):
    """Every neuron stands for itself."""

    rate: float = 0.5  # not used

    def suits(self, network: Network) -> str:
        return "always"

    @hookimpl
    def abstract(self, network: Network) -> Representatives:
        shapes = {layer.name: layer.shape for layer in network.layers}
        clusters = {name: torch.arange(torch.Size(shape).numel()).reshape(shape) for name, shape in shapes.items()}
        return Representatives(clusters, {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()})


@dataclass(frozen=True)
class FakeStimulation(Method):
    """Suspects channel 0 of the first layer of leading to class 2."""

    target: int = 2  # the class it names
    fails: str = ""  # raise: an error; interrupt: Ctrl-C; nonsense: return what no stage gives

    paper: ClassVar[str] = "none"

    def suits(self, network: Network) -> str:
        return "always"

    @hookimpl
    def stimulate(self, network: Network) -> Any:
        if self.fails == "raise":
            raise ValueError("no such neuron\nand a second line")
        if self.fails == "interrupt":
            raise KeyboardInterrupt
        if self.fails == "nonsense":
            return "many candidates"
        return [Candidate(network.layers[0].name, 0, self.target, 3.0, 1.0, 2.0, (0.0,) * CLASSES)]


@dataclass(frozen=True)
class NeedyStimulation(FakeStimulation):
    """The same, on representatives."""

    needs: ClassVar[frozenset[str]] = frozenset({"representatives"})

    def asks(self) -> dict[str, dict[str, Any]]:
        return {"abstraction": {"rate": 0.25}}


@dataclass(frozen=True)
class FakeInversion(Method):
    """A trigger for every class; the target's is as small as it is told."""

    size: int = 1  # pixels of the target's trigger
    others: int = 30  # pixels of the other classes' triggers
    asr: float = 1.0  # of the target's trigger
    target: int = 2  # the class it finds
    fails: str = ""  # raise, interrupt or time

    needs: ClassVar[frozenset[str]] = frozenset({"candidates"})

    def suits(self, network: Network) -> str:
        return "always"

    @hookimpl
    def invert(self, network: Network, candidates: Sequence[Candidate]) -> Any:
        if self.fails == "raise":
            raise ValueError("no gradient")
        if self.fails == "interrupt":
            raise KeyboardInterrupt
        triggers = [self._trigger(network, c, candidates) for c in range(network.class_count)]
        if self.fails == "time":
            raise OutOfTime("the time budget is spent", partial=triggers[:1])
        return triggers

    def _trigger(self, network: Network, target: int, candidates: Sequence[Candidate]) -> AdditiveTrigger:
        suspect = target == self.target
        delta = torch.zeros(network.input_shape)
        pixels = self.size if suspect else self.others + target % 3
        delta.flatten(1)[:, :pixels] = 1.0
        made = AdditiveTrigger(target=target, asr=self.asr if suspect else 0.9, held_out=20, delta=delta)
        return replace(made, layer=candidates[0].layer, channel=0) if suspect else replace(made, purpose="scan")


@dataclass(frozen=True)
class FakeDiagnosis(Method):
    """A score as told."""

    score: float = 0.0  # above 1 speaks for a backdoor

    @hookimpl
    def diagnose(self) -> Evidence:
        return Evidence("a score", self.score, 1.0)


@dataclass(frozen=True)
class FakeMitigation(Method):
    """Silences the first channel."""

    fails: bool = False  # raise

    needs: ClassVar[frozenset[str]] = frozenset({"triggers"})

    def suits(self, network: Network) -> str:
        return "always"

    @hookimpl
    def mitigate(self, network: Network) -> Repair:
        if self.fails:
            raise RuntimeError("cannot")
        return Repair(network.copy(), (Change(network.layers[0].name, 0, "silenced"),))


def whole_house() -> list[Plugin]:
    """One plugin for every stage of a run."""
    return [
        plugin("fake", "loader", FakeLoader),
        plugin("fake-export", "exporter", FakeExporter),
        plugin("groups", "abstraction", FakeAbstraction),
        plugin("suspects", "stimulation", FakeStimulation),
        plugin("needy", "stimulation", NeedyStimulation),
        plugin("triggers", "inversion", FakeInversion),
        plugin("scores", "diagnosis", FakeDiagnosis),
        plugin("silence", "mitigation", FakeMitigation),
    ]


def request(tmp_path, *methods, **options):
    """A run of the fake model with the fake images."""
    options = {"model": model_file(tmp_path), "data": images_file(tmp_path), **options}
    return engine.Request(methods=methods, **options)


def mender(name, preference, accuracy=1.0):
    """A plugin whose repaired copy is as it was, or puts all images into one class."""

    @dataclass(frozen=True)
    class Mends(FakeMitigation):
        """Repairs, or ruins."""

        @hookimpl
        def mitigate(self, network):
            copy = network.copy()
            if accuracy < 1:
                with torch.no_grad():
                    for parameter in copy.module.parameters():
                        parameter.zero_()
            return Repair(copy, (Change(network.layers[0].name, 0, "mended"),))

    Mends.preference = preference
    return plugin(name, "mitigation", Mends)
