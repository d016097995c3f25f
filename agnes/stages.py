"""Running the methods of a stage: time shares, needs, failures kept apart, results stamped with their method."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from agnes.calling import call
from agnes.errors import AgnesError, OutOfTime
from agnes.hookspecs import HOOK_OF
from agnes.memory import PeakMeter
from agnes.registry import BrokenPlugin
from agnes.results import Candidate, Evidence, MethodRun, Repair, Representatives, Trigger
from agnes.selection import Chosen, Selection, answer, offered_by, why_skipped
from agnes.text import counted

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.detecting import Findings
    from agnes.network import Network
    from agnes.samples import Samples

_GIVES: Mapping[str, type] = {
    "abstraction": Representatives,
    "stimulation": Candidate,
    "inversion": Trigger,
    "diagnosis": Evidence,
    "mitigation": Repair,
}
_SHARE: Mapping[str, float] = {  # of the time left when the stage begins
    "abstraction": 0.15,
    "stimulation": 0.3,
    "inversion": 0.6,
    "diagnosis": 0.3,
    "mitigation": 0.4,
}


Enough = Callable[[Sequence[Any]], str]  # of what a stage has so far -> why no fallback is needed; empty: one is
Rescan = Callable[["Network", "Backend"], "Findings"]


class Stages:
    """The methods of one scan, run stage by stage; keeps how each went and what was found."""

    def __init__(
        self,
        selection: Selection,
        backend: Backend,
        events: Any,
        samples: Samples,
        runs: Sequence[MethodRun] = (),
        repairing: Samples | None = None,  # what methods of mitigation get; None: the same
    ) -> None:
        self.selection = selection
        self.backend = backend
        self.events = events
        self.samples = samples
        self.repairing = samples if repairing is None else repairing
        self.runs: list[MethodRun] = list(runs)
        self.timings: dict[str, float] = {}
        self.results: dict[str, tuple[Any, ...]] = {}
        self._peaks: list[int] = []  # bytes that the process held at most before each method and during it

    def again(self, backend: Backend | None = None) -> Stages:
        """The same methods for a re-scan, heard by nobody."""
        stages = Stages(self.selection, backend or self.backend, None, self.samples)
        stages._peaks = self._peaks
        return stages

    @property
    def peak(self) -> int:
        """The most bytes that the process held until the last method ended."""
        return max(self._peaks, default=0)

    def abstract(self, network: Network) -> tuple[Representatives, ...]:
        return self._stage("abstraction", network, [({}, frozenset())])

    def stimulate(self, network: Network, representatives: Sequence[Representatives]) -> tuple[Candidate, ...]:
        """Candidates of all methods, best first; a method that needs representatives runs once on each kind."""
        inputs: list[tuple[dict[str, Any], frozenset[str]]] = [
            ({"representatives": r}, frozenset({"representatives"})) for r in representatives
        ]
        found = self._stage("stimulation", network, inputs or [({"representatives": None}, frozenset())])
        return tuple(sorted(found, key=lambda candidate: -candidate.score))

    def invert(self, network: Network, candidates: Sequence[Candidate]) -> tuple[Trigger, ...]:
        offered = frozenset({"candidates"}) if candidates else frozenset()
        return self._stage("inversion", network, [({"candidates": tuple(candidates)}, offered)])

    def diagnose(self, network: Network) -> tuple[Evidence, ...]:
        return self._stage("diagnosis", network, [({}, frozenset())])

    def mitigate(
        self,
        network: Network,
        triggers: Sequence[Trigger],
        candidates: Sequence[Candidate],
        enough: Enough | None = None,
        rescan: Rescan | None = None,
    ) -> tuple[Repair, ...]:
        """Repairs of all methods; `enough` says, of those made so far, why no fallback is needed.

        A method may ask for a re-scan of what it has made, within the time that it has itself.
        """
        offered = frozenset({"candidates"} if candidates else ())
        if any(trigger.convicts for trigger in triggers):
            offered |= {"triggers"}
        inputs = {"triggers": tuple(triggers), "candidates": tuple(candidates), "rescan": rescan}
        return self._stage("mitigation", network, [(inputs, offered)], enough)

    def skip(self, stage: str, reason: str) -> None:
        """Run no method of the stage, and say why."""
        for chosen in self.selection.of(stage):
            self.runs.append(chosen.run("failed", chosen.broken) if chosen.broken else chosen.run("skipped", reason))
        self.finished(stage, ())

    def finished(self, stage: str, results: Sequence[Any]) -> None:
        """Tell all that listens."""
        if self.events is not None:
            runs = [run for run in self.runs if run.stage == stage]
            self.events.tell("stage_finished", stage=stage, runs=runs, results=results)

    def _stage(
        self,
        stage: str,
        network: Network,
        inputs: Sequence[tuple[dict[str, Any], frozenset[str]]],
        enough: Enough | None = None,
    ) -> tuple[Any, ...]:
        """Every method of the stage on every input it may be given."""
        methods = self._in_turn(self.selection.of(stage), network)
        if not methods:
            return ()
        found: list[Any] = []
        self.timings[stage] = 0.0
        share = self.backend.remaining() * _SHARE[stage] / len(methods)
        for chosen in methods:
            if chosen.fallback and enough is not None and (reason := enough(found)):
                self.runs.append(chosen.run("skipped", reason))
                continue
            started = time.monotonic()
            repeat = inputs if "representatives" in chosen.needs else inputs[:1]
            for given, offered in repeat:
                run, results = self._method(chosen, network, share / len(repeat), given, offered)
                self.runs.append(run)
                found += results
                self.results[stage] = tuple(found)
            self.timings[stage] += time.monotonic() - started
        self.finished(stage, found)
        return tuple(found)

    def _in_turn(self, methods: Sequence[Chosen], network: Network) -> Sequence[Chosen]:
        """Of repairs that wait for one another, first those that have the images they want; others as they were."""
        if not any(chosen.fallback for chosen in methods):
            return methods
        each = len(self.repairing) / max(1, network.class_count)
        ordered = sorted(methods, key=lambda chosen: getattr(chosen.method, "wants_images", 0) > each)
        return [replace(chosen, fallback=place > 0) for place, chosen in enumerate(ordered)]

    def _method(
        self, chosen: Chosen, network: Network, seconds: float, given: dict[str, Any], offered: frozenset[str]
    ) -> tuple[MethodRun, list[Any]]:
        """One method: skipped, failed or done; whatever it raises ends with it."""
        if chosen.broken:
            return chosen.run("failed", chosen.broken), []
        try:
            offered |= offered_by(network, self._images_of(chosen))
            reason = answer(chosen, why_skipped, chosen.method, network, offered)
        except BrokenPlugin as error:
            return chosen.run("failed", str(error)), []
        if reason:
            return chosen.run("skipped", reason), []
        started = time.monotonic()
        status, reason = "ok", ""
        results: list[Any] = []
        notes: tuple[str, ...] = ()
        peak = PeakMeter(self.backend.device)
        try:
            with peak:
                results, notes, late = self._call(chosen, network, self.backend.within(seconds), given)
            if late:
                status, reason = "failed", f"out of time after {counted(len(results), 'result')}: {late}"
        except AgnesError as error:
            status, reason = "failed", str(error)
        except (Exception, SystemExit) as error:
            status, reason = "failed", f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        self._peaks += [peak.before, peak.peak or 0]
        run = chosen.run(status, reason, time.monotonic() - started)
        return replace(run, notes=notes, memory=peak.peak), results

    def _call(
        self, chosen: Chosen, network: Network, backend: Backend, given: dict[str, Any]
    ) -> tuple[list[Any], tuple[str, ...], OutOfTime | None]:
        """What a method returns, or what it had when its time was up, and what it says of it."""
        late = None
        if "triggers" in chosen.needs:
            given = {**given, "triggers": tuple(trigger for trigger in given["triggers"] if trigger.convicts)}
        if given.get("rescan") is not None:
            given = {**given, "rescan": partial(given["rescan"], backend=backend)}
        try:
            with backend.computing():
                returned = call(
                    HOOK_OF[chosen.stage],
                    chosen.name,
                    chosen.method,
                    network=network,
                    samples=self._images_of(chosen),
                    backend=backend,
                    **given,
                )
        except OutOfTime as error:
            late, returned = error, [] if error.partial is None else error.partial
        return _checked(chosen, returned, network), _notes(returned), late

    def _images_of(self, chosen: Chosen) -> Samples:
        return self.repairing if chosen.stage == "mitigation" else self.samples


def _checked(chosen: Chosen, results: Any, network: Network) -> list[Any]:
    """What a method returned, as a list of what its stage gives, each stamped with the method's name."""
    wanted = _GIVES[chosen.stage]
    items = [results] if isinstance(results, wanted) else results
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, wanted) for item in items):
        given = type(results).__name__
        raise AgnesError(
            f"{chosen.name} of {chosen.distribution} returned {given}; {chosen.stage} gives {wanted.__name__}"
        )
    for item in items:
        _check(chosen, item, network)
    return [replace(item, method=chosen.name) for item in items]


