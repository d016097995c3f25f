"""One run, top to bottom."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agnes import judging, measuring, selection, settings
from agnes.backend import Backend, Precision, Progress
from agnes.calling import Events
from agnes.compacting import compacted
from agnes.dealing import Dealt, deal
from agnes.detecting import Findings, detect, judged, on_benign
from agnes.earlier import Earlier
from agnes.errors import UsageError
from agnes.inverting import inverted
from agnes.loading import LoadOptions, open_model
from agnes.mending import mend
from agnes.registry import Registry
from agnes.reports import environment, exporting, folder
from agnes.results import Benign, Repair, Report
from agnes.samples import Samples, read_samples
from agnes.selection import Selection
from agnes.stages import Stages

if TYPE_CHECKING:
    from agnes.network import Network


@dataclass(frozen=True)
class Request:
    """What a user wants scanned, and how."""

    model: Path
    data: Path | None = None
    methods: Sequence[Any] = ()  # names as of `agnes plugins`, or instances
    only: bool = False  # leave out stages that no named method serves
    settings: settings.Assignments = field(default_factory=dict)  # typed on the command line or given in Python
    config: settings.Assignments = field(default_factory=dict)  # from a configuration file; weaker
    load: LoadOptions = field(default_factory=LoadOptions)
    output: Path | None = None  # the run folder; None: nothing is written
    seed: int = 0
    device: str | None = None
    precision: Precision = "float32"
    memory: int | None = None  # bytes
    time_budget: float | None = None  # seconds
    block: Sequence[str] = ()
    reports: Sequence[str] = ()  # reporter plugins
    test_data: Path | None = None  # labelled images for measuring and, without repair_data, for repair
    repair_data: Path | None = None  # labelled images for repair
    repair: bool = False  # with `only`: repair all the same, with methods that the engine chooses
    findings: Path | None = None  # the folder of an earlier run, whose findings are taken instead of a new scan
    max_accuracy_drop: float = 0.02  # that a repair may cost before the engine tries the next method
    compact: bool = False  # take channels without weights out of the repaired network
    repaired: Path | None = None  # where the best repaired network goes; None: into the run folder


def run(request: Request, *, progress: Progress | None = None, listeners: Sequence[Any] = ()) -> Report:
    """Load, abstract, stimulate, invert, diagnose, judge, mitigate, re-scan, report."""
    started = time.monotonic()
    registry = Registry.discover(request.block)
    earlier = None if request.findings is None else Earlier.read(request.findings)
    request = request if earlier is None else _as_before(request, earlier)
    selection.check_names(registry, request.methods, request.settings, request.config, request.only)
    assigned = settings.merged(request.config, request.settings)
    events = _events(registry, request, assigned, listeners)
    backend = Backend.choose(
        request.device,
        precision=request.precision,
        memory=request.memory,
        seed=request.seed,
        time_budget=request.time_budget,
        progress=progress,
    )
    _spare_original(request)
    with folder.claimed(request.output):
        events.tell("run_started", request=request, folder=request.output)
        opened = open_model(request.model, replace(request.load, images=request.data), registry, assigned)
        if earlier is not None:
            earlier.check(opened.facts)
        network = opened.network.to(backend.device)
        dealt = _dealt(request, network, backend)
        network = _named(network, request.load, dealt.scan)
        chosen = _chosen(request, registry, network, assigned)
        _refuse_unused(request.settings, chosen, registry)
        before = [opened.run, *(earlier.runs if earlier else ())]
        stages = Stages(chosen, backend, events, dealt.scan, before, dealt.repair)
        model = {**opened.facts, "class_names": list(network.class_names)}
        report = _blank(request, backend, model, dealt, registry, chosen)
        try:
            found = detect(stages, network) if earlier is None else _found_before(earlier, stages, network)
            report = _with_findings(report, _on_test_data(found, dealt, network, backend))
            repairs = mend(stages, network, found, dealt, request.max_accuracy_drop, suspected=earlier is not None)
            report = replace(report, repairs=_compacted(repairs) if request.compact else repairs)
            report = _with_exports(report, request, registry, assigned)
        except KeyboardInterrupt:
            _finish(_interrupted(report, stages), stages, request, started, events)
            raise
        return _finish(report, stages, request, started, events)


def read(data: Path, network: Network, backend: Backend) -> Samples:
    """The benign images, in the network's size and on its device."""
    samples = read_samples(data, input_shape=network.input_shape, class_names=None)
    samples.check_against(network.input_shape, network.class_count)
    return samples.to(backend.device)


