"""What a repair is measured on, what it is handed, and what its certificate says."""

from dataclasses import dataclass, replace

import fakes
import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import agnes
from agnes import certifying, cli, dealing, engine, mending, results
from agnes.detecting import Findings
from agnes.registry import Registry
from agnes.reports import certificate, terminal
from agnes.reports.json import as_json
from agnes.results import Change, Repair, Verdict
from agnes.selection import select
from agnes.stages import Stages
from agnes.testing import plant, tiny_backend

SEEN = []
BACKDOORED = Verdict("backdoored", 0.9)


@dataclass(frozen=True)
class Curious(fakes.FakeMitigation):
    """Keeps what it is given, and silences a channel."""

    rescans: int = 0  # how often it asks for a re-scan

    @agnes.hookimpl
    def mitigate(self, network, samples, triggers, rescan):
        copy = network.copy()
        with torch.no_grad():
            copy.module.get_parameter(copy.layers[0].weight)[0] = 0
        SEEN.append((samples, rescan, [rescan(copy) for _ in range(self.rescans)]))
        return Repair(copy, (Change(network.layers[0].name, 0, "silenced"),))


def house(*mitigation):
    kept = [plugin for plugin in fakes.whole_house() if plugin.stage != "mitigation"]
    return [*kept, *(mitigation or [fakes.plugin("curious", "mitigation", Curious)])]


def labelled_file(folder, name, count, seed=9, labels=True):
    images = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    np.savez(folder / name, images=images, **({"labels": np.arange(count) % fakes.CLASSES} if labels else {}))
    return folder / name


def run(tmp_path, *methods, labels=True, **options):
    SEEN.clear()
    wanted = engine.Request(
        fakes.model_file(tmp_path),
        fakes.images_file(tmp_path, labels=labels),
        methods=methods or ("needy",),
        output=tmp_path / "run",
        **options,
    )
    with fakes.installed(*house()):
        return engine.run(wanted)


def told(report):
    stream = Console(record=True, width=160, markup=False, highlight=False)
    with stream.capture() as captured:
        terminal.summary(report, None, stream)
    return captured.get()


def test_the_certificate_counts_what_the_repair_did(tmp_path):
    report = run(tmp_path, test_data=labelled_file(tmp_path, "test.npz", 80))
    repair = report.repair
    silenced = fakes.tiny_network().module.get_parameter(report.repair.network.layers[0].weight)[0].numel()
    assert repair.measured_on == "test data"
    assert repair.accuracy_images == sum(count for *_, count in repair.confusion_before) == report.data["test_images"]
    right = sum(count for true, seen, count in repair.confusion_after if true == seen)
    assert repair.accuracy_after == pytest.approx(right / repair.accuracy_images)
    assert (repair.weights_changed, repair.weights) == (silenced, fakes.tiny_network().parameter_count)
    assert repair.agreement == pytest.approx(
        certifying.agreement(fakes.tiny_network(), repair.network, SEEN[0][0], tiny_backend())
    )
    stored = as_json(report)["repair"]
    low, high = stored["accuracy_after_interval"]
    assert low <= repair.accuracy_after <= high
    assert [o["method"] for o in stored["outcomes"]] == ["triggers"]
    assert stored["relearning"]["target"] == 2
    assert stored["rescan"]["status"] in ("clean", "backdoored", "inconclusive")


def test_without_labels_the_accuracy_is_not_known_and_nobody_pretends(tmp_path):
    report = run(tmp_path, labels=False)
    stored = as_json(report)["repair"]
    for part in ("accuracy_before", "accuracy_after", "accuracy_before_interval", "measured_on"):
        assert stored[part] is None
    assert stored["confusion_before"] == stored["confusion_after"] == []
    assert "accuracy is not known" in told(report)
    assert "are called as before" in told(report)


def test_a_repair_that_changes_the_answers_does_not_hold_though_accuracy_is_not_known():
    clean = Repair(fakes.tiny_network(), (), rescan=Verdict("clean", 0.1), agreement=0.6)
    assert not mending._holds(clean, 0.02)
    assert mending._holds(replace(clean, agreement=0.99), 0.02)


