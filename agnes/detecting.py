"""The stages that look for a backdoor, on a network or on its repaired copy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agnes import judging, measuring
from agnes.inverting import lowered, unmarked
from agnes.natural import against_own
from agnes.nulls import against_null
from agnes.results import Benign, Candidate, Evidence, Representatives, Trigger, Verdict

if TYPE_CHECKING:
    from agnes.network import Network
    from agnes.stages import Stages

INTERRUPTED = "the run was interrupted"


@dataclass(frozen=True)
class Findings:
    """What the detecting stages found in one network."""

    representatives: tuple[Representatives, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    verdict: Verdict = field(default_factory=lambda: Verdict("inconclusive", None, reasons=(INTERRUPTED,)))
    benign: Benign = field(default_factory=Benign)


def detect(stages: Stages, network: Network) -> Findings:
    """The stages that look for a backdoor, and the verdict."""
    representatives = stages.abstract(network)
    candidates = stages.stimulate(network, representatives)
    area = network.input_shape[1] * network.input_shape[2]
    triggers = against_null(stages.invert(network, candidates), area)
    evidence = stages.diagnose(network)
    triggers += tuple(_of_evidence(e.trigger, e.method) for e in evidence if e.trigger is not None)
    triggers = _against_own(stages, network, triggers)
    found = Findings(representatives, candidates, triggers, evidence, benign=on_benign(stages, network))
    found = judged(stages, network, found, inverted=stages.samples.inverted)
    stages.finished("judging", (found.verdict,))
    return found


def judged(stages: Stages, network: Network, found: Findings, *, inverted: bool) -> Findings:
    """Findings with what they amount to; less where the images they are of were made from the network (`inverted`)."""
    verdict = judging.judge(network, found.triggers, found.evidence, stages.runs, benign=found.benign)
    triggers = judging.marked(network, found.triggers, verdict)
    if inverted:
        verdict = lowered(verdict)
        triggers = unmarked(triggers, verdict)
    triggers = _with_reach(stages, network, triggers)
    return replace(found, triggers=triggers, verdict=replace(verdict, backdoors=judging.backdoors(triggers)))


def _of_evidence(trigger: Trigger, method: str) -> Trigger:
    """What a diagnosis tried on all classes; no candidate pointed to its class."""
    return replace(trigger, method=method, purpose="scan" if trigger.layer is None else trigger.purpose)


def _against_own(stages: Stages, network: Network, triggers: tuple[Trigger, ...]) -> tuple[Trigger, ...]:
    """Those that would convict with what their class's own images do in their place; forward passes."""
    if stages.samples.inverted:
        return triggers  # made from the network: they show what it sees in a class
    convicting = {id(w.trigger) for w in judging.weigh(network, triggers) if w.convicts}
    suspects = [number for number, trigger in enumerate(triggers) if id(trigger) in convicting]
    backend = replace(stages.backend, deadline=None)
    with backend.computing():
        return against_own(network, triggers, suspects, stages.samples, backend)


def on_benign(stages: Stages, network: Network) -> Benign:
    """The network on its benign images, where it was given any; a forward pass, whatever time is left."""
    if stages.samples.inverted:
        return Benign()
    with stages.backend.computing():
        return Benign(*measuring.accuracy(network, stages.samples, replace(stages.backend, deadline=None)))


def _with_reach(stages: Stages, network: Network, triggers: tuple[Trigger, ...]) -> tuple[Trigger, ...]:
    """Those that convict with how many classes they move; forward passes, whatever time is left."""
    backend = replace(stages.backend, deadline=None)
    with backend.computing():
        return tuple(
            replace(t, reach=measuring.reach(network, t, stages.samples, backend) if t.convicts else None)
            for t in triggers
        )
