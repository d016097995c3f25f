"""The stages that look for a backdoor, on a network or on its repaired copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agnes import judging, measuring
from agnes.results import Benign, Candidate, Evidence, Representatives, Trigger, Verdict

if TYPE_CHECKING:
    from agnes.network import Network
    from agnes.stages import Stages


@dataclass(frozen=True)
class Findings:
    """What the detecting stages found in one network."""

    representatives: tuple[Representatives, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    verdict: Verdict = field(
        default_factory=lambda: Verdict("inconclusive", None, reasons=("the run was interrupted",))
    )
    benign: Benign = field(default_factory=Benign)


def detect(stages: Stages, network: Network) -> Findings:
    """The stages that look for a backdoor, and the verdict."""
    representatives = stages.abstract(network)
    candidates = stages.stimulate(network, representatives)
    triggers = _marked(network, stages.invert(network, candidates))
    evidence = stages.diagnose(network)
    benign = on_benign(stages, network)
    verdict = judging.judge(network, triggers, evidence, stages.runs, benign=benign)
    stages.finished("judging", (verdict,))
    return Findings(representatives, candidates, triggers, evidence, verdict, benign)


def on_benign(stages: Stages, network: Network) -> Benign:
    """The network on its benign images; a forward pass, whatever time is left."""
    with stages.backend.computing():
        return Benign(*measuring.accuracy(network, stages.samples, replace(stages.backend, deadline=None)))


def _marked(network: Network, triggers: Sequence[Trigger]) -> tuple[Trigger, ...]:
    """The triggers with what the judge thinks of each, the most unusual first."""
    return tuple(
        replace(w.trigger, anomaly_index=w.index, convicts=w.convicts) for w in judging.weigh(network, triggers)
    )