def _dealt(request: Request, network: Network, backend: Backend) -> Dealt:
    """The images of a run by what they are for."""
    samples = _given_or_inverted(request.data, network, backend)
    test = None if request.test_data is None else read(request.test_data, network, backend)
    repair = None if request.repair_data is None else read(request.repair_data, network, backend)
    if test is not None and test.test is not None:  # a folder or file of two parts
        test = test.test
    generator = backend.generator("test data for repair", device="cpu")
    return deal(samples, test, repair, network.class_count, generator)


def _given_or_inverted(data: Path | None, network: Network, backend: Backend) -> Samples:
    """The benign images; images made from the network where none were given."""
    if data is not None:
        return read(data, network, backend)
    with backend.computing():
        return inverted(network, backend)


def _chosen(request: Request, registry: Registry, network: Network, assigned: settings.Assignments) -> Selection:
    """The methods of a run; where a repair is asked for in words, the engine's unless one is named."""
    chosen = selection.select(registry, network, request.methods, assigned, request.only)
    if not (request.repair and request.only) or chosen.of("mitigation"):
        return chosen
    usual = selection.select(registry, network, (), assigned)
    broken = dict.fromkeys((*chosen.broken, *usual.broken))
    return Selection((*chosen.methods, *usual.of("mitigation")), tuple(broken))


def _compacted(repairs: tuple[Repair, ...]) -> tuple[Repair, ...]:
    """The repairs, the best of them without channels pruned to zero; it stays whole where that fails."""
    if not repairs or repairs[0].rescan is None:
        return repairs
    best, *others = repairs
    try:
        best = compacted(best)
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        best = replace(best, notes=(*best.notes, f"not compacted: {reason}"))
    return best, *others


def _on_test_data(found: Findings, dealt: Dealt, network: Network, backend: Backend) -> Findings:
    """The findings with the network's accuracy on the test data, where there are any; the verdict stands."""
    if dealt.measure is dealt.scan or dealt.measured_on != "test data":
        return found
    with backend.computing():
        return replace(
            found, benign=Benign(*measuring.accuracy(network, dealt.measure, replace(backend, deadline=None)))
        )


def _spare_original(request: Request) -> None:
    if request.repaired is not None and request.repaired.resolve() == Path(request.model).resolve():
        raise UsageError(
            f"{request.repaired} is the model itself, which AGNES never changes; give another file with -o"
        )


def _as_before(request: Request, earlier: Earlier) -> Request:
    """The request with the images and the methods of an earlier run, which a re-scan uses again."""
    ran = [run for run in earlier.runs if run.status != "skipped"]
    before = {run.name: dict(run.settings) for run in ran}
    return replace(
        request,
        data=request.data or earlier.data,
        test_data=request.test_data or earlier.given("test_data"),
        repair_data=request.repair_data or earlier.given("repair_data"),
        methods=tuple(dict.fromkeys((*(run.name for run in ran), *request.methods))),
        only=bool(ran),  # the re-scan is the scan of that run, and no more
        repair=True,
        config=settings.merged(before, request.config),
    )


def _found_before(earlier: Earlier, stages: Stages, network: Network) -> Findings:
    """What an earlier run found, judged again with the network on the images of this one."""
    found = replace(earlier.findings(network), benign=on_benign(stages, network))
    return found if earlier.unjudged else judged(stages, network, found, inverted=earlier.inverted)


def _named(network: Network, options: LoadOptions, samples: Samples) -> Network:
    """The network with the class names that the images bring, where the model came without."""
    if options.class_names is not None or "class_names" in network.facts or samples.class_names is None:
        return network
    return network.with_class_names(samples.class_names)


def _events(registry: Registry, request: Request, assigned: settings.Assignments, listeners: Sequence[Any]) -> Events:
    """The hooks of all that listens to this run."""
    reporters = {f"listener {i}": listener for i, listener in enumerate(listeners)}
    for name in request.reports:
        plugin = registry.named(name, ("reporter",))
        reporters[name] = settings.build(registry.method(plugin), name, assigned.get(name, {}))
    return Events(reporters)


