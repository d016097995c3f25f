"""Repairing a model from the findings of an earlier run."""

import json
import math
import shutil
from dataclasses import replace

import fakes
import pytest
import torch
from typer.testing import CliRunner

import agnes
from agnes import cli, engine, mending
from agnes.detecting import Findings
from agnes.earlier import Earlier
from agnes.errors import AgnesError, UsageError
from agnes.results import Repair, TriggerOutcome, Verdict
from agnes.testing import tiny_network


@pytest.fixture
def house():
    with fakes.installed(*fakes.whole_house()):
        yield


@pytest.fixture(scope="module")
def scanned_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scanned")
    with fakes.installed(*fakes.whole_house()):
        return folder, engine.run(fakes.request(folder, "needy", output=folder / "run"))


@pytest.fixture
def scanned(house, scanned_once, tmp_path):
    """A request, and the report of its run in tmp_path / "run"."""
    folder, report = scanned_once
    shutil.copytree(folder / "run", tmp_path / "run")
    return fakes.request(folder, "needy"), report


EVIDENCE = {"name": "a score", "method": "scores", "note": "", "target": None, "score": 0.5, "threshold": 1.0}
EVIDENCE |= {"null": [], "by_class": []}


def altered(folder, change):
    path = folder / "report.json"
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))


def forget(*names):
    def change(report):
        for name in names[:-1]:
            report = report[name]
        del report[names[-1]]

    return change


def put(value, *names):
    def change(report):
        for name in names[:-1]:
            report = report[name]
        report[names[-1]] = value

    return change


def test_a_repair_from_a_run_is_the_repair_of_that_run(scanned, tmp_path):
    asked, first = scanned
    again = engine.run(
        replace(asked, methods=(), output=None, findings=tmp_path / "run", repaired=tmp_path / "clean.fake")
    )
    assert again.verdict == first.verdict
    assert again.candidates == first.candidates
    assert [t.target for t in again.triggers] == [t.target for t in first.triggers]
    for one, other in zip(again.triggers, first.triggers, strict=True):
        assert torch.equal(one.delta, other.delta)
        assert (one.asr, one.convicts, one.purpose) == (other.asr, other.convicts, other.purpose)
    assert again.repair.changes == first.repair.changes
    assert again.repair.outcomes == first.repair.outcomes
    assert again.repair.rescan == first.repair.rescan
    assert (again.data["accuracy"], again.data["accuracy_images"]) == (first.data["accuracy"], 8)
    assert again.repair.exported == str(tmp_path / "clean.fake")
    assert (tmp_path / "clean.fake").exists()


def test_findings_are_judged_again_whatever_the_run_made_of_them(scanned, tmp_path):
    asked, first = scanned
    assert first.verdict.status == "backdoored"

    def acquitted(report):
        report["verdict"].update(status="clean", probability=0.0, target=None, targets=[], reasons=["so it was then"])
        for trigger in report["triggers"]:
            trigger.update(convicts=False, reach=None, anomaly_index=None)

    altered(tmp_path / "run", acquitted)
    again = engine.run(replace(asked, methods=(), output=None, findings=tmp_path / "run"))
    assert again.verdict == first.verdict
    assert [(t.convicts, t.reach, t.anomaly_index) for t in again.triggers] == [
        (t.convicts, t.reach, t.anomaly_index) for t in first.triggers
    ]


def test_a_trigger_that_no_longer_convicts_says_no_reach(scanned, tmp_path):
    weak = {"asr": 0.3, "convicts": True, "reach": 1.0}
    altered(tmp_path / "run", lambda report: [trigger.update(weak) for trigger in report["triggers"]])
    again = engine.run(replace(scanned[0], methods=(), output=None, findings=tmp_path / "run"))
    assert {(trigger.convicts, trigger.reach) for trigger in again.triggers} == {(False, None)}


def test_a_run_that_was_interrupted_before_its_verdict_gets_none_by_what_it_had_found(scanned, tmp_path):
    interrupted = Findings().verdict

    def cut(report):
        report.update(complete=False, triggers=[], evidence=[])
        report["verdict"].update(status=interrupted.status, reasons=list(interrupted.reasons))

    altered(tmp_path / "run", cut)
    again = engine.run(replace(scanned[0], methods=(), output=None, findings=tmp_path / "run"))
    assert again.verdict == interrupted


def test_evidence_is_read_again_and_counts(scanned, tmp_path):
    asked, first = scanned
    again = engine.run(replace(asked, methods=(), output=None, findings=tmp_path / "run"))
    assert again.evidence == first.evidence
    shown = {
        **EVIDENCE,
        "score": 3.0,
        "target": 2,
        "null": [0.1, None],
        "by_class": [0.0, 0.5, 3.0, *[0.0] * 5],
        "note": "seen",
    }
    altered(tmp_path / "run", put([shown], "evidence"))
    altered(tmp_path / "run", put([], "triggers"))
    (found,) = Earlier.read(tmp_path / "run").findings(fakes.tiny_network()).evidence
    assert (found.score, found.target, found.by_class, found.note) == (3.0, 2, (0.0, 0.5, 3.0, *[0.0] * 5), "seen")
    assert found.null[0] == 0.1
    assert math.isnan(found.null[1])
    again = engine.run(replace(asked, methods=(), output=None, findings=tmp_path / "run"))
    assert again.verdict.status == "inconclusive"
    assert "a score is 3, above 1" in again.verdict.reasons[0]


