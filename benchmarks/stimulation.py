"""Stimulation functions of whole networks, and the ten best channels, against the naive loop.

The naive loop runs the whole network for one value of one channel at a time, on all images at once. It is timed on a
sample of channels, spread over the layers, and scaled to all of them, unless `--whole` is given; its numbers are
compared with ours on the sample. The full tensor is timed on sixteen channels of each layer, eight with `--quick`, and
scaled as well; `unpruned` among the seconds is one search over all channels, whole and not scaled, which the full
tensor's seconds can be held against. Naive and fast runs take turns in one process; ratios are of medians.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from agnes_stimulation.abs import Abs
from agnes_stimulation.exact import AbsExact
from agnes_stimulation.nsf import Stimulation
from agnes_stimulation.preparing import for_scanning
from torch import nn

from agnes.backend import Backend
from agnes.layers import Layer
from agnes.network import Network
from agnes.samples import Samples

CLASSES, IMAGES, VALUES, TOP = 43, 43, 16, 10
REACH = 1.0  # of the layer's largest activation
BARS = {"5 conv + BN": (18, 200), "VGG": (35, 200), "ResNet-18": (5, 20)}


# The networks


def five_convolutions() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 128), (128, 128), (128, 256)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, CLASSES))


def vgg() -> nn.Module:
    """VGG of AGNES, section 5."""
    layers: list[nn.Module] = []
    inputs = 3
    for outputs in (16, 32, 64, 64, 128):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        inputs = outputs
    layers += [nn.Conv2d(inputs, 64, 3, padding=1), nn.ReLU(), nn.Flatten()]
    dense = [nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, CLASSES)]
    return nn.Sequential(*layers, *dense)


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        shortcut = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]
        self.shortcut = nn.Identity() if same else nn.Sequential(*shortcut)
        self.relu2 = nn.ReLU()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        inner = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(maps)))))
        return self.relu2(inner + self.shortcut(maps))


def resnet18() -> nn.Module:
    """ResNet-18 as torchvision has it, 11,198,571 parameters at 43 classes."""
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    blocks = []
    inputs = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        blocks += [Block(inputs, outputs, stride), Block(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES))


@torch.no_grad()
def settled(build: Callable[[], nn.Module], seed: int) -> Network:
    """Random weights of a scale at which signals neither die nor explode; BatchNorm's statistics from noise."""
    torch.manual_seed(seed)
    module = build()
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            part.weight.normal_(0, (2 / part.weight[0].numel()) ** 0.5)
            if part.bias is not None:
                part.bias.normal_(0, 0.05)
        elif isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    module.train()(torch.rand(64, 3, 32, 32))
    return Network.of(module.eval(), (3, 32, 32))


NETWORKS = {"5 conv + BN": five_convolutions, "VGG": vgg, "ResNet-18": resnet18}


# The naive loop


