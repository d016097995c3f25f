"""Training that is begun anew at lower rates where no state will do, and that hands back nothing that is no repair."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agnes.errors import OutOfTime
from agnes_mitigation.watching import Learner, Material, Watch, successes

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.results import Trigger

_SLOWER = (1.0, 0.3, 0.1)  # times the rate


@dataclass(frozen=True)
class Persistent(Learner):
    """What methods have in common that begin anew at lower rates."""

    again: int = 2  # times that training is begun anew where no state will do: at 0.3 and at 0.1 of the rate (ours)
    gone: float = 0.5  # share of the known triggers' mean success that has to go, or nothing is changed; 0: any (ours)

    def persistently(
        self, train: Callable[[float], OutOfTime | None], rate: float, watch: Watch
    ) -> tuple[OutOfTime | None, str]:
        """Train at this rate, and anew at lower ones where no state will do; what ended it too early, and a note.

        One watch watches over all of it, so the best state of all is kept.
        """
        tried: list[str] = []
        told = "kept no state"
        late = None
        for slower in _SLOWER[: 1 + max(0, self.again)]:
            before = watch.kept
            tried.append(f"{slower * rate:g}")
            try:
                if len(tried) > 1:
                    watch.put_first()
                late = train(slower * rate)
            except OutOfTime as error:  # before a first look at this one
                late = error
                watch.put_best()
            if watch.step > 0 and watch.kept != before:
                told = f"kept step {watch.step} at a rate of {tried[-1]}"
            if late or watch.content:
                break
        return late, f"trained at a rate of {', then '.join(tried)}; {told}"

    def worth(
        self, before: Network, after: Network, triggers: Sequence[Trigger], material: Material, backend: Backend
    ) -> tuple[Network, str]:
        """The trained network or, where the triggers have lost too little by it, the one that came, and why.

        A few forward passes: they are done whatever time is left.
        """
        if self.gone <= 0:
            return after, ""
        parts, untimed = (material.held_out, material.learnt), replace(backend, deadline=None)
        first, then = (successes(network, triggers, parts, untimed) for network in (before, after))
        if not first:
            return after, ""
        one, other = statistics.fmean(first), statistics.fmean(then)
        if other <= max((1 - self.gone) * one, 1.5 / len(material.held_out)):  # one image is as good as none
            return after, ""
        why = f"the triggers' success, {one:.0%} before, is {other:.0%} after it: no repair, and nothing was changed"
        return before.copy(), why
