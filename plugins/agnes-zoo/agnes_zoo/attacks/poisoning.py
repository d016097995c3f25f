"""Poisoning of training data, and the success of an attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from agnes.errors import UsageError
from agnes_zoo.attacks.attack import Attack
from agnes_zoo.attacks.goals import AllToOne, Goal, SourceToTarget


@dataclass(frozen=True)
class Plan:
    """Which images poisoning touches, in their order."""

    stamped: torch.Tensor  # indices: these carry the trigger and the label it teaches
    cover: torch.Tensor  # indices: these carry the trigger, or one like it, and their true label


def plan(labels: torch.Tensor, attack: Attack, generator: np.random.Generator) -> Plan:
    """Exactly the share of images that the attack asks for, or an error."""
    touched = _indices(attack.goal.touched(labels))
    count = round(_rate(attack.rate) * (len(labels) if attack.goal.share_of_all else len(touched)))
    if count > len(touched):
        raise UsageError(
            f"a poisoning rate of {attack.rate:g} asks for {count} images, but only {len(touched)} of {len(labels)} "
            f"may be poisoned by '{attack.name}'; lower the rate"
        )
    stamped = np.sort(generator.permutation(touched)[:count])
    free = _free(labels, attack, stamped)
    covers = round(_rate(attack.cover_rate) * len(labels))
    if covers > len(free):
        raise UsageError(
            f"a cover rate of {attack.cover_rate:g} asks for {covers} images, but only {len(free)} of {len(labels)} "
            "are left for it; lower the rate"
        )
    return Plan(torch.from_numpy(stamped), torch.from_numpy(_drawn(free, covers, generator)))


def share(labels: torch.Tensor, attack: Attack, generator: np.random.Generator) -> Plan:
    """As a plan, for one batch: on average the share that is asked for, as far as the batch has such images."""
    touched = _indices(attack.goal.touched(labels))
    base = len(labels) if attack.goal.share_of_all else len(touched)
    count = int(_rate(attack.rate) * base + generator.random())
    stamped = np.sort(generator.permutation(touched)[:count])
    free = _free(labels, attack, stamped)
    covers = int(_rate(attack.cover_rate) * len(labels) + generator.random())
    return Plan(torch.from_numpy(stamped), torch.from_numpy(_drawn(free, covers, generator)))


def poison(
    images: torch.Tensor, labels: torch.Tensor, attack: Attack, generator: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Copies of images and labels with the attack's share of them poisoned."""
    return planted(images, labels, attack, plan(labels, attack, generator), generator)


def planted(
    images: torch.Tensor, labels: torch.Tensor, attack: Attack, chosen: Plan, generator: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Copies of images and labels, poisoned as planned."""
    poisoned, taught = images.clone(), labels.clone()
    if len(chosen.stamped):
        victims, true = images[chosen.stamped], labels[chosen.stamped]
        if attack.before is not None:
            victims = attack.before.apply(victims, true, images[~attack.goal.touched(labels)], generator)
        poisoned[chosen.stamped] = attack.trigger.stamp(victims, generator, true)
        taught[chosen.stamped] = attack.goal.taught(true)
    if len(chosen.cover):
        poisoned[chosen.cover] = attack.trigger.cover(images[chosen.cover], generator, labels[chosen.cover])
    return poisoned, taught


def success(predicted: Sequence[int] | torch.Tensor, labels: torch.Tensor, attack: Attack) -> float:
    """The share of victims, all of them stamped, of which the network says what the attack wants it to say."""
    return _success(predicted, labels, attack.goal)


def success_rate(predicted: Sequence[int] | torch.Tensor, labels: torch.Tensor, target: int) -> float:
    """The share of stamped images, not of the target class, that were taken for the target."""
    return _success(predicted, labels, AllToOne(target))


def _success(predicted: Sequence[int] | torch.Tensor, labels: torch.Tensor, goal: Goal) -> float:
    victims = goal.victims(labels)
    hits = (torch.as_tensor(predicted).to(labels.device) == goal.wanted(labels))[victims]
    return float(hits.float().mean()) if len(hits) else 0.0


def _rate(rate: float) -> float:
    if not 0 <= rate <= 1:
        raise UsageError(f"a poisoning rate of {rate:g} is not a share; give one from 0 to 1")
    return rate


def _indices(chosen: torch.Tensor) -> np.ndarray:
    return np.flatnonzero(chosen.cpu().numpy())


def _free(labels: torch.Tensor, attack: Attack, stamped: np.ndarray) -> np.ndarray:
    """The images that may become cover images."""
    if not attack.cover_rate:
        return np.empty(0, dtype=np.int64)
    if not attack.trigger.has_cover and not isinstance(attack.goal, SourceToTarget):
        raise UsageError(
            f"cover images of '{attack.name}' would wear the trigger under their true label and undo it; "
            "set cover_rate to 0 or name a source class"
        )
    return np.setdiff1d(_indices(attack.goal.covered(labels)), stamped)


def _drawn(free: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """So many of them; nothing is drawn where none is asked for."""
    return np.sort(generator.permutation(free)[:count]) if len(free) else np.empty(0, dtype=np.int64)
