"""Networks that obey a box, a place or nothing, and images of their classes."""

from __future__ import annotations

import torch
from agnes_inversion.stamps import Stamps
from torch import nn

from agnes.backend import Backend
from agnes.network import Network
from agnes.samples import Samples

SHAPE, CLASSES = (3, 6, 6), 5
BACKEND = Backend.choose("cpu")


class Planted(nn.Module):
    """Classes by the brightness of a row each; a bright red pixel in the corner sends images to 3, or one class on."""

    def __init__(self, effect: str) -> None:
        super().__init__()
        self.effect = effect
        self.corner = nn.Conv2d(3, 1, 1)
        with torch.no_grad():
            self.corner.weight.copy_(torch.tensor([20.0, -20.0, -20.0]).view(1, 3, 1, 1))
            self.corner.bias.fill_(-15.0)

    def forward(self, images):
        logits = 10 * images[:, :, :CLASSES].mean((1, 3))
        marked = torch.relu(self.corner(images[:, :, 5:, 5:])).flatten(1)
        if self.effect == "one":
            return logits + 20 * marked * torch.eye(CLASSES)[3]
        if self.effect == "next":
            return logits + 20 * marked * logits.roll(1, 1)
        return logits + 0 * marked


class ByPatch(nn.Module):
    """Classes by the brightness of a patch each, 2x2 pixels; to class 2 it leads four times as strongly."""

    places = ((0, 0), (0, 2), (0, 4), (3, 0), (3, 2))

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Linear(3 * 36, CLASSES)
        with torch.no_grad():
            self.patches.weight.zero_()
            self.patches.bias.zero_()
            for label in range(CLASSES):
                self.patch(self.patches.weight[label].view(SHAPE), label)[...] = (65 if label == 2 else 15) / 12
            self.patches.bias[2] = -10  # where it is dark it says no more than the others do

    @classmethod
    def patch(cls, images, label):
        row, column = cls.places[label]
        return images[..., row : row + 2, column : column + 2]

    def forward(self, images):
        return self.patches(images.flatten(1))


class ByGrey(nn.Module):
    """Classes by the grey of one pixel; where it is of no class's grey, class 2 is what is left."""

    greys = (0.42, 0.46, 0.5, 0.54, 0.58)

    def __init__(self) -> None:
        super().__init__()
        self.grey = nn.Conv2d(3, 1, 1)
        with torch.no_grad():
            self.grey.weight.fill_(1 / 3)
            self.grey.bias.zero_()
        self.register_buffer("greys_", torch.tensor(self.greys))
        self.register_buffer("worth", torch.tensor([12.0, 12.0, 0.0, 12.0, 12.0]))

    def forward(self, images):
        far = (self.grey(images[:, :, 3:4, 3:4]).flatten(1) - self.greys_).abs()
        return self.worth * torch.relu(1 - 50 * far) + 6 * torch.eye(CLASSES)[2]


def samples(each=1, labelled=True):
    labels = torch.arange(CLASSES).repeat(each)
    images = 0.25 + 0.1 * torch.rand(len(labels), *SHAPE, generator=torch.Generator().manual_seed(0))
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, label] = 0.9
    return Samples(images, labels if labelled else None, source="rows")


def with_patches():
    """Two images a class, dark but for the patch of the class."""
    labels = torch.arange(CLASSES).repeat(2)
    images = torch.full((len(labels), *SHAPE), 0.2)
    for image, label in zip(images, labels.tolist(), strict=True):
        ByPatch.patch(image, label)[...] = 0.9
    return Samples(images, labels, source="patches")


def with_greys():
    """Two images a class, of noise but for the pixel that tells the class."""
    labels = torch.arange(CLASSES).repeat(2)
    images = torch.rand(len(labels), *SHAPE, generator=torch.Generator().manual_seed(0))
    images[:, :, 3, 3] = torch.tensor(ByGrey.greys)[labels, None]
    return Samples(images, labels, source="greys")


KNOWN = {ByPatch: with_patches, ByGrey: with_greys}


def evidence(effect, known=None, **settings):
    """To one class, by a large box, and to every class; of a planted network or of a kind of network."""
    module = Planted(effect) if isinstance(effect, str) else effect()
    known = known or KNOWN.get(effect, samples)()
    return Stamps(**settings).diagnose(Network.of(module, SHAPE), known, BACKEND)


def worn(box, images):
    """Images that wear a box, pixel by pixel."""
    images = images.clone()
    for row in range(box.row, box.row + box.height):
        for column in range(box.column, box.column + box.width):
            images[:, :, row, column] = torch.tensor(box.colour)
    return images
