"""What a person sees of a run: progress while it lasts, and a summary at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from agnes.hookspecs import hookimpl
from agnes.reports import certificate, comparison
from agnes.reports.folder import REPORT
from agnes.reports.json import trigger_stem
from agnes.results import NOT_NEEDED
from agnes.text import counted, printable

if TYPE_CHECKING:
    from agnes.health import Health
    from agnes.results import MethodRun, Report, Trigger


_SHOWN = 5  # triggers and candidates in the summary; the report has them all
_PLAIN_WIDTH = 110  # of lines that do not go to a terminal


def console(stderr: bool = False) -> Console:
    """A console that never reads markup in what it is given."""
    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    return (
        made
        if made.is_terminal
        else Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=_PLAIN_WIDTH, soft_wrap=True)
    )


class Watch:
    """Shows a run as it goes: bars on a terminal, one line a stage elsewhere. Listens to the events of a run."""

    def __init__(self, to: Console) -> None:
        self._to = to
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=to,
            transient=True,
            disable=not to.is_terminal,
        )
        self._tasks: list[Any] = []

    def begin(self, what: str, total: int) -> None:
        if not self._tasks:
            self._bars.start()
        self._tasks.append(self._bars.add_task(printable(what, 40), total=total))

    def tick(self, amount: int) -> None:
        if self._tasks:
            self._bars.advance(self._tasks[-1], amount)

    def end(self) -> None:
        if self._tasks:
            self._bars.remove_task(self._tasks.pop())
        if not self._tasks:
            self._bars.stop()

    @hookimpl
    def stage_finished(self, stage: str, runs: Sequence[MethodRun], results: Sequence[Any]) -> None:
        for run in runs:
            said = f"{run.status}: {printable(run.reason)}" if run.status != "ok" else _found(stage, run, results)
            self._to.print(Text(f"{stage:<12} {run.name:<14} {run.seconds:6.1f} s  {said}"))


def _found(stage: str, run: MethodRun, results: Sequence[Any]) -> str:
    mine = [r for r in results if r.method == run.name]
    if stage == "abstraction":
        kept = sum(int(r.positions[layer].sum()) for r in mine for layer in r.positions)
        return f"{counted(kept, 'representative')} in {counted(len(mine[0].positions), 'layer')}" if mine else "nothing"
    nouns = {"stimulation": "candidate", "inversion": "trigger", "diagnosis": "score", "mitigation": "repair"}
    return counted(len(mine), nouns.get(stage, "result"))


def summary(report: Report, folder: Path | None, to: Console) -> None:
    """The report in one screen."""
    to.print()
    to.print(Text(_model_line(report)))
    _verdict(report, to)
    _triggers(report, to)
    _comparison(report, to)
    for repair in report.repairs:
        certificate.show(report, repair, to)
    _doubts(report, to)
    if folder is not None:
        _pictures(report, folder, to)
        to.print(Text(f"report   {folder}/{REPORT}"))


def _pictures(report: Report, folder: Path, to: Console) -> None:
    for index, trigger in enumerate(report.triggers):
        if trigger.convicts:
            to.print(Text(f"picture  {folder}/{trigger_stem(index, trigger)}.png"))


def _model_line(report: Report) -> str:
    model, data = report.model, report.data
    shape = "x".join(str(n) for n in model["input_shape"])
    images = counted(data["images"], "image") + ("" if data["labelled"] else " without labels")
    images += " made from the model" if data.get("inverted") else ""
    if data["accuracy"] is not None:
        of = (
            "" if data["accuracy_images"] == data["images"] else f" of {counted(data['accuracy_images'], 'test image')}"
        )
        images += f", {data['accuracy']:.1%}{of} right"
    return (
        f"{printable(model['name'], 60)}: {model['classes']} classes, {shape}, {counted(model['layers'], 'layer')}, "
        f"{model['parameters']:,} parameters; {images}; {report.timings.get('total', 0):.0f} s"
    )


def _verdict(report: Report, to: Console) -> None:
    verdict = report.verdict
    line = Text("verdict  ")
    line.append(verdict.status.upper(), certificate.STYLE[verdict.status])
    if verdict.probability is not None:
        line.append(
            f", probability {_probability(verdict.probability)}{'' if verdict.calibrated else ' (not calibrated)'}"
        )
    if verdict.target is not None:
        line.append(f", target class {verdict.target} ({printable(verdict.target_name, 40)})")
    to.print(line)
    for reason in verdict.reasons:
        to.print(Text(f"         {printable(reason)}"))


def _probability(value: float) -> str:
    return "above 0.999" if value > 0.999 else f"{value:.3f}"


def _success(trigger: Trigger) -> str:
    """The share of images, with a star where the trigger was chosen on them; a dash where there was none."""
    if not trigger.held_out:
        return "–"
    return f"{trigger.asr:.0%}{'' if trigger.unseen else '*'}"


def _triggers(report: Report, to: Console) -> None:
    if not report.triggers:
        return
    numbered = list(enumerate(report.triggers))[:_SHOWN]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("trigger", "to class", "success", "pixels", "size", "anomaly", "from"):
        left = name in ("trigger", "to class", "from")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for index, trigger in numbered:
        anomaly = "" if trigger.anomaly_index is None else f"{trigger.anomaly_index:.1f}"
        table.add_row(
            Text(f"{index:02d} {trigger.method}"),
            Text(_class(report, trigger.target)),
            _success(trigger),
            str(trigger.pixels),
            f"{trigger.l1:.1f}",
            anomaly,
            Text(_origin(trigger)),
            style="red" if trigger.convicts else "",
        )
    to.print(table)
    if not all(trigger.unseen or not trigger.held_out for _, trigger in numbered):
        to.print(Text("* on the images it was chosen on; a test part in --data gives others"))
    if len(report.triggers) > _SHOWN:
        to.print(Text(f"and {len(report.triggers) - _SHOWN} less unusual"))


def _comparison(report: Report, to: Console) -> None:
    """Methods of one stage side by side: time, memory, and what each two of them both found."""
    pairs = comparison.compared(report)
    sides = comparison.side_by_side(report)
    if not sides:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("method", "stage", "found", "s", "MiB"):
        table.add_column(name, justify="left" if name in ("method", "stage") else "right", no_wrap=True)
    for run, count in sides:
        memory = "" if run.memory is None else f"{run.memory / (1 << 20):,.0f}"
        table.add_row(Text(run.name), Text(run.stage), str(count), f"{run.seconds:.1f}", memory)
    to.print(table)
    for pair in pairs:
        what = "channel" if pair["stage"] == "stimulation" else "target"
        both = f"{pair['one']} and {pair['other']}: {counted(pair['shared'], what)} in common"
        to.print(Text(f"         {both} of {pair['found'][0]} and {pair['found'][1]}{_same_targets(report, pair)}"))


def _same_targets(report: Report, pair: Mapping[str, Any]) -> str:
    """The classes that two stimulations both point to; of inversions the targets are what was counted."""
    if pair["stage"] != "stimulation" or not pair["targets"]:
        return ""
    named = ", ".join(_class(report, target) for target in pair["targets"][:_SHOWN])
    return f"; both point to {named}"


def _class(report: Report, target: int) -> str:
    return f"{target} {printable(report.model['class_names'][target], 30)}"


def _origin(trigger: Trigger) -> str:
    return f"{printable(trigger.layer, 24)} channel {trigger.channel}" if trigger.layer is not None else trigger.purpose


def _doubts(report: Report, to: Console) -> None:
    """What did not run as it should have."""
    for run in report.methods:
        nothing_to_mend = (
            run.stage == "mitigation" and run.status == "skipped" and report.verdict.status != "backdoored"
        ) and not report.settings.get("repair")
        if run.status != "ok" and not nothing_to_mend and not run.reason.startswith(NOT_NEEDED):
            to.print(Text(f"{run.status:<8} {run.name} ({run.stage}): {printable(run.reason)}"))
        for note in run.notes:
            to.print(Text(f"note     {run.name}: {printable(note, 300)}"))
    for broken in report.environment.get("broken_plugins", ()):
        to.print(Text(f"broken   {printable(broken, 400)}"))
    if not report.complete:
        to.print(Text("stopped  the run was interrupted; the report holds what was found by then"))


def health(found: Health, to: Console) -> None:
    """What `agnes doctor` found."""
    for name, version in found.versions.items():
        to.print(Text(f"{name:<18} {version}"))
    for name, value in found.device.items():
        to.print(Text(f"{name:<18} {value}"))
    to.print(Text(f"{'plugins':<18} {found.plugins}"))
    for problem in found.problems:
        to.print(Text("problem  ", "bold red").append(printable(problem, 500), "default"))
    if found.sound:
        to.print(Text("all is well", "bold green"))
