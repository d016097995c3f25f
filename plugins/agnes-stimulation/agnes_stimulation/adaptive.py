"""Adaptive sampling: more values where a function bends (ABS, section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from agnes_stimulation.nsf import Curves

if TYPE_CHECKING:
    from agnes.results import Candidate
    from agnes_stimulation.nsf import Stimulation

FEWEST = 4  # values to begin with
_GOLDEN = 0.6180339887498949
_ROUNDS = 2


def curves(stimulation: Stimulation, channels: torch.Tensor, highest: float, most: int, tolerance: float) -> Curves:
    """The functions of some channels: half of the values evenly, then where they bend."""
    found = stimulation.functions(channels, first_values(channels, highest, most - most // 2))
    left = most // 2
    for turn in range(_ROUNDS, 0, -1):
        adding = -(-left // turn)
        bent = bends(found.values, found.logits, tolerance)
        rows = (bent > 0).any(1).nonzero().flatten()
        if not len(rows) or not adding:
            break
        found = _with_more(stimulation, found, rows, between(found.values[rows], bent[rows], adding))
        left -= adding
    return found


def first_values(channels: torch.Tensor, highest: float, count: int) -> torch.Tensor:
    """Channels x values from 0 to the highest; those between lie elsewhere for each channel, so that no peak hides."""
    even = torch.linspace(0, highest, count, device=channels.device)
    step = highest / (count - 1)
    shift = (channels * _GOLDEN) % 1 - 0.5
    inner = torch.ones(count, device=channels.device)
    inner[[0, -1]] = 0
    return even + step * 0.5 * shift[:, None] * inner


def bends(values: torch.Tensor, logits: torch.Tensor, tolerance: float) -> torch.Tensor:
    """How far each interval's neighbours are from lying on its line, at most over images and classes; 0: straight.

    Channels x intervals, in logits. Three neighbours are on one line where their slopes differ by less than the
    tolerance, relative to the larger one.
    """
    widths = values.diff(dim=1)
    slopes = logits.diff(dim=1) / widths.clamp(min=torch.finfo(values.dtype).tiny)[..., None, None]
    slopes = slopes * (widths > 0)[..., None, None]
    change = slopes.diff(dim=1).abs()
    size = torch.maximum(slopes[:, 1:].abs(), slopes[:, :-1].abs())
    rounding = 1e-5 * logits.abs().amax((1, 2, 3), keepdim=True) / values[:, -1:, None, None].clamp(min=1e-30)
    off = change * (change > tolerance * size + rounding)
    off = off.flatten(2).amax(2) * torch.minimum(widths[:, 1:], widths[:, :-1])  # at the inner values
    bent = torch.zeros_like(widths)
    bent[:, 1:] = off
    bent[:, :-1] = torch.maximum(bent[:, :-1], off)
    return bent


def between(values: torch.Tensor, bent: torch.Tensor, count: int) -> torch.Tensor:
    """New values for each channel, in the middle of the intervals that bend most; an interval may be cut in three."""
    intervals = values.shape[1] - 1
    order = bent.argsort(dim=1, descending=True, stable=True)
    times = -(-count // intervals)
    chosen = order.repeat(1, times)[:, :count]
    cut = torch.arange(count, device=values.device) // intervals + 1  # first cut, second cut, ...
    low, high = values.gather(1, chosen), values.gather(1, chosen + 1)
    return low + (high - low) * (cut / (times + 1))


def followed(stimulation: Stimulation, candidate: Candidate, doublings: int, tolerance: float) -> float:
    """The last value at which a candidate's target still wins on all images, sought by doubling the range.

    It ends where the target loses, or where the slopes of all functions no longer change.
    """
    if candidate.curve is None or candidate.high < float(candidate.curve.values[-1]):
        return candidate.high
    channel = torch.tensor([candidate.channel], device=stimulation.images.device)
    values = candidate.high * 2.0 ** torch.arange(-1, doublings + 1, device=channel.device)
    logits = stimulation.functions(channel, values).logits[0]  # values, images, classes
    wins = (logits.argmax(2) == candidate.target).all(1).tolist()
    slopes = logits.diff(dim=0) / values.diff()[:, None, None]
    high = candidate.high
    for index in range(2, len(values)):
        if not wins[index]:
            break
        high = float(values[index])
        change = (slopes[index - 1] - slopes[index - 2]).abs()
        if bool((change <= tolerance * slopes[index - 1].abs() + 1e-6 * logits.abs().amax() / values[index]).all()):
            break
    return high


def _with_more(stimulation: Stimulation, found: Curves, rows: torch.Tensor, values: torch.Tensor) -> Curves:
    """The functions with more values in some channels; the others repeat their last one."""
    more = stimulation.functions(found.channels[rows], values)
    added = found.values[:, -1:].repeat(1, values.shape[1])
    logits = found.logits[:, -1:].repeat(1, values.shape[1], 1, 1)
    added[rows], logits[rows] = values, more.logits
    together = torch.cat([found.values, added], 1)
    order = together.argsort(dim=1, stable=True)
    logits = torch.cat([found.logits, logits], 1)
    rows_of = torch.arange(len(order), device=order.device)[:, None]
    return Curves(found.layer, found.channels, together[rows_of, order], logits[rows_of, order])
