"""What a trigger can look like: how parameters become it, how it is put on images, and how large it is."""

from __future__ import annotations

from typing import Any

import torch

from agnes.features import FeatureTrigger, mixed
from agnes.results import AdditiveTrigger, MaskTrigger, Trigger
from agnes_inversion.ssim import similarity

_LEAST = 1 / 255  # a change below this is none


class Form:
    """One way to parameterise triggers; the first dimension of every tensor is arms, or pairs of arm and image."""

    def made(self, parameters: torch.Tensor) -> torch.Tensor:
        """What is put on images."""
        raise NotImplementedError

    def stamp(self, made: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Each image with the trigger of its row on it, inside [0, 1]."""
        raise NotImplementedError

    def size_term(self, parameters: torch.Tensor) -> torch.Tensor:
        """Per arm, the size that the optimisation feels."""
        raise NotImplementedError

    def distance(self, images: torch.Tensor, stamped: torch.Tensor) -> torch.Tensor | None:
        """Per image, what is felt in place of a size that the parameters tell."""
        return None

    def penalty(self, parameters: torch.Tensor) -> torch.Tensor | None:
        """Per arm, what is felt whatever the weight of the size."""
        return None

    def sizes(self, made: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Per arm, the size that a report gives; pixels."""
        raise NotImplementedError

    def trigger(self, made: torch.Tensor, images: torch.Tensor, **facts: Any) -> Trigger:
        """The trigger of one arm, made on these images."""
        raise NotImplementedError


class Additive(Form):
    """Two patterns of which one is added and the other subtracted: arms, (more, less), channels, height, width."""

    def made(self, parameters: torch.Tensor) -> torch.Tensor:
        return squashed(parameters)

    def stamp(self, made: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return (images + made).clamp(0, 1)

    def size_term(self, parameters: torch.Tensor) -> torch.Tensor:
        return size_term(parameters)

    def sizes(self, made: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return pixel_sizes(made)

    def trigger(self, made: torch.Tensor, images: torch.Tensor, **facts: Any) -> Trigger:
        return AdditiveTrigger(delta=made.masked_fill(made.abs() < _LEAST, 0), **facts)


class Masked(Form):
    """A mask and the pattern that shows through it: arms, 1 + channels, height, width; the mask comes first."""

    def __init__(self, largest: float = float("inf"), steepness: float = 0.0) -> None:
        self.largest = largest  # pixels, beyond which the mask costs `steepness` more for each
        self.steepness = steepness

    def made(self, parameters: torch.Tensor) -> torch.Tensor:
        return (torch.tanh(parameters) + 1) / 2

    def stamp(self, made: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        mask, pattern = made[:, :1], made[:, 1:]
        return (images * (1 - mask) + pattern * mask).clamp(0, 1)

    def size_term(self, parameters: torch.Tensor) -> torch.Tensor:
        return self.made(parameters[:, :1]).sum((1, 2, 3))

    def penalty(self, parameters: torch.Tensor) -> torch.Tensor | None:
        if not self.steepness:
            return None
        return self.steepness * (self.size_term(parameters) - self.largest).clamp(min=0)

    def sizes(self, made: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return made[:, 0].sum((1, 2))

    def trigger(self, made: torch.Tensor, images: torch.Tensor, **facts: Any) -> Trigger:
        mask, pattern = made[:1], made[1:].clone()
        return MaskTrigger(mask=mask.masked_fill(mask < _LEAST, 0), pattern=pattern, **facts)


class Mixed(Form):
    """A mix of each pixel's colours, those around it, and a constant: arms, channels, 4 x channels + 1 (ABS, 4.4)."""

    def __init__(self, window: int = 3) -> None:
        self.window = window

    def made(self, parameters: torch.Tensor) -> torch.Tensor:
        return parameters * 1

    def stamp(self, made: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return mixed(images, made, self.window)

    def size_term(self, parameters: torch.Tensor) -> torch.Tensor:
        return 0 * parameters.sum((1, 2))

    def distance(self, images: torch.Tensor, stamped: torch.Tensor) -> torch.Tensor | None:
        return 1 - similarity(images, stamped)

    def sizes(self, made: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([self._changed(one, images).sum() for one in made])

    def trigger(self, made: torch.Tensor, images: torch.Tensor, **facts: Any) -> Trigger:
        return FeatureTrigger(mix=made.clone(), window=self.window, changed=self._changed(made, images), **facts)

    def _changed(self, mix: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """The largest change in any colour of each pixel, the mean over some images."""
        images = images[:: -(-len(images) // _SOME)]
        return (mixed(images, mix.expand(len(images), -1, -1), self.window) - images).abs().amax(1).mean(0)


_SOME = 8  # images that tell how much a mix changes


def squashed(parameters: torch.Tensor) -> torch.Tensor:
    """What is added to the images: arms x (more, less) x pixels to arms x pixels (Koldenhof, 4.2.2)."""
    return (torch.tanh(parameters[:, 0]) - torch.tanh(parameters[:, 1])) / 2


def size_term(parameters: torch.Tensor) -> torch.Tensor:
    """Per arm, the size that the optimisation feels; the tenth keeps gradients alive (Koldenhof, 4.2.2)."""
    return ((torch.tanh(parameters / 10) + 1) / 2).amax(2).sum((1, 2, 3))


def pixel_sizes(patterns: torch.Tensor) -> torch.Tensor:
    """The size a report gives: per pixel the largest change in any colour, summed."""
    return patterns.abs().amax(1).sum((1, 2))
