"""Inversion of the demo's network, one class or one pair at a time as published, against ours of all at once.

python benchmarks/inversion.py [--quick] [--json]

The naive loops are told what ours reached: they stop as soon as a trigger succeeds as often on images it was not made
on and is no larger, or after the 1000 steps of the papers; how many got there is printed, the smallest that worked for
those that did not, and the ratio to the papers' steps, which a loop that is told nothing runs. They are timed on some
of the classes and pairs, in turns with ours in the same process, and scaled to as many as ours found a trigger for;
pairs that ours gave up count for nothing. Classes are searched with one image of each, pairs with 20 of each source.
For pairs, ours is told to be content with what Tao's loop is content with: images as they are (`views=0`) and any
confidence. For classes it keeps its defaults, which ask for more: triggers that work on moved and lit images too.
`--quick` times fewer naive loops, takes pairs of two sources, and leaves out our own neural-cleanse.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from agnes_inversion.arms import divide
from agnes_inversion.neural_cleanse import NeuralCleanse
from agnes_inversion.tao import TaoInversion
from agnes_zoo.demo import demo_files
from agnes_zoo.signs import signs
from agnes_zoo.training import as_tensors
from torch.nn import functional

from agnes.api import open_network
from agnes.backend import Backend
from agnes.network import Network
from agnes.results import Trigger
from agnes.samples import Samples

SEED, STEPS, EACH = 904, 1000, 20


@dataclass(frozen=True)
class Aim:
    """What ours reached, and what a naive loop is to reach."""

    target: int
    success: float
    size: float
    images: torch.Tensor  # that the trigger is made on
    held_out: torch.Tensor  # that success is counted on

    def reached(self, network: Network, stamp: Callable[[torch.Tensor], torch.Tensor], size: float) -> bool:
        """Whether a trigger is no larger than ours and succeeds as often on images it was not made on."""
        if size > self.size:
            return False
        with torch.no_grad():
            hits = network(stamp(self.held_out)).argmax(1) == self.target
        return float(hits.float().mean()) >= self.success

    def ratio(self, size: float) -> float | None:
        """How large a trigger is beside ours."""
        return round(size / self.size, 2) if size < float("inf") and self.size else None


@dataclass(frozen=True)
class Ran:
    """How a naive loop went."""

    reached: bool
    steps: int
    ratio: float | None  # of the smallest trigger that worked on the images it was made on, to ours; None: none did


# The naive loops


def masked(images: torch.Tensor, mask: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
    return images * (1 - mask) + pattern * mask


def added(images: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    return (images + delta).clamp(0, 1)


def naive_cleanse(network: Network, aim: Aim) -> Ran:
    """Neural Cleanse for one class: a mask and a pattern, lambda from zero."""
    channels, height, width = network.input_shape
    draw = torch.Generator().manual_seed(aim.target)
    mask = torch.atanh(torch.rand(1, height, width, generator=draw) * 1.98 - 0.99).requires_grad_()
    pattern = torch.atanh(torch.rand(channels, height, width, generator=draw) * 1.98 - 0.99).requires_grad_()
    optimiser = torch.optim.Adam([mask, pattern], lr=0.1, betas=(0.5, 0.9))
    wanted = torch.full((len(aim.images),), aim.target)
    weight, good, bad, least = 0.0, 0, 0, float("inf")
    for step in range(1, STEPS + 1):
        shown, colours = (mask.tanh() + 1) / 2, (pattern.tanh() + 1) / 2
        logits = network(masked(aim.images, shown, colours))
        size = shown.sum()
        success = float((logits.argmax(1) == wanted).float().mean())
        stamp = functools.partial(masked, mask=shown, pattern=colours)
        if success >= 0.99:
            least = min(least, float(size.detach()))
            if aim.reached(network, stamp, float(size.detach())):
                return Ran(True, step, aim.ratio(least))
        optimiser.zero_grad()
        (functional.cross_entropy(logits, wanted) + weight * size).backward()
        optimiser.step()
        good, bad = (good + 1, 0) if success >= 0.99 else (0, bad + 1)
        if good == 5:
            weight, good = (weight * 1.5 if weight else 1e-3), 0
        if bad == 5:
            weight, bad = weight / 1.5**1.5, 0
    return Ran(False, STEPS, aim.ratio(least))


def naive_tao(network: Network, aim: Aim) -> Ran:
    """Tao's inversion for one source and one target: a pattern to add and one to subtract."""
    draw = torch.Generator().manual_seed(aim.target)
    start = torch.randn(2, *network.input_shape, generator=draw)
    parts = (-3 - start.abs()).requires_grad_()
    optimiser = torch.optim.Adam([parts], lr=0.1, betas=(0.5, 0.9))
    wanted = torch.full((len(aim.images),), aim.target)
    weight, good, bad, least = 1e-3, 0, 0, float("inf")
    for step in range(1, STEPS + 1):
        delta = (parts[0].tanh() - parts[1].tanh()) / 2
        logits = network(added(aim.images, delta))
        success = float((logits.argmax(1) == wanted).float().mean())
        stamp = functools.partial(added, delta=delta)
        changed = float(delta.detach().abs().amax(0).sum())
        if success >= 0.99:
            least = min(least, changed)
            if aim.reached(network, stamp, changed):
                return Ran(True, step, aim.ratio(least))
        felt = ((parts / 10).tanh() + 1).div(2).amax(1).sum()
        optimiser.zero_grad()
        (functional.cross_entropy(logits, wanted) + weight * felt).backward()
        optimiser.step()
        good, bad = (good + 1, 0) if success >= 0.99 else (0, bad + 1)
        if good == 10:
            weight, good = weight * 1.5, 0
        if bad == 10:
            weight, bad = weight / 1.5**1.5, 0
    return Ran(False, STEPS, aim.ratio(least))


