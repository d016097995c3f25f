"""Colour filters as photographers use them: evidence in itself. Ours; no paper's."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from agnes.errors import UsageError
from agnes.features import FeatureTrigger, identity
from agnes_inversion.trying import Family, Trying

if TYPE_CHECKING:
    from agnes.network import Network
    from agnes.samples import Samples

_LUMA = (0.299, 0.587, 0.114)
_SATURATION = (0.0, 0.4, 1.0, 1.6)
_CONTRAST = (0.75, 1.0, 1.3)
_BRIGHTNESS = (-0.1, 0.0, 0.1)
_TINT = 0.12  # of full brightness, for each colour it adds or takes
_SIZED = 16  # images at most that a filter's change is measured on, of all classes alike


@dataclass(frozen=True)
class Filter:
    """What a filter does to a pixel."""

    saturation: float
    contrast: float
    brightness: float
    tint: tuple[int, ...]  # of each colour: added (1), taken (-1) or neither

    def mix(self) -> torch.Tensor:
        """Weights of the colours and a constant for each colour; channels, channels + 1."""
        channels = len(self.tint)
        grey = torch.tensor(_LUMA if channels == 3 else [1.0]).expand(channels, channels)
        colours = self.contrast * (self.saturation * torch.eye(channels) + (1 - self.saturation) * grey)
        constant = 0.5 * (1 - self.contrast) + self.brightness + _TINT * torch.tensor(self.tint, dtype=torch.float32)
        return torch.cat([colours, constant[:, None]], 1)

    def __str__(self) -> str:
        tint = ", ".join(f"{_TINT * part:+g}" for part in self.tint)
        return (
            f"a filter of saturation {self.saturation:g}, contrast {self.contrast:g}, "
            f"brightness {self.brightness:+g} and tint ({tint})"
        )


def filters(channels: int) -> list[Filter]:
    """Filters of every mixture."""
    tints = [tint for tint in itertools.product((-1, 0, 1), repeat=channels) if len(set(tint)) > 1]
    saturation = _SATURATION if channels > 1 else (1.0,)
    every = itertools.product(saturation, _CONTRAST, _BRIGHTNESS, [(0,) * channels, *tints])
    return [f for f in itertools.starmap(Filter, every) if f != Filter(1.0, 1.0, 0.0, (0,) * channels)]


class Faint(Family):
    """Those filters that change images by no more than a bound, in the mean over pixels and colours."""

    def __init__(self, known: Samples, bound: float) -> None:
        assert known.labels is not None
        in_order = known.images[known.labels.argsort(stable=True).to(known.images.device)]
        self.images = images = in_order[:: -(-len(in_order) // _SIZED)]
        every = filters(images.shape[1])
        mixes = torch.stack([each.mix() for each in every]).to(images)
        sizes = torch.stack([(_filtered(mix[None], images)[0] - images).abs().mean() for mix in mixes])
        kept = (sizes <= bound).nonzero()[:, 0].tolist() or [int(sizes.argmin())]
        self.filters, self.mixes = [every[at] for at in kept], mixes[kept]
        self.groups = [(f.saturation, f.contrast, f.brightness) for f in self.filters]

    def changed(self, numbers: Sequence[int], images: torch.Tensor) -> torch.Tensor:
        return _filtered(self.mixes[list(numbers)], images)

    def trigger(self, number: int, target: int) -> FeatureTrigger:
        mix, channels = self.mixes[number], len(self.mixes[number])
        whole = torch.zeros_like(identity(channels)).to(mix)
        whole[:, :channels], whole[:, -1] = mix[:, :-1], mix[:, -1]
        changed = (_filtered(mix[None], self.images)[0] - self.images).abs().amax(1).mean(0)
        return FeatureTrigger(target=target, asr=0.0, held_out=0, mix=whole, window=1, changed=changed)

    def described(self, number: int) -> str:
        return str(self.filters[number])


def _filtered(mixes: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """The images under each mix: mixes, images, channels, height, width."""
    mixed = torch.einsum("fnm,bmhw->fbnhw", mixes[..., :-1], images)
    return (mixed + mixes[:, None, :, -1, None, None]).clamp(0, 1)


@dataclass(frozen=True)
class Tints(Trying):
    """Try hundreds of colour filters, as photographers use them: is there one that sends all images to a class?"""

    preference: ClassVar[int] = 6
    what: ClassVar[str] = "colour filter"

    looks: int = 60  # images at least that the best are tried on; where there are fewer, on several views of each
    bound: float = 0.1  # how far a filter may change images, of full brightness, in the mean over pixels and colours

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bound > 0:
            raise UsageError("tints.bound must be above 0")

    def suits(self, network: Network) -> str | None:
        return "photographic filters change colours, not places" if network.input_shape[0] in (1, 3) else None

    def family(self, network: Network, known: Samples) -> Faint:
        return Faint(known, self.bound)
