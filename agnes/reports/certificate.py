"""A repair's certificate for the eye: what was changed, what that cost, and what is left of the backdoor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from agnes.intervals import wilson
from agnes.text import counted, printable

if TYPE_CHECKING:
    from rich.console import Console

    from agnes.results import Confusion, Relearning, Repair, Report

STYLE = {"clean": "bold green", "backdoored": "bold red", "inconclusive": "bold yellow"}
_SHOWN = 3  # classes that lost most; the report has them all


def show(report: Report, repair: Repair, to: Console) -> None:
    """One repair in a few lines."""
    to.print(Text(f"repair   {repair.method}: {_changed(repair)}"))
    for line in (*_accuracy(report, repair), *_outcomes(report, repair)):
        to.print(Text(f"         {line}"))
    if repair.rescan is not None:
        to.print(Text("         re-scan: ").append(repair.rescan.status, STYLE[repair.rescan.status]))
    if repair.relearning is not None:
        to.print(Text(f"         {_relearning(report, repair.relearning)}"))
    for note in repair.notes:
        to.print(Text(f"         {printable(note)}"))
    if repair.exported:
        to.print(Text(f"         written to {repair.exported}"))


def _changed(repair: Repair) -> str:
    channels = len({(c.layer, c.channel) for c in repair.changes if c.channel is not None})
    said = [counted(len(repair.changes), "change")]
    said += [f"{counted(channels, 'channel')} pruned"] if channels else []
    if repair.weights_changed is not None:
        said.append(f"{repair.weights_changed:,} of {repair.weights:,} weights differ")
    return ", ".join(said)


def _accuracy(report: Report, repair: Repair) -> list[str]:
    """What the repair cost; where no image has a label, that nobody knows."""
    if repair.rescan is None:
        return []
    if repair.accuracy_before is None or repair.accuracy_after is None:
        said = "accuracy is not known: no image has a label; give labelled ones with --test-data"
        return [said, f"{repair.agreement:.1%} of the images are called as before"] if repair.agreement else [said]
    images = repair.accuracy_images
    before, after = (_share(share, images) for share in (repair.accuracy_before, repair.accuracy_after))
    seen = ", which the repair has seen too" if repair.measured_on == "repair images" else ""
    return [f"accuracy {before} before, {after} after, on {counted(images, 'image')}{seen}", *_lost(report, repair)]


def _share(share: float, count: int) -> str:
    """A share with its 95 % interval."""
    low, high = wilson(share, count) or (0.0, 1.0)
    return f"{share:.1%} ({low:.1%} to {high:.1%})"


def _lost(report: Report, repair: Repair) -> list[str]:
    """The classes that lost most of their images, in one line."""
    before, after = _right(repair.confusion_before), _right(repair.confusion_after)
    lost = {label: before[label] - after.get(label, 0) for label in before}
    most = sorted((label for label in lost if lost[label] > 0), key=lambda label: -lost[label])[:_SHOWN]
    if not most:
        return []
    all_of = {label: sum(count for true, _, count in repair.confusion_before if true == label) for label in most}
    told = [
        f"{_class(report, label)} {before[label]} of {all_of[label]} right before, {after.get(label, 0)} after"
        for label in most
    ]
    return [f"most lost: {'; '.join(told)}"]


def _right(confusion: Confusion) -> dict[int, int]:
    return {true: count for true, seen, count in confusion if true == seen}


def _outcomes(report: Report, repair: Repair) -> list[str]:
    return [
        f"the trigger to {_class(report, o.target)} succeeds on {o.before:.0%} before, {o.after:.0%} after, of "
        f"{counted(o.images, 'image')}"
        for o in repair.outcomes
    ]


def _relearning(report: Report, found: Relearning) -> str:
    """Whether a few steps bring the backdoor back."""

    def steps(count: int | None) -> str:
        return f"not in {found.limit}" if count is None else str(count)

    others = ", ".join(steps(count) for count in found.controls.values())
    verdict = "the backdoor comes back quickly" if found.quick else "no quicker than something new"
    return (
        f"relearning: {_class(report, found.target)} takes {steps(found.target_steps)} steps on {found.images} images, "
        f"other classes {others}: {verdict}"
    )


def _class(report: Report, label: int) -> str:
    return f"{label} {printable(report.model['class_names'][label], 30)}"
