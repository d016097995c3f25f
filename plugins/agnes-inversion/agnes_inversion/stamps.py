"""Small squares of one colour that move every image: evidence in itself. Ours; no paper's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from agnes import measuring
from agnes.differentiating import Logits, logits_of, quick
from agnes.errors import UsageError
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.results import Evidence
from agnes_inversion.probing import Square, squares, stamped

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.samples import Samples

_LEAST = 1e-6  # probability of another class; below it an image counts no further


@dataclass(frozen=True)
class Stamps(Method):
    """Try thousands of small squares on a few images: is there one that sends all to a class, or away from theirs?"""

    needs: ClassVar[frozenset[str]] = frozenset()

    images: int = 8  # that all squares are tried on; the best ones are tried on all images
    to_class: float = 0.5  # mean (geometric) probability of the class, above it a square speaks for a backdoor
    away: float = 0.9  # the same for not being the image's own class

    def __post_init__(self) -> None:
        if self.images < 2:
            raise UsageError(f"stamps.images is {self.images}; give 2 or more")
        if not (0 < self.to_class < 1 and 0 < self.away < 1):
            raise UsageError("stamps.to_class and stamps.away are probabilities; give numbers between 0 and 1")

    @hookimpl
    def diagnose(self, network: Network, samples: Samples, backend: Backend) -> Sequence[Evidence]:
        known = measuring.with_labels(network, samples, backend)
        assert known.labels is not None
        labels = known.labels.to(known.images.device)
        logits, tried = logits_of(quick(network)), squares(network.input_shape)
        draw = backend.generator("stamps images", device="cpu")
        few = torch.randperm(len(labels), generator=draw)[: self.images].to(known.images.device)
        first = _scores(tried, logits, known.images[few], labels[few], backend)
        best = [tried[index] for index in first.argmax(0).tolist()]
        score = _scores(best, logits, known.images, labels, backend).diagonal()
        return [self._to_class(score[:-1], best), self._away(float(score[-1]), best[-1])]

    def _to_class(self, score: torch.Tensor, best: Sequence[Square]) -> Evidence:
        order = score.argsort(descending=True, stable=True).tolist()
        return Evidence(
            name="square to one class",
            score=float(score[order[0]]),
            threshold=math.log(self.to_class),
            null=tuple(score[order[1:]].tolist()),
            by_class=tuple(score.tolist()),
            target=order[0],
            note=f"mean log probability of the class on other classes' images, stamped with {_words(best[order[0]])}",
        )

    def _away(self, score: float, square: Square) -> Evidence:
        return Evidence(
            name="square away from every class",
            score=score,
            threshold=math.log(self.away),
            note=f"mean log probability of not being the image's class, stamped with {_words(square)}",
        )


def _scores(
    tried: Sequence[Square], logits: Logits, images: torch.Tensor, labels: torch.Tensor, backend: Backend
) -> torch.Tensor:
    """Squares x (classes, away): mean log probabilities of a class on others' images, and of not being the own one."""

    def measure(likely: torch.Tensor) -> torch.Tensor:
        classes = torch.arange(likely.shape[2], device=labels.device)
        others = (labels[:, None] != classes).to(likely)  # images x classes
        to_class = (likely * others).sum(1) / others.sum(0).clamp(min=1)
        not_own = likely.masked_fill(others[None] == 0, -math.inf).logsumexp(2)
        away = not_own.clamp(min=math.log(_LEAST)).mean(1)
        return torch.cat([to_class, away[:, None]], 1)

    return stamped(list(tried), logits, images, measure, backend)


def _words(square: Square) -> str:
    colour = ", ".join(f"{value:g}" for value in square.colour)
    return f"{square.side}x{square.side} pixels of colour ({colour}) at row {square.row}, column {square.column}"
