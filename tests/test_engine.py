"""One run, from the model file to the report."""

import json
import subprocess
import sys

import fakes
import pytest
import torch

from agnes import engine, mending
from agnes.errors import OutputError, Refused, UsageError
from agnes.hookspecs import hookimpl
from agnes.reports.json import without_measurements


@pytest.fixture
def house():
    with fakes.installed(*fakes.whole_house()):
        yield


def request(tmp_path, *methods, **options):
    options = {"model": fakes.model_file(tmp_path), "data": fakes.images_file(tmp_path), **options}
    return engine.Request(methods=methods, **options)


def test_a_run_goes_through_every_stage_and_writes_its_folder(house, tmp_path):
    report = engine.run(request(tmp_path, "needy", output=tmp_path / "run"))
    assert [(run.name, run.status) for run in report.methods] == [
        ("fake", "ok"),
        ("groups", "ok"),
        ("needy", "ok"),
        ("triggers", "ok"),
        ("silence", "ok"),
    ]
    assert report.verdict.status == "backdoored"
    assert report.verdict.target == 2
    assert report.repair is not None
    assert report.repair.rescan is not None
    assert report.repair.exported == "repaired.fake"
    stored = json.loads((tmp_path / "run" / "report.json").read_text())
    assert stored == json.loads(json.dumps(report.to_json()))
    for trigger in stored["triggers"]:
        assert (tmp_path / "run" / trigger["files"]["picture"]).exists()
        assert (tmp_path / "run" / trigger["files"]["arrays"]).exists()


@pytest.mark.parametrize(
    ("name", "note"), [("repaired.onnx", "written as repaired.onnx: why"), (None, "not written to a file: why")]
)
def test_a_repair_says_why_it_is_not_in_the_models_own_format(house, tmp_path, monkeypatch, name, note):
    path = tmp_path / "run" / name if name else None
    monkeypatch.setattr(engine.exporting, "export", lambda *arguments: (path, "why"))
    report = engine.run(request(tmp_path, "needy", output=tmp_path / "run"))
    assert report.repair is not None
    assert report.repair.exported == name
    assert note in report.repair.notes


def test_the_trigger_that_convicts_is_marked_and_stands_first(house, tmp_path):
    report = engine.run(request(tmp_path, "suspects"))
    assert [t.convicts for t in report.triggers] == [True] + [False] * 7
    assert report.triggers[0].target == 2


def test_a_network_that_errs_on_its_benign_images_does_not_pass(house, tmp_path):
    folder = tmp_path / "several"
    folder.mkdir()
    several = fakes.images_file(folder, per_class=2)  # random images, right by accident
    report = engine.run(request(tmp_path, "suspects", data=several, settings={"triggers": {"size": 29}}))
    assert report.verdict.status == "inconclusive"
    assert report.data["accuracy"] < 0.5
    assert report.data["accuracy_images"] == 2 * fakes.CLASSES


def test_a_network_without_an_unusual_trigger_is_clean_and_is_not_repaired(house, tmp_path):
    report = engine.run(request(tmp_path, "suspects", settings={"triggers": {"size": 29}}))
    assert report.verdict.status == "clean"
    assert report.repairs == ()
    assert engine.exit_code(report) == 0
    mitigation = next(run for run in report.methods if run.stage == "mitigation")
    assert (mitigation.status, mitigation.reason) == ("skipped", "needs a trigger that convicts")


@pytest.mark.parametrize(
    ("settings", "status", "code"),
    [
        ({}, "backdoored", 1),
        ({"triggers": {"size": 29}}, "clean", 0),
        ({"suspects": {"fails": "raise"}}, "inconclusive", 5),
        ({"triggers": {"fails": "raise"}}, "inconclusive", 5),
        ({"suspects": {"fails": "nonsense"}}, "inconclusive", 5),
        ({"triggers": {"fails": "time"}}, "inconclusive", 5),
    ],
)
def test_a_failing_method_never_reads_as_clean(house, tmp_path, settings, status, code):
    report = engine.run(request(tmp_path, "suspects", settings=settings))
    assert report.verdict.status == status
    assert engine.exit_code(report) == code


