"""Weight pruning: the incoming weights of compromised neurons shrink."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from agnes.hookspecs import hookimpl
from agnes.learning import tensor_at
from agnes.method import Method
from agnes.results import Change, Repair
from agnes_mitigation.pruning import Place, output_dimension, scale_and_shift

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.results import Candidate, Trigger


@dataclass(frozen=True)
class WeightPrune(Method):
    """Shrink the incoming weights of the compromised channels by a share of their size."""

    needs: ClassVar[frozenset[str]] = frozenset({"candidates"})
    paper: ClassVar[str] = (
        "Dhonthi, Hahn and Hashemi, Backdoor Mitigation in Deep Neural Networks via Strategic Retraining, table 7"
    )

    rate: float = 0.5  # share taken off; 1 sets them to zero (paper, table 7: 0.4, 0.5, 0.6)
    most: int = 10  # candidates taken, best first, where no trigger names its channel (ours)

    @hookimpl
    def mitigate(
        self, network: Network, triggers: Sequence[Trigger], candidates: Sequence[Candidate], backend: Backend
    ) -> Repair:
        backend.check()
        convicting = [trigger for trigger in triggers if trigger.convicts]
        places, notes = self._compromised(convicting or triggers, candidates)
        copy = network.copy()
        changes = []
        for layer in network.layers:
            channels = sorted(channel for name, channel in places if name == layer.name)
            if channels and self.rate:
                how = shrink(copy, layer, channels, self.rate)
                changes += [Change(layer.name, channel, how) for channel in channels]
        return Repair(copy, tuple(changes), notes)

    def _compromised(
        self, triggers: Sequence[Trigger], candidates: Sequence[Candidate]
    ) -> tuple[set[Place], tuple[str, ...]]:
        """The channels that the triggers were made from or, where none says so, those of the best candidates."""
        named = {(t.layer, t.channel) for t in triggers if t.layer is not None and t.channel is not None}
        if named:
            return named, ()
        targets = {trigger.target for trigger in triggers}
        fitting = [c for c in candidates if not targets or c.target in targets] or list(candidates)
        taken = fitting[: self.most]
        note = f"no trigger names the channel it came from; the {len(taken)} best candidates took their place"
        return {(c.layer, c.channel) for c in taken}, (note,)


def shrink(network: Network, layer: Layer, channels: Sequence[int], rate: float) -> str:
    """Shrink what flows into channels of this network, in place; behind a BatchNorm its scale, so the mean stays."""
    index = torch.as_tensor(list(channels), device=network.device)
    factors = scale_and_shift(network, layer)
    if factors is not None:
        tensor, dimension = factors[0], 0
    else:
        tensor, dimension = tensor_at(network, layer.weight), output_dimension(network, layer)
    keep = torch.ones(tensor.shape[dimension], device=tensor.device).index_fill(0, index, 1 - rate)
    with torch.no_grad():
        tensor.mul_(keep.to(tensor).view([-1 if i == dimension else 1 for i in range(tensor.dim())]))
    what = "scale behind the BatchNorm" if factors is not None else "incoming weights"
    return f"{what} shrunk by {rate:.0%}"