@pytest.mark.parametrize("inverted", [True, False])
def test_findings_on_images_made_from_the_model_let_none_pass(scanned, tmp_path, inverted):
    asked, _ = scanned
    altered(tmp_path / "run", put(inverted, "data", "inverted"))
    again = engine.run(replace(asked, methods=(), output=tmp_path / "second", findings=tmp_path / "run"))
    assert any("were made from the model" in reason for reason in again.verdict.reasons) is inverted
    third = engine.run(replace(asked, methods=(), output=None, findings=tmp_path / "second"))
    assert third.verdict == again.verdict


@pytest.mark.parametrize("unseen", [True, False])
def test_a_trigger_read_again_says_whether_its_success_is_of_images_it_was_chosen_on(scanned, tmp_path, unseen):
    altered(tmp_path / "run", put(unseen, "triggers", 0, "unseen"))
    again = engine.run(replace(scanned[0], methods=(), output=None, findings=tmp_path / "run"))
    assert again.triggers[0].unseen is unseen


@pytest.mark.parametrize(("stage", "unseen"), [("inversion", True), ("diagnosis", False)])
def test_where_a_report_is_older_than_that_field_a_diagnosis_chose_by_the_images(scanned, tmp_path, stage, unseen):
    def older(report):
        (run,) = (run for run in report["methods"] if run["name"] == report["triggers"][0]["method"])
        run["stage"] = stage
        del report["triggers"][0]["unseen"]

    altered(tmp_path / "run", older)
    again = engine.run(replace(scanned[0], methods=(), output=None, findings=tmp_path / "run"))
    assert again.triggers[0].unseen is unseen


def test_the_scan_itself_is_not_done_again_and_its_methods_are_in_the_report(scanned, tmp_path):
    asked, first = scanned
    seen = []

    class Listens:
        @agnes.hookimpl
        def stage_finished(self, stage):
            seen.append(stage)

    again = engine.run(replace(asked, output=None, findings=tmp_path / "run"), listeners=[Listens()])
    assert seen == ["mitigation"]
    assert [(m.name, m.status) for m in again.methods] == [(m.name, m.status) for m in first.methods]


def test_the_images_of_the_run_are_used_where_no_others_are_given(scanned, tmp_path):
    asked, first = scanned
    again = engine.run(replace(asked, data=None, output=None, findings=tmp_path / "run"))
    assert again.data["sha256"] == first.data["sha256"]


def test_images_of_the_run_that_are_gone_are_asked_for(scanned, tmp_path):
    asked, _ = scanned
    altered(tmp_path / "run", put(str(tmp_path / "gone.npz"), "data", "source"))
    with pytest.raises(UsageError, match=r"no longer at .*gone.npz; give them with --data"):
        engine.run(replace(asked, data=None, output=None, findings=tmp_path / "run"))
    assert engine.run(replace(asked, output=None, findings=tmp_path / "run")).repair is not None


def test_the_findings_of_another_model_are_refused(scanned, tmp_path):
    asked, _ = scanned
    altered(tmp_path / "run", lambda report: report["model"].update(sha256="0" * 64))
    with pytest.raises(UsageError, match=r"is the run of another model \(model.fake\)"):
        engine.run(replace(asked, output=None, findings=tmp_path / "run"))


def test_the_original_is_never_written_over(scanned, tmp_path):
    asked, _ = scanned
    with pytest.raises(UsageError, match="is the model itself"):
        engine.run(replace(asked, output=None, findings=tmp_path / "run", repaired=asked.model))


