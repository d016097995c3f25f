"""The search for small triggers: many arms optimised as one batch against frozen weights, each with its own cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from agnes.errors import OutOfTime
from agnes_inversion.varying import varied

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes_inversion.forms import Form
    from agnes_inversion.goals import Goal

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
    from_zero: bool = False  # whether the size weighs nothing until the first run of successes
    largest: float = float("inf")  # pixels; above it the weight rises though the trigger fails
    vary: bool = False  # whether every step sees other views of the images


@dataclass
class Found:
    """The best trigger of each arm so far: the smallest that succeeded, else the one that succeeded most."""

    made: torch.Tensor  # arms, ...: as the form makes it
    sizes: torch.Tensor  # arms; pixels
    success: torch.Tensor  # arms; on the images it was made on
    passed: torch.Tensor  # arms; bool
    improved: torch.Tensor  # arms; bool: in the last step, and noticeably
    dropped: torch.Tensor  # arms; bool: stopped for the sake of others

    @classmethod
    def none(cls, made: torch.Tensor) -> Found:
        arms, device = len(made), made.device
        return cls(
            torch.zeros_like(made),
            torch.full((arms,), float("inf"), device=device, dtype=made.dtype),
            torch.full((arms,), -1.0, device=device, dtype=made.dtype),
            *(torch.zeros(arms, dtype=torch.bool, device=device) for _ in range(3)),
        )

    def better(self, one: int, other: int) -> bool:
        """Whether one arm has found more than another."""
        if bool(self.passed[one] & self.passed[other]):
            return bool(self.sizes[one] < self.sizes[other])
        return bool(self.success[one] > self.success[other])

    def rank(self, arm: int) -> tuple[bool, float]:
        """What arms are put in order by, the one that has found most first."""
        passed = bool(self.passed[arm])
        return not passed, float(self.sizes[arm] if passed else -self.success[arm])

    def update(
        self, arms: torch.Tensor, made: torch.Tensor, sizes: torch.Tensor, success: torch.Tensor, bound: float
    ) -> None:
        """Keep what these arms have now where it is better."""
        passes = success >= bound
        before, had = self.sizes[arms], self.passed[arms]
        smaller = passes & (~had | (sizes < before))
        stronger = ~passes & ~had & (success > self.success[arms])
        better = smaller | stronger
        kept = arms[better]
        self.made[kept] = made[better]
        self.sizes[kept] = sizes[better]
        self.success[kept] = success[better]
        self.passed[arms] = had | passes
        self.improved[arms] = stronger | (smaller & (~had | (sizes < 0.99 * before)))  # 1 %: worth going on for


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
        self.values = torch.full_like(arms, 0 if schedule.from_zero else schedule.weight)
        self.run = torch.zeros_like(arms)  # steps of the same outcome in a row; below zero: failures
        self.setbacks = torch.zeros_like(arms)  # times lowered since the arm last improved

    def follow(self, arms: torch.Tensor, succeeded: torch.Tensor, improved: torch.Tensor) -> None:
        s = self.schedule
        run = self.run[arms]
        run = torch.where(succeeded, run.clamp(min=0) + 1, run.clamp(max=0) - 1)
        settled = run.abs() >= s.patience
        factor = torch.ones_like(run)
        factor[run >= s.patience] = s.raise_by
        factor[run <= -s.patience] = 1 / s.lower_by
        self.run[arms] = torch.where(settled, torch.zeros_like(run), run)
        self.setbacks[arms] = torch.where(improved, 0, self.setbacks[arms] + (run <= -s.patience))
        before = self.values[arms]
        after = (before * factor).clamp(s.weight * _FADE, s.weight / _FADE)
        begun = torch.where(run >= s.patience, s.weight, before)
        self.values[arms] = torch.where(before > 0, after, begun)


@dataclass
class Search:
    """Triggers for all arms at once."""

    form: Form
    goal: Goal
    logits: Callable[[torch.Tensor], torch.Tensor]
    images: torch.Tensor  # images, channels, height, width
    targets: torch.Tensor  # arms
    eligible: torch.Tensor  # arms x images, bool
    schedule: Schedule
    backend: Backend
    batch: int  # images an arm sees in one step
    groups: torch.Tensor | None = None  # of each image, where a step sees `batch` images of every group
    drop: Callable[[int, Found], torch.Tensor] | None = None  # step, what was found -> arms to stop, bool
    found: Found = field(init=False, repr=False)
    capacity: int = field(init=False, default=0)

    def run(self, parameters: torch.Tensor) -> Found:
        """Optimise from here; when time runs out, what was found so far travels with the error."""
        parameters, taken = parameters.clone(), self.images
        self.found = Found.none(self.form.made(parameters))
        descent = Descent(parameters, self.schedule.rate, self.schedule.betas)
        weights = Weights(torch.zeros(len(parameters), device=parameters.device, dtype=parameters.dtype), self.schedule)
        active = torch.arange(len(parameters), device=parameters.device)
        draw = self.backend.generator("inversion batches", device="cpu")
        try:
            with self.backend.progress("inverting triggers", self.schedule.steps) as tick:
                for step in range(1, self.schedule.steps + 1):
                    if not len(active):
                        break
                    if self.schedule.vary:
                        self.images = varied(taken, draw)
                    chosen = self._images_of_step(draw)
                    gradient, success = self.gradient(parameters[active], active, weights.values[active], chosen)
                    success = self._keep(parameters, active, success, bool(chosen.all()), step)
                    if success is not None:
                        weights.follow(active, success, self.found.improved[active])
                    descent.step(active, gradient, step)
                    active = self._going_on(active, weights.setbacks[active], step)
                    tick(1)
        except OutOfTime as error:
            error.partial = self.found
            raise
        finally:
            self.images = taken
        return self.found

    def _keep(
        self, parameters: torch.Tensor, active: torch.Tensor, success: torch.Tensor | None, whole: bool, step: int
    ) -> torch.Tensor | None:
        """Keep what the arms have now where it is better, judged on all of their images; whether they do well."""
        made = self.form.made(parameters[active])
        sizes: torch.Tensor | None = None
        look = not (step - 1) % self.schedule.check or step == self.schedule.steps
        if (whole and success is not None) or look:
            everywhere = success if whole and success is not None else self.successes(made, active)
            sizes = self.form.sizes(made, self.images)
            self.found.update(active, made, sizes, everywhere, self.schedule.success)
            success = everywhere if success is None else success
        else:
            self.found.improved[active] = False
        if success is None:
            return None
        well = success >= self.schedule.success
        if self.schedule.largest < float("inf"):
            well |= (self.form.sizes(made, self.images) if sizes is None else sizes) > self.schedule.largest
        return well

    def successes(self, made: torch.Tensor, arms: torch.Tensor) -> torch.Tensor:
        """Each arm's share of all its images that reach the target."""
        rows, columns, share = self._pairs(arms, torch.ones(len(self.images), dtype=torch.bool, device=arms.device))
        reached = torch.zeros(len(arms), dtype=made.dtype, device=made.device)
        for part in self._chunks(len(rows)):
            with torch.no_grad():
                stamped = self.form.stamp(made[rows[part]], self.images[columns[part]])
                hits = self._reached(self.logits(stamped), self.targets[arms[rows[part]]])
            first, owners = _owners(rows[part])
            reached[first : first + len(owners)] += owners.to(made) @ (hits.to(made) * share[part])
        return reached

    def gradient(
        self, parameters: torch.Tensor, arms: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Of each arm's loss by its parameters, and each arm's share of images that reach the target, if it is told."""
        with torch.enable_grad():
            parameters = parameters.detach().requires_grad_()
            made = self.form.made(parameters)
            by_made, success = self._by_made(made.detach(), arms, weights, chosen)
            size = self._felt(parameters, weights).sum()
            (gradient,) = torch.autograd.grad((made, size), parameters, (by_made, torch.ones_like(size)))
        return gradient, success

    def loss(
        self, parameters: torch.Tensor, arms: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor
    ) -> torch.Tensor:
        """What `gradient` is the gradient of, for each arm."""
        rows, columns, share = self._pairs(arms, chosen)
        each, _ = self._losses(self.form.made(parameters)[rows], arms[rows], weights[rows], columns)
        return self._felt(parameters, weights).index_add(0, rows, each * share)

    def _felt(self, parameters: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Per arm, what the parameters alone cost."""
        penalty = self.form.penalty(parameters)
        felt = weights * self.form.size_term(parameters)
        return felt if penalty is None else felt + penalty

    def _losses(
        self, made: torch.Tensor, arms: torch.Tensor, weights: torch.Tensor, columns: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Per pair of arm and image, what the image under the trigger costs; and its logits, where they are known."""
        images = self.images[columns]
        stamped = self.form.stamp(made, images)
        loss, logits = self.goal(stamped, arms, columns)
        distance = self.form.distance(images, stamped)
        return (loss if distance is None else loss + weights * distance), logits

    def _pairs(self, arms: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Places in `arms` and in the images that belong together, arm by arm; shares that sum to one for an arm."""
        rows, columns = (self.eligible[arms] & chosen).nonzero(as_tuple=True)
        counts = torch.bincount(rows, minlength=len(arms))
        return rows, columns, 1 / counts[rows].to(self.images)

    def _by_made(
        self, made: torch.Tensor, arms: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The gradient of the images' losses by what is put on them, in chunks of pairs that fit the memory."""
        if not self.capacity:
            self.capacity = self._measure(made, arms, weights)
        rows, columns, share = self._pairs(arms, chosen)
        gradient, success, told = torch.zeros_like(made), torch.zeros_like(weights), True
        for part in self._chunks(len(rows)):
            here = rows[part]
            by_pair, hits = self._chunk(made[here], arms[here], weights[here], columns[part], share[part])
            first, owners = _owners(here)
            kept = slice(first, first + len(owners))
            gradient[kept] += (owners.to(made) @ by_pair.flatten(1)).view(len(owners), *made.shape[1:])
            if hits is None:
                told = False
            else:
                success[kept] += owners.to(made) @ (hits.to(made) * share[part])
        return gradient, success if told else None

    def _chunk(
        self,
        made: torch.Tensor,
        arms: torch.Tensor,
        weights: torch.Tensor,
        columns: torch.Tensor,
        share: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Of some pairs, the gradient of each one's share of its arm's loss, and which images reach the target."""
        with torch.enable_grad():
            made = made.detach().requires_grad_()
            each, logits = self._losses(made, arms, weights, columns)
            (gradient,) = torch.autograd.grad((each * share).sum(), made)
        return gradient, None if logits is None else self._reached(logits.detach(), self.targets[arms])

    def _reached(self, logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Which images the network gives the wanted class, and with enough confidence."""
        confidence = logits.softmax(1).gather(1, wanted[:, None])[:, 0]
        return (logits.argmax(1) == wanted) & (confidence >= self.schedule.confidence)

    def _chunks(self, count: int) -> list[slice]:
        return [slice(start, min(count, start + self.capacity)) for start in range(0, count, self.capacity)]

    def _measure(self, made: torch.Tensor, arms: torch.Tensor, weights: torch.Tensor) -> int:
        """How many stamped images fit the memory at once."""
        largest = len(arms) * len(self.images)
        if self.backend.device.type == "cpu":
            largest = min(largest, _LARGEST_CHUNK_ON_CPU)
        rows = torch.arange(largest, device=arms.device) % len(arms)
        columns = torch.arange(largest, device=arms.device) % len(self.images)

        def work(start: int, stop: int) -> None:
            part = rows[start:stop]
            self._chunk(made[part], arms[part], weights[part], columns[start:stop], weights.new_ones(len(part)))

        return self.backend.room(work, largest)

    def _images_of_step(self, draw: torch.Generator) -> torch.Tensor:
        """Which images are seen: `batch` at most, of all or of every group."""
        count, device = len(self.images), self.images.device
        groups = torch.zeros(count) if self.groups is None else self.groups.cpu()
        chosen = torch.zeros(count, dtype=torch.bool)
        for group in groups.unique():
            members = (groups == group).nonzero()[:, 0]
            if len(members) > self.batch:
                members = members[torch.randperm(len(members), generator=draw)[: self.batch]]
            chosen[members] = True
        return chosen.to(device)

    def _going_on(self, active: torch.Tensor, setbacks: torch.Tensor, step: int) -> torch.Tensor:
        """The arms that may still improve."""
        hopeless = step >= self.schedule.hopeless_after
        converged = setbacks >= self.schedule.setbacks
        done = torch.where(self.found.passed[active], converged, torch.full_like(converged, hopeless))
        if self.drop is not None:
            dropped = self.drop(step, self.found)[active]
            self.found.dropped[active] = dropped
            done |= dropped
        return active[~done]


def _owners(rows: torch.Tensor) -> tuple[int, torch.Tensor]:
    """The first of some sorted rows, and from there on which pairs belong to which: rows x pairs, bool.

    A product with it sums pairs up in an order of its own, the same on every device and every time.
    """
    first = int(rows[0])
    return first, torch.arange(first, int(rows[-1]) + 1, device=rows.device)[:, None] == rows[None]