def _refuse_unused(typed: settings.Assignments, chosen: Selection, registry: Registry) -> None:
    used = {c.name for c in chosen.methods}
    used |= {p.name for p in registry.plugins if p.stage in ("loader", "exporter", "reporter")}
    for owner in typed:
        if owner not in used:
            raise UsageError(f"{owner} has settings but no part in this run; name it with --plugin {owner}")


def _blank(
    request: Request,
    backend: Backend,
    model: Mapping[str, Any],
    dealt: Dealt,
    registry: Registry,
    chosen: Selection,
) -> Report:
    return Report(
        model=model,
        data={**environment.of_images(dealt), **_on_benign(Benign())},
        verdict=Findings().verdict,
        environment=environment.describe(backend, registry, chosen),
        settings={
            "seed": request.seed,
            "precision": request.precision,
            "time_budget": request.time_budget,
            "only": request.only,
            "repair": request.repair,
            "test_data": request.test_data,
            "repair_data": request.repair_data,
            "methods": [m if isinstance(m, str) else type(m).__name__ for m in request.methods],
        },
    )


def _with_findings(report: Report, found: Findings) -> Report:
    return replace(
        report,
        data={**report.data, **_on_benign(found.benign)},
        verdict=found.verdict,
        candidates=found.candidates,
        triggers=found.triggers,
        evidence=found.evidence,
    )


def _on_benign(benign: Benign) -> dict[str, Any]:
    return {"accuracy": benign.accuracy, "accuracy_images": benign.images}


def _interrupted(report: Report, stages: Stages) -> Report:
    """What was found before the user stopped the run."""
    found = stages.results
    return replace(
        report,
        candidates=report.candidates or found.get("stimulation", ()),
        triggers=report.triggers or found.get("inversion", ()),
        evidence=report.evidence or found.get("diagnosis", ()),
        repairs=report.repairs or found.get("mitigation", ()),
        complete=False,
    )


def _with_exports(report: Report, request: Request, registry: Registry, assigned: settings.Assignments) -> Report:
    """Write the best repaired network where the user wants it, or into the run folder."""
    place = _place_of_repaired(request, Path(str(report.model["name"])).suffix)
    if place is None or report.repair is None or report.repair.rescan is None:
        return report
    path, why_not = exporting.export(report.repair.network, *place, registry, assigned)
    exported = None if path is None else str(path) if request.repaired else path.name
    best = replace(report.repair, exported=exported)
    if why_not:
        what = f"written as {path.name}" if path else "not written to a file"
        best = replace(best, notes=(*best.notes, f"{what}: {why_not}"))
    return replace(report, repairs=(best, *report.repairs[1:]))


def _place_of_repaired(request: Request, suffix: str) -> tuple[Path, str] | None:
    """Where a repaired network goes, without its suffix, and the suffix."""
    if request.repaired is not None:
        return request.repaired.with_suffix(""), request.repaired.suffix or suffix
    return None if request.output is None else (request.output / folder.REPAIRED, suffix)


def _finish(report: Report, stages: Stages, request: Request, started: float, events: Events) -> Report:
    timings = {**stages.timings, "total": time.monotonic() - started}
    report = replace(report, methods=tuple(stages.runs), timings=timings, written=request.output is not None)
    report = replace(report, environment=environment.with_peak(report.environment, stages.backend, stages.peak))
    report = _with_failures(report, events)
    if request.output is not None:
        folder.write(report, request.output, stages.samples)
    events.tell("run_finished", report=report, folder=request.output)
    return _with_failures(report, events)


def _with_failures(report: Report, events: Events) -> Report:
    """The report with the listeners that failed among what is broken."""
    broken = dict.fromkeys([*report.environment["broken_plugins"], *events.failures])
    return replace(report, environment={**report.environment, "broken_plugins": list(broken)})


def exit_code(report: Report) -> int:
    """0 clean, 1 backdoor found, 3 nothing applicable, 5 inconclusive."""
    if report.verdict.status == "inconclusive":
        detecting = [r for r in report.methods if r.stage in judging.DETECTION]
        return 3 if all(r.status == "skipped" for r in detecting) else 5
    return {"clean": 0, "backdoored": 1}[report.verdict.status]
