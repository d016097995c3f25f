"""Methods of one stage side by side: what each found, and what two of them both found."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable

    from agnes.results import MethodRun, Report

_STAGES = ("stimulation", "inversion")


def side_by_side(report: Report) -> list[tuple[MethodRun, int]]:
    """The runs of stages in which more than one method found something to find, with how much each found."""
    beside: list[tuple[MethodRun, int]] = []
    for stage in _STAGES:
        runs = _runs(report, stage)
        if len(runs) > 1:
            beside += [(run, len(_found(report, stage, run.name))) for run in runs]
    return beside


def compared(report: Report) -> list[dict[str, Any]]:
    """For each two methods of one stage, how much they agree."""
    pairs = []
    for stage in _STAGES:
        for one, other in combinations(_runs(report, stage), 2):
            ones, others = _found(report, stage, one.name), _found(report, stage, other.name)
            pairs.append(
                {
                    "stage": stage,
                    "one": one.name,
                    "other": other.name,
                    "found": [len(ones), len(others)],
                    "shared": len(ones & others),
                    "targets": sorted(_targets(report, stage, one.name) & _targets(report, stage, other.name)),
                }
            )
    return pairs


def _runs(report: Report, stage: str) -> list[MethodRun]:
    """The methods of a stage that came to their end; one that ran on several abstractions with all its time."""
    runs: dict[str, MethodRun] = {}
    for run in report.methods:
        if run.stage == stage and run.status == "ok":
            before = runs.get(run.name)
            runs[run.name] = run if before is None else _together(before, run)
    return list(runs.values())


def _together(one: MethodRun, other: MethodRun) -> MethodRun:
    known = [run.memory for run in (one, other) if run.memory is not None]
    return replace(one, seconds=one.seconds + other.seconds, memory=max(known, default=None))


def _found(report: Report, stage: str, method: str) -> set[Hashable]:
    """What a method points to: channels, or the classes of its triggers."""
    if stage == "stimulation":
        return {(c.layer, c.channel) for c in report.candidates if c.method == method}
    return set(_targets(report, stage, method))


def _targets(report: Report, stage: str, method: str) -> set[int]:
    results = report.candidates if stage == "stimulation" else report.triggers
    return {r.target for r in results if r.method == method and r.target is not None}