def test_of_repairs_without_a_backdoor_one_that_keeps_accuracy_comes_before_one_with_a_clean_re_scan():
    def repair(name, lost, status, left=0.0, targets=()):
        outcome = results.TriggerOutcome(0, 1.0, left, 100, "m")
        rescan = Verdict(status, None, reasons=(), targets=targets)
        return Repair(plant().network, (), (), name, 0.9, 0.9 - lost, 100, (outcome,), rescan=rescan)

    wanted = [
        repair("whole", 0.01, "clean"),
        repair("kept, in doubt", 0.01, "inconclusive"),
        repair("kept, another class stands out", 0.01, "backdoored", targets=(5,)),
        repair("success next to none", 0.09, "clean", left=0.05),
        repair("lossy", 0.1, "clean"),
        repair("lossy, in doubt", 0.1, "inconclusive"),
        repair("still works", 0.0, "clean", left=0.6),
        repair("still there", 0.0, "backdoored", targets=(5, 0)),
        repair("somewhere", 0.01, "backdoored"),
        repair("still works, another class stands out", 0.0, "backdoored", left=1.0, targets=(0, 5)),
        replace(repair("not measured", 0.0, "clean"), rescan=None),
    ]
    wanted.reverse()
    found = sorted(wanted, key=lambda repair: mending._merit(repair, 0.02))
    assert [repair.method for repair in found] == [repair.method for repair in reversed(wanted)]


def test_the_terminal_says_on_what_accuracy_was_measured_and_how_sure_it_is(tmp_path):
    assert "on 8 images, which the repair has seen too" in told(run(tmp_path))
    text = told(run(tmp_path, test_data=labelled_file(tmp_path, "test.npz", 80)))
    assert "on 40 images\n" in text
    assert "8 images, " in text
    assert " of 40 test images right" in text
    assert "relearning: 2 class 2 takes" in text
    assert "weights differ" in text


def test_the_terminal_names_the_classes_that_lost_most():
    before, after = ((0, 0, 5), (1, 1, 4), (2, 2, 3)), ((0, 0, 5), (1, 0, 3), (1, 1, 1), (2, 1, 1), (2, 2, 2))
    repair = Repair(fakes.tiny_network(), (), confusion_before=before, confusion_after=after)
    report = results.Report({"class_names": ["a", "b", "c"]}, {}, Verdict("clean", 0.0))
    assert certificate._lost(report, repair) == [
        "most lost: 1 b 4 of 4 right before, 1 after; 2 c 3 of 3 right before, 2 after"
    ]


def test_methods_of_mitigation_never_see_the_test_data_among_what_they_learn_from(tmp_path):
    test, repair = labelled_file(tmp_path, "test.npz", 80, 9), labelled_file(tmp_path, "repair.npz", 24, 10)
    report = run(tmp_path, test_data=test, repair_data=repair)
    samples = SEEN[0][0]
    assert len(samples) == report.data["repair_images"] == 24
    assert len(samples.test) == report.data["test_images"] == 80
    report = run(tmp_path, test_data=test)
    samples = SEEN[0][0]
    assert (len(samples), len(samples.test)) == (8 + 40, 40)
    assert report.data["repair_images"] == 48


def test_the_verdict_does_not_hang_on_test_data(tmp_path):
    plain, tested = run(tmp_path), run(tmp_path, test_data=labelled_file(tmp_path, "test.npz", 80))
    assert plain.verdict == tested.verdict
    assert [t.asr for t in plain.triggers] == [t.asr for t in tested.triggers]
    assert (plain.data["accuracy_images"], tested.data["accuracy_images"]) == (8, 40)


def test_a_repair_uses_the_test_data_of_the_run_again(tmp_path):
    first = run(tmp_path, test_data=labelled_file(tmp_path, "test.npz", 80))
    with fakes.installed(*house()):
        again = agnes.repair(tmp_path / "model.fake", tmp_path / "run")
    assert again.repair.accuracy_images == 40
    assert again.repair.confusion_after == first.repair.confusion_after


# Asking for a repair ------------------------------------------------------------------------------------------------


def test_only_leaves_the_repair_out_unless_it_is_asked_for(tmp_path):
    only = ("needy", "triggers", "groups")
    assert run(tmp_path, *only, only=True).repairs == ()
    report = run(tmp_path, *only, only=True, repair=True)
    assert [repair.method for repair in report.repairs] == ["curious"]
    assert not any(run.stage == "diagnosis" for run in report.methods)


