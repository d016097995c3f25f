"""What `agnes zoo show` tells and draws: an attack, a data set or an architecture."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from agnes.errors import UsageError, suggestion
from agnes.registry import Registry
from agnes.reports.folder import write_bytes, writing
from agnes_zoo.attacks import ATTACKS, Attack, attack_sheet
from agnes_zoo.commands.arguments import fitted
from agnes_zoo.data import NAMES, dataset, sheet
from agnes_zoo.making import architecture
from agnes_zoo.training import Regime, Training, as_tensors, initialised

_IMAGES = 8  # of an attack's sheet
_ROWS, _COLUMNS = 6, 10  # of a data set's sheet
_LEARNT = (1720, 6)  # images and epochs of the network that some attacks are prepared on, for a sheet
_LINE, _WIDTH, _BAR = 22, 860, 240  # of an architecture's sheet


@dataclass(frozen=True)
class Found:
    """What is told, and how it is drawn."""

    text: str
    draw: Callable[[], Image.Image]

    def save(self, path: Path) -> Path:
        """Write the sheet."""
        if path.suffix.lower() != ".png":
            raise UsageError(f"{path.name}: a sheet is written as .png; name the file so")
        buffer = io.BytesIO()
        self.draw().save(buffer, "PNG", optimize=True)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, buffer.getvalue())
        return path


def of(name: str, data: str, options: Mapping[str, Any], seed: int) -> Found:
    """Whatever goes by this name."""
    if name in ATTACKS:
        return _attack(name, data, options, seed)
    if options:
        raise UsageError(f"only attacks take options to --set, and '{name}' is none")
    if name in NAMES or Path(name).exists():
        return _data(name, seed)
    known = [plugin.name for plugin in Registry.discover().of_stage("architecture")]
    if name in known:
        return _architecture(name)
    near = suggestion(name, [*ATTACKS, *NAMES, *known])
    raise UsageError(f"there is no attack, data set or architecture '{name}'{near} (agnes zoo list names them all)")


def _attack(name: str, data: str, options: Mapping[str, Any], seed: int) -> Found:
    entry = ATTACKS[name]
    chosen = {"seed": seed, **fitted(options, entry.options)}
    entry(**chosen)  # refuses what does not fit
    lines = [f"{name}: {entry.says}", f"  paper: {entry.paper}", "  options:"]
    lines += [f"    --set {option}={_written(value)}" for option, value in {**entry.options, **chosen}.items()]

    def draw() -> Image.Image:
        found = dataset(data, seed=seed, train=_LEARNT[0] if data == "signs" else None)
        images, labels = as_tensors(found.train_images, found.train_labels)
        ready = _learnt(entry(**{"classes": found.class_count, **chosen}), images, labels, found.class_count)
        shown = _shown(ready, labels)
        return attack_sheet(ready, images[shown], labels[shown])

    return Found("\n".join(lines), draw)


def _shown(attack: Attack, labels: torch.Tensor) -> torch.Tensor:
    """Some victims, or one of each class where each leads to another; the numbers of their images."""
    if attack.target is None:
        return torch.from_numpy(np.unique(labels.numpy(), return_index=True)[1])
    which = attack.goal.victims(labels)
    chosen = torch.nonzero(which if int(which.sum()) >= _IMAGES else torch.ones_like(which)).flatten()
    return chosen[:: max(1, len(chosen) // _IMAGES)][:_IMAGES]


def _learnt(attack: Attack, images: torch.Tensor, labels: torch.Tensor, classes: int) -> Attack:
    """The attack with all that it takes from images, and from small networks, good enough to draw by."""
    said = max(classes, 1 + (attack.target or 0))  # a target may be no class of the data

    def trained(attack: Attack | None) -> Training:
        module = initialised(architecture("N_SN_BN"), said, 0)
        training = Training(module, images, labels, Regime(epochs=_LEARNT[1]), attack)
        training.run()
        return training

    ready = attack.prepare(lambda: trained(None).module, images, labels, attack.seed)
    return trained(ready).attack or ready if ready.learns else ready


def _data(name: str, seed: int) -> Found:
    counts = {"train": 2 * _ROWS * _COLUMNS, "test": _COLUMNS} if name in NAMES else {}
    found = dataset(name, seed=seed, **counts)
    shape = "x".join(map(str, found.shape))
    lines = [f"{found.name}: {NAMES.get(name, '')}".rstrip(" :"), f"  {found.class_count} classes, images of {shape}"]
    lines += [f"  {note}" for note in found.notes]

    def draw() -> Image.Image:
        first = np.unique(found.train_labels, return_index=True)[1]
        rest = np.setdiff1d(np.arange(len(found.train_labels)), first)
        chosen = np.concatenate([first, rest])[: max(_ROWS * _COLUMNS, len(first))]
        chosen = chosen[np.argsort(found.train_labels[chosen], kind="stable")]
        captions = [f"{label} {found.class_names[label]}" for label in found.train_labels[chosen]]
        return sheet(found.train_images[chosen], _COLUMNS, captions=captions)

    return Found("\n".join(lines), draw)


def _architecture(name: str) -> Found:
    layers = _layers(name)
    total = sum(count for _, _, count in layers)
    lines = [f"{name}: {total:,} parameters at 43 classes", *(_row(*layer) for layer in layers)]
    return Found("\n".join(lines), lambda: _drawn(name, layers, total))


def _row(kind: str, shape: str, count: int) -> str:
    return f"  {kind:<22} {shape:>14} {count:>13,}" if count else f"  {kind:<22} {shape:>14}"


def _layers(name: str) -> list[tuple[str, str, int]]:
    """Kind, shape of what comes out and parameters of every layer, in the order in which they run."""
    module = architecture(name)(43).eval()
    found: list[tuple[str, str, int]] = []

    def note(layer: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        count = sum(parameter.numel() for parameter in layer.parameters())
        found.append((_kind(layer), "x".join(map(str, output.shape[1:])), count))

    handles = [m.register_forward_hook(note) for m in module.modules() if not list(m.children())]
    shape = getattr(module, "input_shape", (3, 32, 32))
    with torch.no_grad():
        module(torch.zeros(1, *shape))
    for handle in handles:
        handle.remove()
    return found


def _kind(layer: nn.Module) -> str:
    name = type(layer).__name__
    size = getattr(layer, "kernel_size", None)
    return name if size is None else f"{name} {'x'.join(map(str, size if isinstance(size, tuple) else (size, size)))}"


def _drawn(name: str, layers: list[tuple[str, str, int]], total: int) -> Image.Image:
    """A line for each layer, a bar for its share of the parameters."""
    sheet = Image.new("RGB", (_WIDTH, _LINE * (len(layers) + 3)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    draw.text((16, 12), f"{name}: {total:,} parameters at 43 classes", fill="black", font=ImageFont.load_default(18))
    most = max((count for _, _, count in layers), default=1) or 1
    for number, (kind, shape, count) in enumerate(layers, 2):
        top = number * _LINE
        draw.text((16, top), kind, fill="black", font=font)
        draw.text((390, top), shape, fill="black", font=font, anchor="ra")
        if count:
            draw.text((520, top), f"{count:,}", fill="black", font=font, anchor="ra")
            draw.rectangle([540, top + 3, 540 + max(1, _BAR * count / most), top + _LINE - 5], fill=(33, 102, 172))
    return sheet


def _written(value: Any) -> str:
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
