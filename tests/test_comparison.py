"""Methods of one stage side by side, in the report and on the terminal."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from agnes.reports import comparison, terminal
from agnes.reports.json import as_json
from agnes.results import Candidate, Curve, MaskTrigger, MethodRun, Report, Verdict

MODEL = {
    "name": "m.onnx",
    "input_shape": [3, 4, 4],
    "classes": 4,
    "layers": 2,
    "parameters": 10,
    "class_names": ["a", "b", "c", "d"],
}


def run(name, stage="stimulation", status="ok", **more):
    return MethodRun(name, stage, "d", "1", {}, status, **more)


def candidate(method, layer, channel, target=1):
    return Candidate(layer, channel, target, 1.0, 0.0, 1.0, method=method)


@pytest.fixture
def report():
    found = [candidate("one", "a", 1), candidate("one", "a", 2, 3), candidate("one", "b", 1)]
    found += [candidate("other", "a", 2), candidate("other", "b", 1), candidate("other", "b", 4, 2)]
    runs = (
        run("loader", "loader"),
        run("one", seconds=2.0, memory=3 << 20),
        run("other", seconds=5.0, memory=7 << 20, notes=("a layer was left out",)),
        run("broken", status="failed", reason="no"),
        run("alone", "inversion"),
    )
    data = {"images": 4, "labelled": True, "accuracy": None}
    return Report(MODEL, data, Verdict("inconclusive", None), tuple(found), methods=runs)


def test_two_methods_of_a_stage_are_compared_by_what_both_found(report):
    (pair,) = comparison.compared(report)
    assert (pair["one"], pair["other"], pair["stage"]) == ("one", "other", "stimulation")
    assert pair["found"] == [3, 3]
    assert pair["shared"] == 2  # (a, 2) and (b, 1)
    assert pair["targets"] == [1]
    assert as_json(report)["comparison"] == [pair]


def test_triggers_are_compared_by_their_classes(report):
    mask, pattern = torch.zeros(1, 4, 4), torch.zeros(3, 4, 4)
    made = [("x", 0), ("x", 1), ("y", 1)]
    triggers = tuple(MaskTrigger(target=t, asr=0.5, held_out=1, mask=mask, pattern=pattern, method=m) for m, t in made)
    runs = (run("x", "inversion"), run("y", "inversion"))
    (pair,) = comparison.compared(replace(report, methods=runs, triggers=triggers, candidates=()))
    assert (pair["found"], pair["shared"], pair["targets"]) == ([2, 1], 1, [1])


def test_a_method_alone_in_its_stage_is_compared_with_none(report):
    alone = replace(report, methods=(run("one"),))
    assert comparison.compared(alone) == []
    assert comparison.side_by_side(alone) == []


def test_the_terminal_shows_time_memory_and_overlap(report):
    text = io.StringIO()
    terminal.summary(report, None, Console(file=text, width=110, markup=False, highlight=False))
    lines = text.getvalue().splitlines()
    assert any(line.split() == ["one", "stimulation", "3", "2.0", "3"] for line in lines)
    assert any(line.split() == ["other", "stimulation", "3", "5.0", "7"] for line in lines)
    assert any("one and other: 2 channels in common of 3 and 3" in line for line in lines)
    assert any("other: a layer was left out" in line for line in lines)


def test_a_candidates_curve_is_written_as_three_lines_of_numbers():
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.0, 5.0, -1.0]])
    curve = Curve(torch.tensor([0.0, 2.0]), logits)
    found = (Candidate("a", 0, 1, 1.0, 0.0, 1.0, curve=curve), Candidate("a", 0, None, 1.0, 0.0, 1.0))
    written = as_json(Report(MODEL, {}, Verdict("clean", None), found))["candidates"]
    assert written[0]["curve"] == {"values": [0.0, 2.0], "target": [1.0, 5.0], "best_other": [2.0, 0.0]}
    assert written[1]["curve"] is None


def test_a_method_that_ran_on_two_abstractions_is_one_side_with_all_its_time(report):
    twice = replace(report, methods=(*report.methods, run("other", seconds=1.5, memory=9 << 20)))
    sides = {side.name: side for side, _ in comparison.side_by_side(twice)}
    assert (sides["other"].seconds, sides["other"].memory) == (6.5, 9 << 20)
    assert (sides["one"].seconds, sides["one"].memory) == (2.0, 3 << 20)
    assert len(comparison.compared(twice)) == 1


def test_the_terminal_names_the_classes_that_both_point_to(report):
    page = io.StringIO()
    terminal.summary(report, None, Console(file=page, width=200))
    assert "one and other: 2 channels in common of 3 and 3; both point to 1 b" in page.getvalue()