def _notes(returned: Any) -> tuple[str, ...]:
    """What a method says of its results."""
    of_items = returned if isinstance(returned, (list, tuple)) else [returned]
    said = [getattr(returned, "notes", ()), *(i.notes for i in of_items if isinstance(i, Representatives))]
    return tuple(dict.fromkeys(str(note) for notes in said if isinstance(notes, tuple) for note in notes))


def _check(chosen: Chosen, item: Any, network: Network) -> None:
    """Refuse results that no later stage could use: numbers that are none, classes and images that are not there."""
    numbers: list[float] = []
    if isinstance(item, Trigger):
        blank = torch.full((1, *network.input_shape), 0.5, device=network.device)
        if item.apply(blank).shape != blank.shape:
            raise AgnesError(f"{chosen.name} of {chosen.distribution} returned a trigger that changes an image's shape")
        numbers = [item.asr, item.l1]
    elif isinstance(item, Evidence):
        numbers = [item.score, item.threshold, *item.by_class]
        if len(item.by_class) not in (0, network.class_count):
            said = f"{len(item.by_class)} scores for {network.class_count} classes"
            raise AgnesError(f"{chosen.name} of {chosen.distribution} returned {said}")
        if item.trigger is not None:
            _check(chosen, item.trigger, network)
    elif isinstance(item, Candidate):
        numbers = [item.score]
        layers = {layer.name: layer.channels for layer in network.layers}
        if not 0 <= item.channel < layers.get(item.layer, 0):
            where = f"channel {item.channel} of layer {item.layer}"
            raise AgnesError(
                f"{chosen.name} of {chosen.distribution} returned {where}, which the network does not have"
            )
    target = getattr(item, "target", None)
    if target is not None and not 0 <= target < network.class_count:
        raise AgnesError(f"{chosen.name} of {chosen.distribution} returned class {target} of {network.class_count}")
    if not all(math.isfinite(number) for number in numbers):
        raise AgnesError(f"{chosen.name} of {chosen.distribution} returned a number that is not finite")
