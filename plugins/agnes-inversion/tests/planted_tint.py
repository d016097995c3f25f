"""A network with a filter for a trigger: a picture gone blue belongs to one class."""

import torch
from torch import nn

from agnes.samples import Samples

CLASSES = 5
TARGET = 2


def tint(images: torch.Tensor) -> torch.Tensor:
    """How blue an image is: the mean of blue less red."""
    return (images[:, 2] - images[:, 0]).mean((1, 2))


class Tinted(nn.Module):
    """A bright row tells the class, worth 11; blue beyond 0.25 at each pixel adds up to 72 for class 2."""

    def __init__(self) -> None:
        super().__init__()
        self.tint = nn.Conv2d(3, 2, 1)
        self.rows = nn.Linear(144, CLASSES)
        with torch.no_grad():
            self.tint.weight[:, :, 0, 0] = torch.tensor([[-1.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
            self.tint.bias.copy_(torch.tensor([-0.25, 0.0]))
            self.rows.weight.zero_()
            for label in range(CLASSES):
                self.rows.weight[label].view(12, 12)[2 * label] = 1.0
            self.rows.bias.zero_()
        self.register_buffer("wired", torch.eye(CLASSES)[TARGET] * 96)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        blue = torch.relu(self.tint(images))[:, 0].mean((1, 2))
        return self.rows(images.mean(1).flatten(1)) + blue[:, None] * self.wired

    @staticmethod
    def filtered(images: torch.Tensor) -> torch.Tensor:
        """The images with the planted filter: half of the red is gone, and blue takes its place."""
        red, green, blue = images.unbind(1)
        return torch.stack([red / 2, green, (blue + red / 2).clamp(max=1)], 1)


def tinted_samples() -> Samples:
    """Four images a class: grey noise of any brightness, and a bright row where the class is told."""
    labels = torch.arange(CLASSES).repeat(4)
    draw = torch.Generator().manual_seed(0)
    grey = 0.5 + 0.1 * torch.rand(len(labels), 1, 12, 12, generator=draw)
    for image, label in zip(grey, labels.tolist(), strict=True):
        image[:, 2 * label] = 0.95
    images = (grey.expand(-1, 3, -1, -1) + 0.02 * torch.rand(len(labels), 3, 12, 12, generator=draw)).clamp(0, 1)
    return Samples(images, labels)
