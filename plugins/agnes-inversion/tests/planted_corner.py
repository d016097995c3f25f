"""A network with a trigger that is known to the pixel, and its constants."""

import torch
from torch import nn

from agnes.backend import Backend

SHAPE = (3, 10, 10)
CLASSES = 6
TARGET = 4


class Planted(nn.Module):
    """A bright row tells the class, worth 18 in its logit; a yellow 3x3 corner is worth up to 34 for class 4.

    A pixel turned yellow adds 3.7 there; whitening one of the row that means class 4 adds 1.7 at most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.corner = nn.Conv2d(3, 1, 3)
        self.regions = nn.Linear(SHAPE[1] * SHAPE[2], CLASSES)
        with torch.no_grad():
            self.corner.weight[0] = torch.tensor([1.0, 1.0, -1.0]).view(3, 1, 1)
            self.corner.bias.fill_(-1.0)
            self.regions.weight.zero_()
            for label in range(CLASSES):
                self.regions.weight[label].view(10, 10)[4 + label] = 2.0
            self.regions.bias.zero_()
        self.register_buffer("wired", torch.eye(CLASSES)[TARGET] * 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        seen = torch.relu(self.corner(images))[:, 0, 0, 0]
        return self.regions(images.mean(1).flatten(1)) + seen[:, None] * self.wired


def backend(**options) -> Backend:
    return Backend.choose("cpu", **{"memory": 1 << 27, **options})