@contextmanager
def hooked(network: Network, layer: Layer, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """The module whose output is the layer's value gives a changed one."""
    node = next(node for node in network.module.graph.nodes if node.name == layer.node)
    module = network.module.get_submodule(str(node.target))

    def changed(_module: nn.Module, _given: Any, made: torch.Tensor) -> torch.Tensor:
        return change(made)

    handle = module.register_forward_hook(changed)
    try:
        yield
    finally:
        handle.remove()


def naive_value(network: Network, layer: Layer, channel: int, value: float, images: torch.Tensor) -> torch.Tensor:
    """The logits of all images with one channel set to one value: the whole network, from the pixels on."""

    def change(maps: torch.Tensor) -> torch.Tensor:
        maps = maps.clone()
        maps[:, channel] = value
        return maps

    with hooked(network, layer, change):
        return network(images)


def naive_channel(
    network: Network, layer: Layer, channel: int, values: torch.Tensor, images: torch.Tensor
) -> torch.Tensor:
    """Values, images, classes."""
    return torch.stack([naive_value(network, layer, channel, value, images) for value in values.tolist()])


# The measurement


def spread(network: Network, count: int) -> list[tuple[Layer, int]]:
    """Channels at equal distances through all layers."""
    every = [(layer, channel) for layer in network.layers for channel in range(layer.channels)]
    step = max(1, len(every) // count)
    return every[step // 2 :: step]


@torch.no_grad()
def everything(
    network: Network, images: torch.Tensor, values: dict[str, torch.Tensor], backend: Backend, most: int | None = None
) -> float:
    """Seconds for the functions of all channels of all layers; of `most` channels a layer, scaled to all of it."""
    scanned, seconds = timed(lambda: for_scanning(network))
    for layer in scanned.layers:
        count = min(layer.channels, most or layer.channels)
        stimulation, preparing = timed(functools.partial(Stimulation, scanned, layer, images, backend))

        def work(stimulation: Stimulation = stimulation, count: int = count, layer: Layer = layer) -> None:
            block = max(1, backend.memory // 8 // (4 * VALUES * len(images) * network.class_count))
            for some in torch.arange(count, device=images.device).split(block):
                stimulation.functions(some, values[layer.name])

        seconds += preparing + timed(work)[1] * layer.channels / count
    return seconds


@torch.no_grad()
def difference(
    network: Network, images: torch.Tensor, naive: dict[tuple[str, int], torch.Tensor], values: dict, backend: Backend
) -> float:
    """The largest between the naive loop's logits and ours."""
    scanned = for_scanning(network)
    worst = 0.0
    for (name, channel), logits in naive.items():
        stimulation = Stimulation(scanned, scanned.layer(name), images, backend)
        ours = stimulation.functions(torch.tensor([channel]), values[name]).logits[0]
        worst = max(worst, float((ours - logits).abs().max()))
    return worst


@torch.no_grad()
def measure(name: str, rounds: int, sample: int, told: argparse.Namespace, backend: Backend) -> dict[str, Any]:
    """Both ratios for one network, and how far the numbers differ."""
    network = settled(NETWORKS[name], 1)
    images = torch.rand(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    samples = Samples(images, torch.arange(IMAGES) % CLASSES)
    largest = {la: float(value.max()) for la, value in network.read(images).items()}
    values = {la: torch.linspace(0, REACH * top, VALUES) for la, top in largest.items()}
    channels = sum(layer.channels for layer in network.layers)
    best = Abs(VALUES, REACH, TOP, score="margin", refine=False, extend=0, winning_first=False)
    chosen = spread(network, channels if told.whole else sample)
    most = None if told.whole else 8 if told.quick else 16
    times: dict[str, list[float]] = {"naive": [], "full": [], "top10": []}
    naive: dict[tuple[str, int], torch.Tensor] = {}
    found: list = []
    Abs(2, top=1, refine=False, extend=0).stimulate(network=network, samples=samples.subset([0, 1]), backend=backend)
    for _ in range(rounds):
        naive, seconds = timed(
            lambda: {(la.name, k): naive_channel(network, la, k, values[la.name], images) for la, k in chosen}
        )
        times["naive"].append(seconds * channels / len(chosen))
        times["full"].append(everything(network, images, values, backend, most))
        found, seconds = timed(lambda: best.stimulate(network=network, samples=samples, backend=backend))
        times["top10"].append(seconds)
    medians = {what: statistics.median(seconds) for what, seconds in times.items()}
    same = None
    if not told.quick:
        same, medians["unpruned"] = timed(lambda: same_top(network, samples, best, found, backend))
    return {
        "full": round(medians["naive"] / medians["full"], 1),
        "top10": round(medians["naive"] / medians["top10"], 1),
        "max_abs_diff": difference(network, images, naive, values, backend),
        "largest_logit": max(float(logits.abs().max()) for logits in naive.values()),
        "same_top10": same,
        "seconds": {what: round(value, 3) for what, value in medians.items()},
        "channels": channels,
        "naive_channels_timed": len(chosen),
        "full_channels_timed": sum(min(layer.channels, most or layer.channels) for layer in network.layers),
        "bars": {"full": BARS[name][0], "top10": BARS[name][1]},
    }


class Unpruned(Abs):
    """The same search over all images of all channels."""

    @property
    def _prunes(self) -> bool:
        return False


def same_top(network: Network, samples: Samples, method: Abs, found: list, backend: Backend) -> bool:
    """Whether the ten are those of the unpruned search, in its order."""
    settings = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    whole = Unpruned(**settings).stimulate(network=network, samples=samples, backend=backend)
    return [(c.layer, c.channel, c.target) for c in found] == [(c.layer, c.channel, c.target) for c in whole]


@torch.no_grad()
def exact_against_sampling(backend: Backend, rounds: int) -> dict[str, float]:
    """The last two hidden layers of VGG, exactly and at 16 values."""
    network = settled(vgg, 1)
    samples = Samples(torch.rand(IMAGES, 3, 32, 32), torch.arange(IMAGES) % CLASSES)
    scanned = for_scanning(network)
    times: dict[str, list[float]] = {"exact": [], "sampled": []}
    for _ in range(rounds):
        _, seconds = timed(lambda: AbsExact(reach=REACH).stimulate(network=network, samples=samples, backend=backend))
        times["exact"].append(seconds)

        def sampling() -> None:
            for layer in scanned.layers[-2:]:
                for _ in Stimulation(scanned, layer, samples.images, backend).curves(torch.linspace(0, 1, VALUES)):
                    pass

        times["sampled"].append(timed(sampling)[1])
    medians = {what: statistics.median(seconds) for what, seconds in times.items()}
    return {**medians, "times_sampling": round(medians["exact"] / medians["sampled"], 1)}


def overlap(name: str, precision: str, device: str | None) -> dict[str, Any]:
    """How many of the ten best channels a lower precision finds too."""
    network = settled(NETWORKS[name], 1)
    samples = Samples(torch.rand(IMAGES, 3, 32, 32), torch.arange(IMAGES) % CLASSES)
    found = {}
    for kind in ("float32", precision):
        backend = Backend.choose(device, precision=kind)  # type: ignore[arg-type]
        method = Abs(VALUES, REACH, TOP, score="margin", refine=False, extend=0, winning_first=False)
        with backend.computing():
            moved = {"network": network.to(backend.device), "samples": samples.to(backend.device)}
            few = samples.subset([0, 1]).to(backend.device)
            method.stimulate(**{**moved, "samples": few}, backend=backend)  # the first run sets libraries up
            best, seconds = timed(functools.partial(method.stimulate, **moved, backend=backend))
        found[kind] = {(c.layer, c.channel) for c in best}, seconds
    shared = len(found["float32"][0] & found[precision][0])
    return {"shared_of_ten": shared, "seconds": found[precision][1], "float32_seconds": found["float32"][1]}


@torch.no_grad()
def on_cuda(name: str) -> dict[str, float]:
    """Arithmetic done a second by the naive count of what follows each layer, beside the device's own rate."""
    from torch.utils.flop_counter import FlopCounterMode

    backend = Backend.choose("cuda")
    network = settled(NETWORKS[name], 1).to(backend.device)
    images = torch.rand(IMAGES, 3, 32, 32, device=backend.device)
    work = 0
    for layer in network.layers:
        state = network.until(layer, images[:1])
        with FlopCounterMode(display=False) as counter:
            network.after(layer, state)
        work += counter.get_total_flops() * layer.channels * VALUES * IMAGES
    values = {layer.name: torch.linspace(0, 1, VALUES, device=backend.device) for layer in network.layers}
    with backend.computing():
        everything(network, images, values, backend)
        torch.cuda.synchronize()
        _, seconds = timed(lambda: (everything(network, images, values, backend), torch.cuda.synchronize()))
        one = torch.rand(8192, 8192, device=backend.device)
        _ = one @ one  # the first product sets the library up
        torch.cuda.synchronize()
        _, product = timed(lambda: (one @ one, torch.cuda.synchronize()))
    rate = 2 * 8192**3 / product / 1e12
    floor = work / rate / 1e12
    return {
        "seconds": seconds,
        "tflop": work / 1e12,
        "tflop_s": work / seconds / 1e12,
        "device_tflop_s": rate,
        "floor_s": floor,
    }


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What a run gives, and its seconds: of this process alone where it has one thread, so that others do not count."""
    clock = time.process_time if torch.get_num_threads() == 1 and not torch.cuda.is_initialized() else time.perf_counter
    started = clock()
    result = run()
    return result, clock() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="under a minute: one round on fewer channels, the ten not checked",
    )
    parser.add_argument("--whole", action="store_true", help="both over all channels, nothing scaled; takes hours")
    parser.add_argument("--exact", action="store_true", help="abs-exact against sampling, in place of the rest")
    parser.add_argument(
        "--precision", choices=("bfloat16", "tf32"), help="candidates shared with float32, in place of the rest"
    )
    parser.add_argument(
        "--cuda", action="store_true", help="TFLOP/s against the arithmetic floor, in place of the rest"
    )
    parser.add_argument("--network", choices=list(NETWORKS), action="append", help="only this one")
    parser.add_argument("--threads", type=int, default=1)
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    names = told.network or list(NETWORKS)
    backend = Backend.choose("cpu", memory=1 << 30)
    if told.exact:
        results: dict[str, dict[str, Any]] = {"VGG": exact_against_sampling(backend, 1 if told.quick else 3)}
    elif told.precision:
        device = "cuda" if told.precision == "tf32" else None
        results = {name: overlap(name, told.precision, device) for name in names}
    elif told.cuda:
        results = {name: on_cuda(name) for name in names}
    else:
        rounds, sample = (1, 4) if told.quick else (3, 12)
        results = {name: measure(name, rounds, sample, told, backend) for name in names}
        if "VGG" in results:
            results["VGG"] |= {"abs_exact": exact_against_sampling(backend, rounds)}
    if told.json:
        print(json.dumps(results))
        return
    print(f"{IMAGES} images, {VALUES} values, {told.threads} thread(s); both loops are timed on samples and scaled")
    for name, result in results.items():
        print(f"{name}: {json.dumps(result)}")


if __name__ == "__main__":
    main()
