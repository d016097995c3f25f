"""The search for small triggers: many arms optimised as one batch against frozen weights, each with its own cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from agnes.errors import OutOfTime

if TYPE_CHECKING:
    from agnes.backend import Backend

_LARGEST_CHUNK_ON_CPU = 128  # images; more at once is slower there
_FADE = 1e-3  # least and largest weight of the size, times the first one: 1e-3 and 1e3


@dataclass(frozen=True)
class Schedule:
    """How long to search and how the weight of the size follows success."""

    steps: int
    rate: float
    betas: tuple[float, float]
    weight: float
    success: float
    confidence: float
    patience: int
    raise_by: float
    lower_by: float
    setbacks: int  # times the weight was lowered since a trigger last got smaller, after which it has converged
    hopeless_after: int  # steps
    check: int = 5  # steps from one look at all images to the next, where a step sees only some


@dataclass
class Found:
    """The best trigger of each arm so far: the smallest that succeeded, else the one that succeeded most."""

    patterns: torch.Tensor  # arms, channels, height, width
    sizes: torch.Tensor  # arms; pixels
    success: torch.Tensor  # arms; on the images it was made on
    passed: torch.Tensor  # arms; bool
    improved: torch.Tensor  # arms; bool: in the last step, and noticeably

    @classmethod
    def none(cls, patterns: torch.Tensor) -> Found:
        arms, device = len(patterns), patterns.device
        return cls(
            torch.zeros_like(patterns),
            torch.full((arms,), float("inf"), device=device, dtype=patterns.dtype),
            torch.full((arms,), -1.0, device=device, dtype=patterns.dtype),
            torch.zeros(arms, dtype=torch.bool, device=device),
            torch.zeros(arms, dtype=torch.bool, device=device),
        )

    def better(self, one: int, other: int) -> bool:
        """Whether one arm has found more than another."""
        if bool(self.passed[one] & self.passed[other]):
            return bool(self.sizes[one] < self.sizes[other])
        return bool(self.success[one] > self.success[other])

    def update(self, arms: torch.Tensor, patterns: torch.Tensor, success: torch.Tensor, bound: float) -> None:
        """Keep what these arms have now where it is better."""
        sizes = pixel_sizes(patterns)
        passes = success >= bound
        before, had = self.sizes[arms], self.passed[arms]
        smaller = passes & (~had | (sizes < before))
        stronger = ~passes & ~had & (success > self.success[arms])
        better = smaller | stronger
        kept = arms[better]
        self.patterns[kept] = patterns[better]
        self.sizes[kept] = sizes[better]
        self.success[kept] = success[better]
        self.passed[arms] = had | passes
        self.improved[arms] = stronger | (smaller & (~had | (sizes < 0.99 * before)))  # 1 %: worth going on for


def squashed(parameters: torch.Tensor) -> torch.Tensor:
    """What is added to the images: arms x (more, less) x pixels to arms x pixels (Koldenhof, 4.2.2)."""
    return (torch.tanh(parameters[:, 0]) - torch.tanh(parameters[:, 1])) / 2


def size_term(parameters: torch.Tensor) -> torch.Tensor:
    """Per arm, the size that the optimisation feels; the tenth keeps gradients alive (Koldenhof, 4.2.2)."""
    return ((torch.tanh(parameters / 10) + 1) / 2).amax(2).sum((1, 2, 3))


def pixel_sizes(patterns: torch.Tensor) -> torch.Tensor:
    """The size a report gives: per pixel the largest change in any colour, summed."""
    return patterns.abs().amax(1).sum((1, 2))


class Descent:
    """Adam over arms, of which only some take a step."""

    def __init__(self, parameters: torch.Tensor, rate: float, betas: tuple[float, float]) -> None:
        self.parameters = parameters
        self.rate = rate
        self.betas = betas
        self.mean = torch.zeros_like(parameters)
        self.square = torch.zeros_like(parameters)

    def step(self, arms: torch.Tensor, gradient: torch.Tensor, count: int) -> None:
        """The `count`-th step of these arms."""
        first, second = self.betas
        mean = first * self.mean[arms] + (1 - first) * gradient
        square = second * self.square[arms] + (1 - second) * gradient.square()
        self.mean[arms], self.square[arms] = mean, square
        deviation = (square / (1 - second**count)).sqrt() + 1e-8
        self.parameters[arms] -= self.rate / (1 - first**count) * mean / deviation


class Weights:
    """How much the size weighs for each arm: more after a run of successes, less after a run of failures."""

    def __init__(self, arms: torch.Tensor, schedule: Schedule) -> None:
        self.schedule = schedule
        self.values = torch.full_like(arms, schedule.weight)
        self.run = torch.zeros_like(arms)  # steps of the same outcome in a row; below zero: failures
        self.setbacks = torch.zeros_like(arms)  # times lowered since the arm last improved

    def follow(self, arms: torch.Tensor, succeeded: torch.Tensor, improved: torch.Tensor) -> None:
        s = self.schedule
        run = self.run[arms]
        run = torch.where(succeeded, run.clamp(min=0) + 1, run.clamp(max=0) - 1)
        factor = torch.ones_like(run)
        factor[run >= s.patience] = s.raise_by
        factor[run <= -s.patience] = 1 / s.lower_by
        self.run[arms] = torch.where(factor == 1, run, torch.zeros_like(run))
        self.setbacks[arms] = torch.where(improved, 0, self.setbacks[arms] + (factor < 1))
        bounds = (s.weight * _FADE, s.weight / _FADE)
        self.values[arms] = (self.values[arms] * factor).clamp(*bounds)


@dataclass
class Search:
    """Triggers for all arms at once."""

    logits: Callable[[torch.Tensor], torch.Tensor]
    images: torch.Tensor  # images, channels, height, width
    targets: torch.Tensor  # arms
    eligible: torch.Tensor  # arms x images, bool
    schedule: Schedule
    backend: Backend
    batch: int  # images an arm sees in one step
    drop: Callable[[int, Found], torch.Tensor] | None = None  # step, what was found -> arms to stop, bool
    found: Found = field(init=False, repr=False)
    capacity: int = field(init=False, default=0)

    def run(self, parameters: torch.Tensor) -> Found:
        """Optimise from here; when time runs out, what was found so far travels with the error."""
        parameters = parameters.clone()
        self.found = Found.none(squashed(parameters))
        descent = Descent(parameters, self.schedule.rate, self.schedule.betas)
        weights = Weights(torch.zeros(len(parameters), device=parameters.device, dtype=parameters.dtype), self.schedule)
        active = torch.arange(len(parameters), device=parameters.device)
        draw = self.backend.generator("inversion batches", device="cpu")
        try:
            with self.backend.progress("inverting triggers", self.schedule.steps) as tick:
                for step in range(1, self.schedule.steps + 1):
                    if not len(active):
                        break
                    chosen = self._images_of_step(draw)
                    gradient, success = self.gradient(parameters[active], active, weights.values[active], chosen)
                    self._keep(parameters, active, success, len(chosen), step)
                    weights.follow(active, success >= self.schedule.success, self.found.improved[active])
                    descent.step(active, gradient, step)
                    active = self._going_on(active, weights.setbacks[active], step)
                    tick(1)
        except OutOfTime as error:
            error.partial = self.found
            raise
        return self.found

    def _keep(
        self, parameters: torch.Tensor, active: torch.Tensor, success: torch.Tensor, seen: int, step: int
    ) -> None:
        """Keep what the arms have now where it is better, judged on all of their images."""
        patterns = squashed(parameters[active])
        if seen < len(self.images):
            self.found.improved[active] = False
            if (step - 1) % self.schedule.check and step != self.schedule.steps:
                return
            success = self.successes(patterns, active)
        self.found.update(active, patterns, success, self.schedule.success)

    def successes(self, patterns: torch.Tensor, arms: torch.Tensor) -> torch.Tensor:
        """Each arm's share of all its images that reach the target."""
        eligible = self.eligible[arms].to(self.images)
        hits = torch.zeros_like(eligible)
        width = min(len(self.images), self.capacity)
        height = max(1, self.capacity // width)
        for top in range(0, len(arms), height):
            rows = slice(top, top + height)
            for left in range(0, len(self.images), width):
                images = self.images[left : left + width]
                stamped = (images[None] + patterns[rows, None]).clamp(0, 1)
                with torch.no_grad():
                    logits = self.logits(stamped.flatten(0, 1))
                reached = self._reached(logits, self.targets[arms[rows]].repeat_interleave(len(images)))
                hits[rows, left : left + width] = reached.view(-1, len(images)).to(hits)
        return (hits * eligible).sum(1) / eligible.sum(1).clamp(min=1)

    def gradient(
        self, parameters: torch.Tensor, arms: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each arm's loss by its parameters, and each arm's share of images that reach the target."""
        images, eligible = self.images[chosen], self.eligible[arms][:, chosen]
        share = eligible / eligible.sum(1, keepdim=True).clamp(min=1)  # arms x images; sums to one for an arm
        with torch.enable_grad():
            parameters = parameters.detach().requires_grad_()
            patterns = squashed(parameters)
            by_pattern, hits = self._by_pattern(patterns.detach(), self.targets[arms], images, share.to(images))
            size = (weights * size_term(parameters)).sum()
            (gradient,) = torch.autograd.grad((patterns, size), parameters, (by_pattern, torch.ones_like(size)))
        return gradient, (hits * share.to(images)).sum(1)

    def loss(
        self, parameters: torch.Tensor, arms: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor
    ) -> torch.Tensor:
        """What `gradient` is the gradient of, for each arm."""
        images, eligible = self.images[chosen], self.eligible[arms][:, chosen]
        stamped = (images[None] + squashed(parameters)[:, None]).clamp(0, 1)
        logits = self.logits(stamped.flatten(0, 1))
        targets = self.targets[arms].repeat_interleave(len(images))
        entropy = functional.cross_entropy(logits, targets, reduction="none").view(len(arms), -1)
        share = eligible / eligible.sum(1, keepdim=True).clamp(min=1)
        return (entropy * share).sum(1) + weights * size_term(parameters)

    def _by_pattern(
        self, patterns: torch.Tensor, targets: torch.Tensor, images: torch.Tensor, share: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The gradient of the cross-entropies by the patterns, in blocks of arms x images that fit the memory."""
        if not self.capacity:
            self.capacity = self._measure(patterns, targets, images, share)
        arms, count = share.shape
        width = min(count, self.capacity)
        height = max(1, self.capacity // width)
        gradient, hits = torch.zeros_like(patterns), torch.zeros_like(share)
        for top in range(0, arms, height):
            rows = slice(top, top + height)
            for left in range(0, count, width):
                columns = slice(left, left + width)
                part, hit = self._block(patterns[rows], targets[rows], images[columns], share[rows, columns])
                gradient[rows] += part
                hits[rows, columns] = hit
        return gradient, hits

    def _block(
        self, patterns: torch.Tensor, targets: torch.Tensor, images: torch.Tensor, share: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.enable_grad():
            patterns = patterns.detach().requires_grad_()
            stamped = (images[None] + patterns[:, None]).clamp(0, 1)  # arms, images, channels, height, width
            logits = self.logits(stamped.flatten(0, 1)).to(images.dtype)
            wanted = targets.repeat_interleave(len(images))
            loss = (functional.cross_entropy(logits, wanted, reduction="none") * share.flatten()).sum()
            (gradient,) = torch.autograd.grad(loss, patterns)
        return gradient, self._reached(logits.detach(), wanted).to(images.dtype).view(len(patterns), -1)

    def _reached(self, logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Which images the network gives the wanted class, and with enough confidence."""
        confidence = logits.softmax(1).gather(1, wanted[:, None])[:, 0]
        return (logits.argmax(1) == wanted) & (confidence >= self.schedule.confidence)

    def _measure(self, patterns: torch.Tensor, targets: torch.Tensor, images: torch.Tensor, share: torch.Tensor) -> int:
        """How many stamped images fit the memory at once."""
        largest = len(patterns) * len(images)
        if self.backend.device.type == "cpu":
            largest = min(largest, _LARGEST_CHUNK_ON_CPU)
        rows = torch.arange(largest, device=images.device) % len(images)
        sizes: list[int] = []

        def work(start: int, stop: int) -> None:
            self._block(patterns[:1], targets[:1], images[rows[start:stop]], share[:1, rows[start:stop]])
            sizes.append(stop - start)

        self.backend.chunked(work, largest)
        return max(sizes)

    def _images_of_step(self, draw: torch.Generator) -> torch.Tensor:
        count = len(self.images)
        chosen = torch.arange(count) if count <= self.batch else torch.randperm(count, generator=draw)[: self.batch]
        return chosen.to(self.images.device)

    def _going_on(self, active: torch.Tensor, setbacks: torch.Tensor, step: int) -> torch.Tensor:
        """The arms that may still improve."""
        hopeless = step >= self.schedule.hopeless_after
        converged = setbacks >= self.schedule.setbacks
        done = torch.where(self.found.passed[active], converged, torch.full_like(converged, hopeless))
        if self.drop is not None:
            done |= self.drop(step, self.found)[active]
        return active[~done]
