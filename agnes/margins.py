"""How surely a network takes images for a class, in units of how sure it is of benign ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.differentiating import Logits

_LEAST = 1e-3


def every_margin(logits: torch.Tensor) -> torch.Tensor:
    """Of every class, how far its logit is above the largest other one; rows x classes."""
    best = logits.topk(2, dim=1)
    others = best.values[:, :1].expand_as(logits).clone()
    return logits - others.scatter_(1, best.indices[:, :1], best.values[:, 1:])


def margin(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """How far each row's target is above the largest other logit."""
    own = logits.gather(1, targets[:, None])
    return own[:, 0] - logits.scatter(1, targets[:, None], -math.inf).amax(1)


def benign_margin(logits: Logits, images: torch.Tensor, labels: torch.Tensor, backend: Backend) -> float:
    """The median margin of benign images that are taken for what they are; where none is, of all as they are taken."""
    with torch.no_grad():
        seen = backend.map(lambda part: logits(part).float(), images)
    right = margin(seen, labels)
    right = right[right > 0]
    return max(float((right if len(right) else margin(seen, seen.argmax(1))).median()), _LEAST)