def test_a_failing_method_ends_with_one_line_and_the_others_go_on(house, tmp_path):
    report = engine.run(request(tmp_path, "suspects", "needy", settings={"suspects": {"fails": "raise"}}))
    runs = {run.name: run for run in report.methods}
    assert (runs["suspects"].status, runs["suspects"].reason) == ("failed", "ValueError: no such neuron")
    assert runs["needy"].status == "ok"
    assert report.verdict.status == "backdoored"  # another method found one


def test_evidence_above_its_threshold_without_a_trigger_is_inconclusive(house, tmp_path):
    settings = {"triggers": {"size": 29}, "scores": {"score": 2.0}}
    report = engine.run(request(tmp_path, "suspects", "scores", settings=settings))
    assert report.verdict.status == "inconclusive"
    assert any("scores" in reason for reason in report.verdict.reasons)


def test_when_every_detecting_method_is_skipped_nothing_was_applicable(house, tmp_path):
    report = engine.run(request(tmp_path, "triggers", only=True))
    assert [run.status for run in report.methods if run.stage == "inversion"] == ["skipped"]
    assert engine.exit_code(report) == 3


def test_only_leaves_out_the_stages_nobody_named(house, tmp_path):
    report = engine.run(request(tmp_path, "suspects", only=True))
    assert [run.stage for run in report.methods] == ["loader", "stimulation"]
    assert report.verdict.status == "inconclusive"


def test_the_same_seed_gives_the_same_report(house, tmp_path):
    first, second = (engine.run(request(tmp_path, "needy", seed=3)).to_json() for _ in range(2))
    assert without_measurements(first) == without_measurements(second)


def test_the_model_handed_in_is_never_changed(house, tmp_path):
    kept = []

    class Spy:
        @hookimpl
        def stage_finished(self, stage, results):
            if stage == "mitigation":
                kept.extend(results)

    engine.run(request(tmp_path, "suspects"), listeners=[Spy()])
    fresh = fakes.tiny_network()
    assert len(kept) == 1
    for mine, original in zip(
        kept[0].network.module.state_dict().values(), fresh.module.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, original)


def test_what_listens_hears_every_stage_and_the_end(house, tmp_path):
    heard = []

    class Ear:
        @hookimpl
        def run_started(self, folder):
            heard.append(("started", folder))

        @hookimpl
        def stage_finished(self, stage, runs):
            heard.append((stage, [run.name for run in runs]))

        @hookimpl
        def run_finished(self, report):
            heard.append(("finished", report.verdict.status))

    engine.run(request(tmp_path, "suspects"), listeners=[Ear()])
    assert heard == [
        ("started", None),
        ("stimulation", ["suspects"]),
        ("inversion", ["triggers"]),
        ("judging", []),
        ("mitigation", ["silence"]),
        ("finished", "backdoored"),
    ]


@pytest.mark.parametrize("where", ["suspects", "triggers"])
def test_an_interrupted_run_leaves_a_partial_report(house, tmp_path, where):
    with pytest.raises(KeyboardInterrupt):
        engine.run(request(tmp_path, "suspects", settings={where: {"fails": "interrupt"}}, output=tmp_path / "run"))
    stored = json.loads((tmp_path / "run" / "report.json").read_text())
    assert stored["complete"] is False
    assert stored["verdict"]["status"] == "inconclusive"
    assert len(stored["candidates"]) == (0 if where == "suspects" else 1)


