"""MM-BD: the class of a backdoor has a margin that no other class reaches, whatever the trigger looks like."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from agnes.differentiating import Logits, logits_of, quick
from agnes.errors import UsageError
from agnes.hookspecs import hookimpl
from agnes.margins import margin
from agnes.method import Method
from agnes.results import Evidence
from agnes_diagnosis.gamma import Gamma

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network

_AT_ONCE_ON_CPU = 128  # inputs; more at once is slower there
_LEAST_MARGIN = 1e-6  # a class that nothing makes the winner counts as one that barely wins
_FEWEST = 5  # classes below which there is nothing to compare with
_LARGEST = 300.0  # -log10 of a probability too small to write


@dataclass(frozen=True)
class MaxMargin(Method):
    """Compare the largest margins that inputs of any kind give the classes; no data is needed."""

    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})
    paper: ClassVar[str] = (
        "Wang et al., MM-BD: Post-Training Detection of Backdoor Attacks with Arbitrary Backdoor Pattern Types Using a "
        "Maximum Margin Statistic, IEEE S&P 2024"
    )
    preference: ClassVar[int] = 10

    starts: int = 4  # random inputs for each class (paper: 30)
    steps: int = 150  # of gradient ascent
    rate: float = 0.05  # Adam's learning rate
    level: float = 0.05  # a probability by chance below it speaks for a backdoor (paper)

    def __post_init__(self) -> None:
        if self.starts < 1 or self.steps < 1:
            raise UsageError("max-margin.starts and max-margin.steps must be 1 or more")
        if not 0 < self.level < 1:
            raise UsageError(f"max-margin.level is {self.level:g}; give a probability between 0 and 1")

    def unmet(self, network: Network) -> str | None:
        few = network.class_count < _FEWEST
        return f"needs {_FEWEST} classes or more to compare, and there are {network.class_count}" if few else None

    @hookimpl
    def diagnose(self, network: Network, backend: Backend) -> Evidence:
        margins = self.margins(network, backend)
        chance = by_chance(margins)
        order = margins.argsort(descending=True)
        return Evidence(
            name="largest margin",
            score=min(-math.log10(max(chance, 10**-_LARGEST)), _LARGEST),
            threshold=-math.log10(self.level),
            null=tuple(margins[order[1:]].tolist()),
            target=int(order[0]),
            note=f"as the negative logarithm of its probability; margins {margins[order[0]]:.3g}, "
            f"{margins[order[1]]:.3g} and, in the median, {margins.median():.3g}",
            by_class=tuple(margins.tolist()),
        )

    def margins(self, network: Network, backend: Backend) -> torch.Tensor:
        """Per class the largest margin over the other classes that was reached from any start."""
        count = network.class_count * self.starts
        begun = torch.rand(
            (count, *network.input_shape),
            generator=backend.generator("max-margin starts", device="cpu"),
        )
        targets = torch.arange(network.class_count).repeat_interleave(self.starts)
        logits = logits_of(quick(network))
        most = _AT_ONCE_ON_CPU if backend.device.type == "cpu" else count

        def work(start: int, stop: int) -> torch.Tensor:
            parts = range(start, stop, most)
            return torch.cat(
                [
                    self._climbed(
                        logits,
                        begun[at : min(at + most, stop)].to(backend.device),
                        targets[at : min(at + most, stop)].to(backend.device),
                        backend,
                    )
                    for at in parts
                ]
            )

        reached = torch.cat(backend.chunked(work, count, what="maximising margins")).cpu()
        return reached.view(network.class_count, self.starts).amax(1)

    def _climbed(self, logits: Logits, inputs: torch.Tensor, targets: torch.Tensor, backend: Backend) -> torch.Tensor:
        """The largest margin on the way up from each input."""
        inputs = inputs.detach().requires_grad_()
        ascent = torch.optim.Adam([inputs], lr=self.rate)
        best = torch.full((len(inputs),), -math.inf, device=inputs.device)
        for _ in range(self.steps):
            backend.check()
            with torch.enable_grad():
                margins = margin(logits(inputs), targets)
                (inputs.grad,) = torch.autograd.grad(-margins.sum(), inputs)
            best = torch.maximum(best, margins.detach().float())
            ascent.step()
            with torch.no_grad():
                inputs.clamp_(0, 1)
        with torch.no_grad():
            return torch.maximum(best, margin(logits(inputs), targets).float())


def by_chance(margins: torch.Tensor) -> float:
    """How likely the largest of so many margins is as large, if all are of the others' gamma distribution."""
    ordered = margins.double().clamp(min=_LEAST_MARGIN).sort().values
    above = Gamma.fitted(ordered[:-1].tolist()).above(float(ordered[-1]))
    return -math.expm1((len(ordered) - 1) * math.log1p(-min(above, 1 - 1e-15)))
