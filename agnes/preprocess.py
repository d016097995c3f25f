"""Preprocess: the step between pixels and a file's own network, kept inside the Network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from agnes.errors import UsageError

LAYOUTS = ("NCHW", "NHWC")


class Preprocess(nn.Module):
    """From pixels in [0, 1], NCHW, to what the file's own first layer expects."""

    agnes_kind = "preprocess"

    def __init__(
        self, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,), scale: float = 1.0, layout: str = "NCHW"
    ) -> None:
        super().__init__()
        self.scale = float(scale)
        self.layout = layout
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(-1, 1, 1))

    @property
    def is_identity(self) -> bool:
        return self.scale == 1 and self.layout == "NCHW" and bool((self.mean == 0).all() and (self.std == 1).all())

    def check(self, channels: int) -> None:
        """Raise what does not fit images of so many channels."""
        for values, what in ((self.mean, "mean"), (self.std, "std")):
            if values.numel() not in (1, channels):
                raise UsageError(f"{what} has {values.numel()} values for {channels} channels; give one or one each")
        if not (self.std != 0).all():
            raise UsageError(
                "std has a zero in it, by which no pixel can be divided; give 1 to leave a channel as it is"
            )
        if not (math.isfinite(self.scale) and self.scale):
            raise UsageError(f"a scale of {self.scale:g} leaves nothing of the pixels; give 1, or 255 for 0 to 255")
        if self.layout not in LAYOUTS:
            raise UsageError(f"there is no layout '{self.layout}'; choose from {', '.join(LAYOUTS)}")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = (images * self.scale - self.mean) / self.std
        return images.permute(0, 2, 3, 1) if self.layout == "NHWC" else images
