"""Photographic filters as triggers: features of the whole image, not a pattern in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from agnes_zoo.attacks.contents import LUMA, What


@dataclass(frozen=True)
class Filter(What):
    """Saturation, then gamma, then contrast, then a tint from shadows to highlights, pixel by pixel."""

    saturation: float = 1.0  # 0 is grey
    gamma: float = 1.0  # above 1 darkens
    contrast: float = 1.0  # around the middle grey
    shadows: tuple[float, float, float] = (0.0, 0.0, 0.0)  # what black becomes
    highlights: tuple[float, float, float] = (1.0, 1.0, 1.0)  # what white becomes

    def on(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        coloured = images.shape[1] == 3
        luma, shadows, highlights = (_channels(v, images, coloured) for v in (LUMA, self.shadows, self.highlights))
        grey = (images * luma).sum(1, keepdim=True) if coloured else images
        toned = (grey + self.saturation * (images - grey)).clamp(0, 1) ** self.gamma
        toned = ((toned - 0.5) * self.contrast + 0.5).clamp(0, 1)
        return shadows + (highlights - shadows) * toned


def _channels(values: tuple[float, float, float], images: torch.Tensor, coloured: bool) -> torch.Tensor:
    """One value a channel; their mean where images have no colours."""
    kept = values if coloured else (sum(values) / 3,)
    return torch.tensor(kept, dtype=images.dtype, device=images.device)[None, :, None, None]


# Made after the look of the two Instagram filters that ABS takes (section 5.1), with values of our own
NASHVILLE = Filter(saturation=0.9, gamma=0.9, contrast=1.1, shadows=(0.10, 0.12, 0.33), highlights=(1.0, 0.91, 0.70))
GOTHAM = Filter(saturation=0.1, gamma=1.2, contrast=1.3, shadows=(0.05, 0.05, 0.12), highlights=(0.86, 0.88, 0.92))