# The measurement


def aims_of(samples: Samples, network: Network, method: Any, found: Sequence[Trigger], backend: Backend) -> list[Aim]:
    """What ours reached for each class or pair."""
    parts = divide(samples, network, method.share, method.test_images, backend)

    def own(part: Samples, trigger: Trigger) -> torch.Tensor:
        assert part.labels is not None
        return part.images[part.labels != trigger.target if trigger.source is None else part.labels == trigger.source]

    return [Aim(t.target, t.asr, t.l1, own(parts.made_on, t), own(parts.held_out, t)) for t in found]


def spread(aims: Sequence[Aim], count: int) -> list[Aim]:
    """Some of them, at equal distances in size."""
    ordered = sorted(aims, key=lambda aim: aim.size)
    return [ordered[(2 * i + 1) * len(ordered) // (2 * count)] for i in range(count)]


def compare(
    network: Network,
    samples: Samples,
    method: Any,
    naive: Callable[[Network, Aim], Ran],
    count: int,
    rounds: int,
    backend: Backend,
) -> dict[str, object]:
    """Ours and some of the naive loops in turns."""
    ours: list[float] = []
    runs: list[tuple[Ran, float]] = []
    found: Sequence[Trigger] = ()
    chosen: list[Aim] = []
    for turn in range(rounds):
        found, seconds = timed(functools.partial(method.invert, network, samples, [], backend))
        ours.append(seconds)
        chosen = chosen or spread(aims_of(samples, network, method, found, backend), count)
        runs += [timed(functools.partial(naive, network, aim)) for aim in chosen[turn::rounds]]
    each = statistics.mean(seconds for _, seconds in runs)
    whole = statistics.mean(seconds / ran.steps * STEPS for ran, seconds in runs)
    return {
        "ratio": round(each * len(found) / statistics.mean(ours), 1),
        "ratio_to_the_papers_steps": round(whole * len(found) / statistics.mean(ours), 1),
        "bar": None if isinstance(method, NeuralCleanse) else 10,  # that one takes the paper's steps itself
        "ours_seconds": round(statistics.mean(ours), 1),
        "naive_seconds_each": round(each, 2),
        "searches": len(found),
        "naive_timed": len(runs),
        "naive_got_there": sum(ran.reached for ran, _ in runs),
        "others_size_to_ours": [ran.ratio for ran, _ in runs if not ran.reached],
        "ours_success": round(sum(t.asr for t in found) / len(found), 3),
    }


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What a run gives, and its seconds: of this process alone where it has one thread, so that others do not count."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    result = run()
    return result, clock() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="minutes: few loops, pairs of two sources, one round")
    parser.add_argument("--threads", type=int, default=1)
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    network = open_network(str(demo_files().model))
    backend = Backend.choose("cpu", memory=1 << 30)
    images, labels = as_tensors(*signs(EACH, SEED))
    every = Samples(images, labels, source="signs")
    one = every.subset(slice(0, 43))  # of every class
    count, rounds = (2, 1) if told.quick else (6, 2)
    results = {
        "neural cleanse, class by class, against tao-inversion": compare(
            network, one, TaoInversion(), naive_cleanse, count, rounds, backend
        ),
        "tao, pair by pair, against tao-inversion.pairs": compare(
            network,
            every.subset(labels < (2 if told.quick else 8)),
            TaoInversion(pairs=True, views=0, confidence=0.0),
            naive_tao,
            2 * count,
            rounds,
            backend,
        ),
    }
    if not told.quick:
        results["neural cleanse, class by class, against neural-cleanse"] = compare(
            network, one, NeuralCleanse(), naive_cleanse, count, rounds, backend
        )
    if told.json:
        print(json.dumps(results))
        return
    for name, result in results.items():
        print(f"{name}: {json.dumps(result)}")


if __name__ == "__main__":
    main()
