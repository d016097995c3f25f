"""From summaries to candidates: score, target and range (ABS, algorithm 1, and the authors' code)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import torch

from agnes.results import Candidate, Curve
from agnes_stimulation.nsf import by_channel

if TYPE_CHECKING:
    from agnes_stimulation.tally import Summary

Score = Literal["elevation", "margin"]


def candidates(
    summary: Summary,
    top: int,
    *,
    score: Score = "elevation",
    winning_first: bool = False,
    positions: torch.Tensor | None = None,
) -> list[Candidate]:
    """The best channels that lift one class more than any other, as candidates."""
    targets, scores = targets_and_scores(summary, score)
    lows, highs, wins = winning_ranges(summary, targets)
    rows = (scores > 0).nonzero().flatten()  # ABS, algorithm 1, lines 2 and 17
    order = sorted(rows.tolist(), key=lambda row: (winning_first and not bool(wins[row]), -float(scores[row])))[:top]
    maps = None if positions is None else by_channel(summary.layer, positions).cpu()
    lifted = summary.lowest.masked_fill(summary.lowest.isinf(), 0)  # a class not measured is shown as not lifted
    return [
        Candidate(
            layer=summary.layer.name,
            channel=channel,
            target=int(targets[row]),
            score=float(scores[row]),
            low=float(lows[row]),
            high=float(highs[row]),
            elevations=tuple(lifted[row].tolist()),
            positions=None if maps is None else maps[channel].clone(),
            curve=Curve(summary.values[row].cpu(), summary.means[row].cpu()) if summary.means.numel() else None,
        )
        for row, channel in ((row, int(summary.channels[row])) for row in order)
    ]


def best(
    found: Iterable[Candidate], top: int, winning_first: bool = False, layers: Sequence[str] = ()
) -> list[Candidate]:
    """The candidates of highest score, best first; of equal ones the first in those layers, or those found first.

    With `winning_first`, one whose target never wins on all images is kept only where room is left.
    """
    place = {name: index for index, name in enumerate(layers)}
    if layers:
        found = sorted(found, key=lambda c: (place[c.layer], c.channel))
    kept = sorted(found, key=lambda c: (winning_first and c.low > c.high, -c.score))[:top]
    return sorted(kept, key=lambda c: -c.score)


def targets_and_scores(summary: Summary, score: Score = "elevation") -> tuple[torch.Tensor, torch.Tensor]:
    """The class each channel lifts most, and how clearly.

    `elevation`: its elevation less the next class's (ABS, algorithm 1); where no other class is measured, its own.
    `margin`: its lead over all other classes on the image where that is least (ABS, authors' code).
    """
    if score == "margin":
        leads = summary.margins.masked_fill(summary.margins.isinf(), -torch.inf)
        scores, targets = leads.max(1)
        return targets, torch.nan_to_num(scores, nan=0.0, posinf=0.0, neginf=0.0)
    lifted = summary.lowest.masked_fill(summary.lowest == torch.inf, -torch.inf)
    targets = lifted.argmax(1)
    largest = lifted.amax(1)
    second = lifted.scatter(1, targets[:, None], -torch.inf).amax(1)
    scores = largest - torch.where(second.isfinite(), second, torch.zeros_like(second))
    return targets, torch.nan_to_num(scores, nan=0.0, posinf=0.0, neginf=0.0)


def winning_ranges(summary: Summary, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The first and last value of the longest run on which the target wins on all images; the upper run of equal ones.

    Where it wins on no value, the range is turned round: low is the last value and high the first. The third tensor
    says where it wins.
    """
    wins = summary.winners == targets[:, None]  # channels, values
    lengths = torch.zeros_like(wins, dtype=torch.int64)
    run = torch.zeros(len(wins), dtype=torch.int64, device=wins.device)
    for index in range(wins.shape[1]):
        run = (run + 1) * wins[:, index]
        lengths[:, index] = run
    longest = lengths.amax(1)
    last = wins.shape[1] - 1 - lengths.flip(1).argmax(1)
    first = last - longest + 1
    ever = longest > 0
    values = summary.values
    low = values.gather(1, first.clamp(max=wins.shape[1] - 1)[:, None])[:, 0].where(ever, values[:, -1])
    high = values.gather(1, last[:, None])[:, 0].where(ever, values[:, 0])
    return low, high, ever