def test_a_named_method_of_mitigation_stays_the_only_one(tmp_path):
    named = fakes.plugin("named", "mitigation", fakes.FakeMitigation)
    with fakes.installed(*house(named, fakes.plugin("curious", "mitigation", Curious))):
        registry = Registry.discover()
        wanted = engine.Request(tmp_path / "m", methods=("needy", "triggers", "named"), only=True, repair=True)
        chosen = engine._chosen(wanted, registry, fakes.tiny_network(), {})
    assert [method.name for method in chosen.of("mitigation")] == ["named"]


def test_the_command_takes_the_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fakes.model_file(tmp_path)
    options = ["--data", str(fakes.images_file(tmp_path)), "--test-data", str(labelled_file(tmp_path, "t.npz", 80))]
    options += ["--repair-data", str(labelled_file(tmp_path, "r.npz", 24, 10)), "--only", "--repair", "-q"]
    SEEN.clear()
    with fakes.installed(*house()):
        named = ["--plugin", "needy", "--plugin", "triggers", "--plugin", "groups"]
        result = CliRunner().invoke(cli.app, ["run", "model.fake", *named, *options])
        assert result.exit_code == 1, result.output
        assert len(SEEN[0][0]) == 24
        result = CliRunner().invoke(cli.app, ["repair", "model.fake", "--from", "runs/model", "-q", *options[2:6]])
    assert "on 80 images" in result.output


# Re-scans -----------------------------------------------------------------------------------------------------------


def test_a_method_may_scan_again_and_no_network_is_scanned_twice(tmp_path, monkeypatch):
    scanned = []
    detect = mending.detect
    monkeypatch.setattr(mending, "detect", lambda stages, network: scanned.append(network) or detect(stages, network))
    SEEN.clear()
    report = run(tmp_path, settings={"curious": {"rescans": 2}})
    found = SEEN[0][2]
    assert isinstance(found[0], Findings)
    assert found[0] is found[1]
    assert len(scanned) == 1  # the engine's own re-scan is the method's
    assert report.repair.rescan is not None
    assert found[0].verdict.probability == report.repair.rescan.probability


def rescans_of(network, taken, time_budget=None):
    with fakes.installed(*house()):
        chosen = select(Registry.discover(), network)
    samples = plant().samples
    stages = Stages(chosen, tiny_backend(time_budget=time_budget), None, samples)
    stages.timings["inversion"] = taken
    return mending._Bench(stages, network, (), dealing.Dealt(samples, samples, samples), BACKDOORED).rescans


def test_re_scans_are_offered_only_where_there_is_time_for_them():
    network = plant().network
    assert rescans_of(network, 1e6).affordable
    assert rescans_of(network, 1.0, time_budget=100.0).affordable
    assert not rescans_of(network, 50.0, time_budget=100.0).affordable


def test_a_re_scan_ends_with_the_time_of_the_method_that_asked_for_it(tmp_path, monkeypatch):
    deadlines = []
    detect = mending.detect

    def watched(stages, network):
        deadlines.append(stages.backend.deadline)
        return detect(stages, network)

    monkeypatch.setattr(mending, "detect", watched)
    monkeypatch.setattr(mending._Rescans, "affordable", True)
    monkeypatch.setattr(mending, "_digest", lambda network: object())  # nothing is remembered
    run(tmp_path, settings={"curious": {"rescans": 1}}, time_budget=1000.0)
    of_method, of_run = deadlines
    assert of_method < of_run - 100


def test_a_repair_is_measured_though_the_time_is_spent():
    planted = plant()
    bench = rescans_of(planted.network, 0.0, time_budget=1e-6).stages
    bench = mending._Bench(
        bench, planted.network, (planted.trigger,), dealing.deal(planted.samples, None, None, 6, None), BACKDOORED
    )
    found = bench.measured(Repair(planted.network.copy(), ()))
    assert found.accuracy_before == found.accuracy_after == 1.0
    assert [o.after for o in found.outcomes] == [1.0]
    assert found.rescan.status == "backdoored"  # by the known trigger, whatever the re-scan came to


def test_a_re_scan_that_failed_is_not_remembered(monkeypatch):
    network = plant().network
    rescans = rescans_of(network, 0.0)
    calls = []

    def fails(stages, network):
        calls.append(network)
        stages.runs.append(stages.selection.methods[0].run("failed", "out of time"))
        return Findings()

    monkeypatch.setattr(mending, "detect", fails)
    rescans(network)
    rescans(network)
    assert len(calls) == 2