def test_a_run_that_is_refused_leaves_no_folder(house, tmp_path):
    (tmp_path / "model.fake").write_text("hostile")
    with pytest.raises(Refused):
        engine.run(engine.Request(tmp_path / "model.fake", fakes.images_file(tmp_path), output=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_an_output_that_cannot_be_written_is_told_before_any_work(house, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        engine.run(request(tmp_path, output=tmp_path / "file" / "run"))


def test_a_folder_that_holds_something_else_is_left_alone(house, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="something else"):
        engine.run(request(tmp_path, output=tmp_path / "mine"))


def test_a_second_run_in_one_folder_replaces_the_first(house, tmp_path):
    output = tmp_path / "run"
    engine.run(request(tmp_path, "suspects", output=output))
    engine.run(request(tmp_path, "suspects", settings={"suspects": {"fails": "raise"}}, output=output))
    assert sorted(path.name for path in output.iterdir()) == ["report.json"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "nowhere.fake"}, UsageError, "there is no model file nowhere.fake"),
        ({"methods": ("suspect",)}, UsageError, "did you mean 'suspects'"),
        (
            {"settings": {"suspects": {"taget": 1}}},
            UsageError,
            "suspects has no setting 'taget'; did you mean 'target'",
        ),
        ({"settings": {"suspects": {"target": "two"}}}, UsageError, "suspects.target takes a whole number, not 'two'"),
        ({"settings": {"suspect": {}}}, UsageError, "there is no plugin 'suspect'"),
        ({"settings": {"needy": {"target": 1}}}, UsageError, "needy has settings but no part in this run"),
        ({"reports": ("pdf",)}, UsageError, "there is no plugin 'pdf'"),
        ({"device": "toaster"}, UsageError, "toaster"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(house, tmp_path, options, error, message):
    from pathlib import Path

    options = {"methods": ("suspects",), "output": tmp_path / "run", **options}
    if "model" in options:
        options["model"] = Path(options["model"])
    methods = options.pop("methods")
    with pytest.raises(error) as caught:
        engine.run(request(tmp_path, *methods, **options))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_repaired_network_that_cannot_be_measured_does_not_lose_the_verdict(tmp_path):
    from dataclasses import dataclass

    from agnes.method import Method
    from agnes.results import Repair

    @dataclass(frozen=True)
    class Careless(Method):
        """Returns a repair without a network."""

        def suits(self, network):
            return "always"

        @hookimpl
        def mitigate(self):
            return Repair(None, ())  # type: ignore[arg-type]

    plugins = [p for p in fakes.whole_house() if p.stage != "mitigation"]
    with fakes.installed(*plugins, fakes.plugin("careless", "mitigation", Careless)):
        report = engine.run(request(tmp_path, "suspects"))
    assert report.verdict.status == "backdoored"
    assert "could not be measured" in report.repairs[0].notes[-1]


def test_importing_agnes_does_not_import_torch():
    code = "import sys, agnes, agnes.hookspecs, agnes.method; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_scan_is_the_run_in_one_call(house, tmp_path):
    import agnes

    report = agnes.scan(
        fakes.model_file(tmp_path), data=fakes.images_file(tmp_path), methods=[fakes.FakeStimulation(target=2)]
    )
    assert report.verdict.status == "backdoored"
    stimulation = next(run for run in report.methods if run.stage == "stimulation")
    assert (stimulation.name, stimulation.distribution) == ("suspects", "agnes-fake")


def test_nothing_named_and_nothing_else_wanted_is_a_mistake(house, tmp_path):
    with pytest.raises(UsageError, match="no method is named; add --plugin NAME"):
        engine.run(request(tmp_path, only=True))


def test_a_listener_that_fails_is_noted_and_does_not_end_the_run(house, tmp_path):
    class Clumsy:
        @hookimpl
        def stage_finished(self, stage):
            raise ValueError(stage)

    report = engine.run(request(tmp_path, "suspects", output=tmp_path / "run"), listeners=[Clumsy()])
    assert report.verdict.status == "backdoored"
    stored = json.loads((tmp_path / "run" / "report.json").read_text())
    assert "a listener failed at stage_finished: ValueError: inversion" in stored["environment"]["broken_plugins"]


def test_a_repair_that_was_never_measured_comes_last():
    from agnes.results import Repair, TriggerOutcome, Verdict

    measured = Repair(None, (), rescan=Verdict("backdoored", 1.0), outcomes=(TriggerOutcome(0, 1.0, 0.9, 9),))  # type: ignore[arg-type]
    assert sorted([Repair(None, ()), measured], key=lambda repair: mending._merit(repair, 0.02))[0] is measured  # type: ignore[arg-type]
