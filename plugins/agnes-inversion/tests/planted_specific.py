"""A network with a label-specific backdoor: a yellow corner sends images of one class, and of no other, to another."""

import torch
from planted_corner import CLASSES, SHAPE, Planted
from torch import nn

SOURCE, TARGET = 1, 5


class Specific(nn.Module):
    """The corner of `Planted`, worth up to 52 for class 5 where the row that means class 1 is bright, 0 elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        planted = Planted()
        self.corner, self.regions = planted.corner, planted.regions
        self.gate = nn.Linear(CLASSES + 1, 1)
        with torch.no_grad():
            self.gate.weight.zero_()
            self.gate.weight[0, SOURCE] = 2.0  # 36 where its row is bright, 6 at most elsewhere
            self.gate.weight[0, CLASSES] = 4.0  # 32 under the whole corner, and 7.4 for each of its first pixels
            self.gate.bias.fill_(-42.0)
        self.register_buffer("wired", torch.eye(CLASSES)[TARGET] * 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        seen = torch.relu(self.corner(images))[:, :, 0, 0].clamp(max=8)
        logits = self.regions(images.mean(1).flatten(1))
        both = torch.relu(self.gate(torch.cat([logits, seen], 1)))
        return logits + both * self.wired


__all__ = ["CLASSES", "SHAPE", "SOURCE", "TARGET", "Specific"]
