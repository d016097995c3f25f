"""Plane waves over whole images: evidence in itself. Ours; no paper's."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from agnes.errors import UsageError
from agnes.results import AdditiveTrigger
from agnes_inversion.trying import Family, Trying

if TYPE_CHECKING:
    from agnes.network import Network
    from agnes.samples import Samples

CYCLES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12)  # over an image's side
_WAYS = {"across": (0, 1), "down": (1, 0), "along the diagonal": (1, 1), "against the diagonal": (-1, 1)}
_PHASES = 4


class Plane(Family):
    """Grey sine waves of some cycles, ways and phases, of one strength."""

    def __init__(self, shape: tuple[int, ...], bound: float, device: torch.device) -> None:
        self.shape, self.bound = shape, bound
        self.kinds = list(itertools.product(CYCLES, _WAYS, range(_PHASES)))
        self.groups = [cycles for cycles, _, _ in self.kinds]
        height, width = shape[1:]
        rows, columns = torch.arange(height)[:, None] / height, torch.arange(width)[None] / width
        waves = []
        for cycles, way, phase in self.kinds:
            down, across = _WAYS[way]
            waves.append(torch.sin(2 * math.pi * (cycles * (down * rows + across * columns) + phase / _PHASES)))
        self.waves = (bound * torch.stack(waves))[:, None].to(device)  # waves, 1, height, width

    def changed(self, numbers: Sequence[int], images: torch.Tensor) -> torch.Tensor:
        return (images + self.waves[list(numbers)].to(images)[:, None]).clamp(0, 1)

    def trigger(self, number: int, target: int) -> AdditiveTrigger:
        return AdditiveTrigger(target=target, asr=0.0, held_out=0, delta=self.waves[number].expand(self.shape).clone())

    def described(self, number: int) -> str:
        cycles, way, phase = self.kinds[number]
        return f"a wave of {cycles} cycles {way}, shifted by {phase}/{_PHASES} of one, of strength {self.bound:g}"


@dataclass(frozen=True)
class Waves(Trying):
    """Try waves of many lengths, ways and phases: is there one that sends all images to a class?"""

    preference: ClassVar[int] = 5
    what: ClassVar[str] = "wave"

    looks: int = 60  # images at least that the best are tried on; where there are fewer, on several views of each
    spared: float = 1.0  # how much a wave counts for less where others as long make images lose their class as well
    bound: float = 0.1  # strength, of full brightness

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bound > 0:
            raise UsageError("waves.bound must be above 0")

    def suits(self, network: Network) -> str | None:
        return "forward passes alone tell what a wave does"

    def family(self, network: Network, known: Samples) -> Plane:
        return Plane(network.input_shape, self.bound, known.images.device)
