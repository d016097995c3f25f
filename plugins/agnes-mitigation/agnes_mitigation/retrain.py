"""Strategic retraining: on the images that a trigger misleads into the most affected classes, and on benign ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from agnes import measuring
from agnes.errors import OutOfTime
from agnes.hookspecs import hookimpl
from agnes.text import counted
from agnes_mitigation.persisting import Persistent
from agnes_mitigation.training import Regime, batches, stamped, tune
from agnes_mitigation.watching import Material, Watch, attack_success, divide, repaired

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.detecting import Findings
    from agnes.network import Network
    from agnes.results import Repair, Trigger
    from agnes.samples import Samples

Rescan = Callable[["Network"], "Findings"]
WANTED = 10  # images a class


@dataclass(frozen=True)
class Retrain(Persistent):
    """Retrain on the images that the triggers send to the most affected classes, in rounds, with benign ones."""

    needs: ClassVar[frozenset[str]] = frozenset({"triggers"})
    paper: ClassVar[str] = (
        "Dhonthi, Hahn and Hashemi, Backdoor Mitigation in Deep Neural Networks via Strategic Retraining, algorithm 1"
    )
    preference: ClassVar[int] = 8

    top_p: int = 15  # classes with the most false positives, for each trigger (paper, section 4.2: 15 of 43)
    delta: float = 0.08  # loss of accuracy on the held-out images that ends it (paper, section 4.2)
    rounds: int = 3  # at most (paper, table 6: no trojan neuron left after three)
    steps: int = 200  # of a round (ours; the paper does not say)
    rate: float = 0.03  # learning rate of SGD at the start of a round; it falls to a hundredth (ours)
    momentum: float = 0.9  # of SGD (ours)
    longest: float = 1.0  # longer gradients are shortened to this norm (ours)
    left: float = 0.05  # success of a known trigger up to which it counts as gone (ours)

    def suits(self, network: Network) -> str | None:
        return "it needs a trigger and labelled images, and trains a copy"

    @hookimpl
    def mitigate(
        self,
        network: Network,
        samples: Samples,
        triggers: Sequence[Trigger],
        rescan: Rescan | None,
        backend: Backend,
    ) -> Repair:
        """Algorithm 1; what is left are the triggers that a re-scan finds, and those known that still work (ours)."""
        material = divide(network, samples, self.held_out, WANTED, backend)
        accuracy, _ = measuring.accuracy(network, material.held_out, backend)
        generator = backend.generator("retrain", device="cpu")
        copy, notes = network.copy(), list(material.notes)
        first, best, fewest, late = list(triggers), copy.copy(), (math.inf, 1.0), None
        for number in range(1, self.rounds + 1):
            watch = Watch(copy, material.held_out, triggers, self.delta, backend, accuracy, material.learnt)
            try:
                late, misled, told = self._round(network, copy, material, triggers, watch, generator, backend)
                known = list(triggers) if late else self._still(copy, material, triggers, backend)
                found = [] if late or rescan is None else [t for t in rescan(copy).triggers if t.convicts]
            except OutOfTime as error:
                late = error
                if watch.step > 0 and watch.success <= fewest[1]:  # trained, but not scanned
                    best = copy.copy()
                break
            notes.append(_told(number, misled, told, watch, known, found if rescan is not None and not late else None))
            if (len(known) + len(found), watch.success) < fewest:
                best, fewest = copy.copy(), (len(known) + len(found), watch.success)
            if late or not (known or found) or watch.step == 0:  # nothing left, or no step within delta
                break
            triggers = [*triggers, *found]
        best, why = self.worth(network, best, first, material, backend)
        return repaired(network, best, "retrained", notes, late, why=why)

    def _round(
        self,
        network: Network,
        copy: Network,
        material: Material,
        triggers: Sequence[Trigger],
        watch: Watch,
        generator: torch.Generator,
        backend: Backend,
    ) -> tuple[OutOfTime | None, int, str]:
        """Lines 3 to 20: choose images and train on them; what cut it short, how many were chosen, and a note."""
        misled, which = self._chosen(copy, material, triggers, backend)
        which = torch.cat([torch.full_like(material.rows, -1), which])
        rows = torch.cat([material.rows, misled])

        def stamp(images: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
            return stamped(images, triggers, which[places])

        lessons = batches(material, rows, self, network, generator, backend, stamp)

        def train(rate: float) -> OutOfTime | None:
            regime = Regime(self.steps, rate, self.momentum, longest=self.longest)
            return tune(copy, lessons, regime, watch, backend, "retraining")

        late, told = self.persistently(train, self.rate, watch)
        return late, len(misled), told

    def _chosen(
        self, network: Network, material: Material, triggers: Sequence[Trigger], backend: Backend
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The images that each trigger misleads into its most affected classes: rows, and the trigger's number."""
        rows, which = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]
        for number, trigger in enumerate(triggers):
            seen = measuring.predictions(network, trigger.apply(material.images), backend)
            wrong = false_positives(seen.cpu(), material.labels.cpu(), network.class_count, self.top_p)
            rows.append(wrong)
            which.append(torch.full_like(wrong, number))
        return torch.cat(rows), torch.cat(which)

    def _still(
        self,
        network: Network,
        material: Material,
        triggers: Sequence[Trigger],
        backend: Backend,
    ) -> list[Trigger]:
        """The known triggers that still work, on the images learnt from or on the others."""
        everything = (material.learnt, material.held_out)
        return [
            t for t in triggers if max(attack_success(network, [t], [part], backend) for part in everything) > self.left
        ]


def false_positives(predictions: torch.Tensor, labels: torch.Tensor, class_count: int, top_p: int) -> torch.Tensor:
    """The rows that are taken for another class, of the `top_p` classes that most are wrongly taken for."""
    wrong = predictions != labels
    counts = torch.bincount(predictions[wrong], minlength=class_count)
    most = counts.argsort(descending=True, stable=True)[:top_p]
    return (wrong & torch.isin(predictions, most)).nonzero().flatten()


def _told(
    number: int,
    misled: int,
    trained: str,
    watch: Watch,
    known: Sequence[Trigger],
    found: Sequence[Trigger] | None,
) -> str:
    """A round in one line."""
    scanned = "" if found is None else f"; a re-scan finds {counted(len(found), 'trigger')}"
    return (
        f"round {number}: {misled} misled images; {trained}; accuracy on held-out images "
        f"{0 - watch.lost:+.1%}; of the triggers {len(known)} still work{scanned}"
    )
