"""Channel Lipschitz pruning: channels that can amplify any input far more than the others of their layer go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from agnes import measuring
from agnes.hookspecs import hookimpl
from agnes.learning import tensor_at
from agnes.method import Method
from agnes.results import Repair
from agnes_mitigation.pruning import Place, Which, layers_of, output_dimension, pruned
from agnes_mitigation.tac import outstanding
from agnes_mitigation.watching import attack_success, labelled

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.results import Trigger
    from agnes.samples import Samples

STEPS = tuple(3 - 0.25 * step for step in range(13))  # Koldenhof, appendix A.1: 3 to 0 by 0.25


@dataclass(frozen=True)
class Clp(Method):
    """Set to zero the channels whose bound on the Lipschitz constant stands out in their layer; needs no images."""

    paper: ClassVar[str] = "Zheng et al., Data-Free Backdoor Removal Based on Channel Lipschitzness, ECCV 2022"

    u: float | Literal["auto"] = 3.0  # deviations above the layer's mean (CLP); auto: 3 to 0 (Koldenhof, A.1)
    layers: Which = "conv"  # as in the paper, or all hidden ones
    max_accuracy_drop: float = 0.02  # u=auto goes no lower than this allows on the images (ours)

    @hookimpl
    def mitigate(self, network: Network, samples: Samples, triggers: Sequence[Trigger], backend: Backend) -> Repair:
        bounds = {layer.name: lipschitz_bounds(network, layer) for layer in layers_of(network, self.layers)}
        if self.u != "auto":
            backend.check()
            return _pruned(network, bounds, float(self.u), ())
        convicting = [trigger for trigger in triggers if trigger.convicts]
        return self._swept(network, bounds, samples, convicting or triggers, backend)

    def _swept(
        self,
        network: Network,
        bounds: Mapping[str, torch.Tensor],
        samples: Samples,
        triggers: Sequence[Trigger],
        backend: Backend,
    ) -> Repair:
        """The threshold that serves best: by accuracy and success, or the lowest that accuracy allows."""
        samples, notes = labelled(network, samples, backend)
        before, images = measuring.accuracy(network, samples, backend)
        assert before is not None
        best: tuple[float, float] | None = None
        seen: set[frozenset[Place]] = set()
        for u in STEPS:
            marked = frozenset(outstanding(bounds, u))
            if marked in seen:
                continue  # a higher threshold marked the same channels
            seen.add(marked)
            copy = _pruned(network, bounds, u, ()).network
            after, _ = measuring.accuracy(copy, samples, backend)
            lost = before - (after or 0.0)
            if lost > max(self.max_accuracy_drop, 1.5 / images):
                continue
            # Koldenhof, A.1: half the success that stays and half the accuracy that goes
            cost = (attack_success(copy, triggers, [samples], backend) + lost) / 2 if triggers else u
            if best is None or cost < best[0]:
                best = cost, u
        if best is None:
            return Repair(network.copy(), (), (*notes, f"no threshold from 3 to 0 keeps accuracy on {images} images"))
        chosen = f"u={best[1]:g} of 3 to 0 by 0.25, chosen on {images} images"
        by = "the triggers' success and accuracy" if triggers else "accuracy alone, as there is no trigger"
        return _pruned(network, bounds, best[1], (*notes, f"{chosen} by {by}"))


def lipschitz_bounds(network: Network, layer: Layer) -> torch.Tensor:
    """Per channel, the largest singular value of its kernel as inputs x positions, times its BatchNorm's gain."""
    weight = tensor_at(network, layer.weight).detach()
    weight = weight.movedim(output_dimension(network, layer), 0)
    kernels = weight.flatten(2) if weight.dim() > 2 else weight.unsqueeze(2)  # channels, inputs, positions
    values = torch.linalg.matrix_norm(kernels.float(), ord=2)
    norm = network.module.get_submodule(layer.norm) if layer.norm is not None else None
    variance = getattr(norm, "running_var", None)
    if isinstance(variance, torch.Tensor):
        scale = getattr(norm, "weight", None)
        gain = (variance + norm.eps).rsqrt()  # type: ignore[union-attr,operator]
        values = values * (gain if scale is None else gain * scale.detach().abs())
    return values


def _pruned(network: Network, bounds: Mapping[str, torch.Tensor], u: float, notes: tuple[str, ...]) -> Repair:
    """A copy without the channels that stand out."""
    marked: dict[Place, float] = outstanding(bounds, u)
    zeros = {name: torch.zeros_like(values) for name, values in bounds.items()}
    copy, changes = pruned(
        network, list(marked), zeros, lambda place: f"Lipschitz bound's Z-score {marked[place]:.2f}", bias=False
    )
    said = () if changes else (f"no channel's bound lies {u:g} deviations above its layer's mean; nothing was pruned",)
    return Repair(copy, changes, (*notes, *said))
