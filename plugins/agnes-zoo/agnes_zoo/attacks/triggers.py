"""Triggers: what is shown, where it lies and how strongly it covers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from agnes.errors import UsageError
from agnes_zoo.attacks.contents import YELLOW, Colour, What
from agnes_zoo.attacks.places import Box, Everywhere, Where

if TYPE_CHECKING:
    from agnes_zoo.attacks.preparing import Preparation


@dataclass(frozen=True)
class Trigger:
    """x' = x + opacity * mask * (what(x) - x)."""

    what: What = field(default_factory=Colour)
    where: Where = field(default_factory=Everywhere)
    opacity: float = 1.0  # 1 hides what lies below, 0 shows nothing of the trigger

    @property
    def needs_preparing(self) -> bool:
        """Whether `prepared` must be called before anything is stamped."""
        return self.what.needs_preparing

    @property
    def fine_tunes(self) -> bool:
        """Whether the attacked network starts from a clean one."""
        return self.what.fine_tunes

    @property
    def has_cover(self) -> bool:
        """Whether cover images differ from attacked ones."""
        return self.what.has_cover

    def stamp(
        self,
        images: torch.Tensor,
        generator: np.random.Generator | None = None,
        labels: torch.Tensor | None = None,  # which make no difference here; see ByClass
    ) -> torch.Tensor:
        """Copies of the images, N, C, H, W in [0, 1], with the trigger on them."""
        generator = np.random.default_rng(0) if generator is None else generator
        mask = self._mask(images, generator)
        return _blended(images, self.what.on(images, generator), mask)

    def cover(
        self, images: torch.Tensor, generator: np.random.Generator, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Copies of cover images, which are to keep their labels."""
        mask = self._mask(images, generator)
        return _blended(images, self.what.cover(images, generator), mask)

    def prepared(self, preparation: Preparation) -> Trigger:
        """This, with what had to be computed first."""
        here = replace(preparation, where=self.where, opacity=self.opacity)
        return replace(self, what=self.what.prepared(here))

    def _mask(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        if not 0 <= self.opacity <= 1:
            raise UsageError(f"an opacity of {self.opacity:g} is not a share; give one from 0 to 1")
        if not self.what.ready:
            raise UsageError(
                "this trigger is computed, or learnt with the network; call the attack's prepare first, and stamp with "
                "the attack that the training holds"
            )
        return self.where.mask(images, generator) * self.opacity


def _blended(images: torch.Tensor, shown: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.lerp(images, shown, mask.expand_as(images)).clamp(0, 1)


@dataclass(frozen=True)
class Patch:
    """A square of one colour at a fixed place."""

    size: int = 3  # pixels along each side
    place: tuple[int, int] = (27, 2)  # row and column of its upper left corner
    colour: tuple[float, ...] = YELLOW  # one value a channel, in [0, 1]

    @property
    def trigger(self) -> Trigger:
        """The patch as what, where and how strongly."""
        return Trigger(Colour(self.colour), Box(*self.place, self.size, self.size))

    def stamp(self, images: torch.Tensor) -> torch.Tensor:
        """Copies of the images, N, C, H, W in [0, 1], with the patch on them."""
        return self.trigger.stamp(images)

    def described(self) -> dict[str, Any]:
        """The patch as a JSON object."""
        return {"kind": "patch", "size": self.size, "place": list(self.place), "colour": list(self.colour)}

    @classmethod
    def from_description(cls, said: dict[str, Any]) -> Patch:
        """The patch a JSON object describes."""
        return cls(said["size"], (said["place"][0], said["place"][1]), tuple(said["colour"]))
