"""From stimulation functions to candidates: elevation, score, target and range (ABS, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from agnes.results import Candidate
from agnes_stimulation.nsf import by_channel

if TYPE_CHECKING:
    from agnes_stimulation.nsf import Curves


def candidates(
    curves: Curves,
    logits: torch.Tensor,  # of the images as they are: images, classes
    classes: torch.Tensor,  # of the images
    *,
    quantile: float = 0.0,
    positions: torch.Tensor | None = None,
) -> list[Candidate]:
    """A candidate for each channel that lifts one class more than any other."""
    lifted = elevations(curves, logits, classes, quantile)
    targets, scores = targets_and_scores(lifted)
    lows, highs = winning_ranges(curves, targets)
    maps = None if positions is None else by_channel(curves.layer, positions).cpu()
    found = zip(
        curves.channels.tolist(),
        targets.tolist(),
        scores.tolist(),
        lows.tolist(),
        highs.tolist(),
        lifted.masked_fill(lifted.isinf(), 0).tolist(),  # a class not measured is shown as not lifted
        strict=True,
    )
    return [
        Candidate(
            layer=curves.layer.name,
            channel=channel,
            target=target,
            score=score,
            low=low,
            high=high,
            elevations=tuple(lift),
            positions=None if maps is None else maps[channel].clone(),
        )
        for channel, target, score, low, high, lift in found
        if score > 0  # ABS, algorithm 1, lines 2 and 17
    ]


def best(found: Iterable[Candidate], top: int, winning_first: bool = False) -> list[Candidate]:
    """The candidates of highest score, best first; those found first where scores are equal.

    With `winning_first`, one whose target never wins on all images is kept only where room is left.
    """
    kept = sorted(found, key=lambda c: (winning_first and c.low > c.high, -c.score))[:top]
    return sorted(kept, key=lambda c: -c.score)


def elevations(curves: Curves, logits: torch.Tensor, classes: torch.Tensor, quantile: float = 0.0) -> torch.Tensor:
    """How far each channel lifts each class on the image it lifts least: channels, classes.

    Images of a class do not count for that class. A class that all images are of was not measured: -inf.
    """
    lifts = curves.logits.amax(1) - logits  # channels, images, classes
    own = torch.nn.functional.one_hot(classes, logits.shape[1]).bool()
    lifts = lifts.masked_fill(own, float("inf"))
    lowest = lifts.amin(1) if quantile == 0 else _quantile(lifts, (~own).sum(0), quantile)
    return lowest.masked_fill(own.all(0), -float("inf"))


def targets_and_scores(lifted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The class each channel lifts most, and by how much more than the next; than 0 where no other is measured."""
    targets = lifted.argmax(1)
    largest = lifted.amax(1)
    second = lifted.scatter(1, targets[:, None], -float("inf")).amax(1)
    scores = largest - torch.where(second.isfinite(), second, torch.zeros_like(second))
    return targets, torch.nan_to_num(scores, nan=0.0, posinf=0.0, neginf=0.0)


def winning_ranges(curves: Curves, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first and last value of the longest run on which the target wins on all images; the upper run of equal ones.

    Where it wins on no value, the range is turned round: low is the last value and high the first.
    """
    wins = (curves.logits.argmax(3) == targets[:, None, None]).all(2)  # channels, values
    lengths = torch.zeros_like(wins, dtype=torch.int64)
    run = torch.zeros(len(wins), dtype=torch.int64, device=wins.device)
    for index in range(wins.shape[1]):
        run = (run + 1) * wins[:, index]
        lengths[:, index] = run
    longest = lengths.amax(1)
    last = wins.shape[1] - 1 - lengths.flip(1).argmax(1)
    first = last - longest + 1
    never = longest == 0
    low = curves.values[first.clamp(max=wins.shape[1] - 1)].where(~never, curves.values[-1])
    return low, curves.values[last].where(~never, curves.values[0])


def _quantile(lifts: torch.Tensor, counts: torch.Tensor, quantile: float) -> torch.Tensor:
    """A quantile over the images that count for each class, between neighbours by proportion."""
    ordered = lifts.sort(1).values
    place = quantile * (counts.clamp(min=1) - 1)
    below = place.floor().long()
    above = place.ceil().long()
    lower = ordered.gather(1, below.expand(len(lifts), 1, -1))[:, 0]
    upper = ordered.gather(1, above.expand(len(lifts), 1, -1))[:, 0]
    return torch.lerp(lower, upper, (place - below).to(lower.dtype))