def test_a_folder_without_a_run_is_told(house, tmp_path):
    with pytest.raises(UsageError, match="is no run folder"):
        engine.run(fakes.request(tmp_path, findings=tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "change",
    [
        forget("triggers"),
        put(3, "candidates"),
        put(None, "triggers", 0, "files"),
        put("../../report.json", "triggers", 0, "files", "arrays"),
        forget("triggers", 0, "asr"),
        put("\x1b[2Jgone", "triggers", 0, "method"),
        put("m\x00", "triggers", 0, "method"),
        put("m" * 300, "triggers", 0, "method"),
        put(3, "triggers", 0, "method"),
        put("high", "triggers", 0, "asr"),
        put(float("nan"), "triggers", 0, "asr"),
        put(7.0, "triggers", 0, "asr"),
        put(-3, "triggers", 0, "asr"),
        put(True, "triggers", 0, "asr"),
        put(1.01, "triggers", 0, "reach"),
        put(-0.5, "triggers", 0, "null_share"),
        put(2, "triggers", 0, "natural_share"),
        put(-5, "triggers", 0, "held_out"),
        put(-(10**400), "triggers", 0, "held_out"),
        put(True, "triggers", 0, "held_out"),
        put(False, "triggers", 0, "source"),
        put(True, "triggers", 0, "channel"),
        put(True, "triggers", 0, "anomaly_index"),
        put("yes", "triggers", 0, "convicts"),
        put("yes", "triggers", 0, "unseen"),
        put([], "triggers", 0, "anomaly_index"),
        put("\x1b[2Jgone", "triggers", 0, "layer"),
        put("no such layer", "candidates", 0, "layer"),
        put([[99, 99]], "candidates", 0, "positions"),
        put([{}], "evidence"),
        put([{**EVIDENCE, "target": 99}], "evidence"),
        put([{**EVIDENCE, "target": True}], "evidence"),
        put([{**EVIDENCE, "score": "high"}], "evidence"),
        put([{**EVIDENCE, "score": "0.5"}], "evidence"),
        put([{**EVIDENCE, "score": 10**400}], "evidence"),
        put([{**EVIDENCE, "score": float("nan")}], "evidence"),
        put([{**EVIDENCE, "by_class": 3}], "evidence"),
        put([{**EVIDENCE, "by_class": [None] * 8}], "evidence"),
        put([{**EVIDENCE, "by_class": [1.0] * 50}], "evidence"),
        put([{**EVIDENCE, "by_class": [float("inf")] * 8}], "evidence"),
        put([], "methods", 1, "name"),
        put([], "methods", 1, "status"),
        put([{**EVIDENCE, "name": "\x1b[2Jgone"}], "evidence"),
        put([{"stage": "inversion"}], "methods"),
        put("nobody", "methods", 1, "name"),
        put({"x": 1}, "methods", 1, "settings"),
    ],
)
def test_a_damaged_report_is_told_in_one_line(scanned, tmp_path, change):
    asked, _ = scanned
    altered(tmp_path / "run", change)
    with pytest.raises(AgnesError) as caught:
        engine.run(replace(asked, output=None, findings=tmp_path / "run"))
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "null"])
def test_what_is_no_report_is_told(scanned, tmp_path, text):
    asked, _ = scanned
    (tmp_path / "run" / "report.json").write_text(text)
    with pytest.raises(UsageError, match="is no report of a run"):
        engine.run(replace(asked, output=None, findings=tmp_path / "run"))


def test_the_command_writes_the_model_and_tells_what_it_did(scanned, tmp_path, monkeypatch):
    asked, first = scanned
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, ["repair", str(asked.model), "--from", "run", "-o", "clean.fake", "-q"])
    assert result.exit_code == {"clean": 0, "backdoored": 1, "inconclusive": 5}[first.repair.rescan.status], (
        result.output
    )
    assert "repair   silence" in result.output
    assert "written to clean.fake" in result.output
    assert (tmp_path / "clean.fake").exists()
    assert (tmp_path / "runs" / "model" / "report.json").exists()


def test_without_anything_to_repair_the_command_says_so(scanned, tmp_path, monkeypatch):
    asked, _ = scanned
    monkeypatch.chdir(tmp_path)

    altered(tmp_path / "run", put([], "triggers"))
    result = CliRunner().invoke(cli.app, ["repair", str(asked.model), "--from", "run", "-q"])
    assert result.exit_code != 0
    assert "nothing was repaired" in str(result.exception)
    assert not list(tmp_path.rglob("*-repaired.fake"))


def test_python_repairs_in_one_call(scanned, tmp_path):
    asked, first = scanned
    report = agnes.repair(asked.model, tmp_path / "run", output=tmp_path / "clean.fake")
    assert report.repair.changes == first.repair.changes
    assert (tmp_path / "clean.fake").exists()


def test_a_re_scan_is_the_scan_of_the_run_and_no_more(scanned, tmp_path, monkeypatch):
    asked, first = scanned
    chosen, select = [], engine._chosen

    def watched(*given):
        chosen.append(select(*given))
        return chosen[-1]

    monkeypatch.setattr(engine, "_chosen", watched)
    inverting = {run.name for run in first.methods if run.stage == "inversion"}

    def forget_the_rest(report):
        report["methods"] = [run for run in report["methods"] if run["name"] in inverting]

    altered(tmp_path / "run", forget_the_rest)
    engine.run(replace(asked, methods=(), output=None, findings=tmp_path / "run"))
    assert {method.name for method in chosen[0].methods if method.stage != "mitigation"} == inverting
    assert chosen[0].of("mitigation")


def test_a_repair_that_ends_the_trigger_is_better_than_one_that_leaves_all_as_it_was():
    network = tiny_network("plain")

    def made(status, after, lost):
        return Repair(
            network,
            (),
            accuracy_before=0.9,
            accuracy_after=0.9 - lost,
            outcomes=(TriggerOutcome(0, 1.0, after, 50),),
            rescan=Verdict(status, 0.5),
        )

    order = [
        made("clean", 0.0, 0.01),
        made("clean", 0.0, 0.05),
        made("inconclusive", 0.0, 0.05),
        made("backdoored", 0.02, 0.01),
        made("backdoored", 0.02, 0.05),
        made("backdoored", 1.0, 0.0),
        Repair(network, ()),
    ]
    backwards = order[::-1]
    assert sorted(backwards, key=lambda repair: mending._merit(repair, 0.02)) == order
