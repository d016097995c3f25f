"""Which repairs are tried, and which comes first."""

import fakes

from agnes import engine, mending
from agnes.results import Verdict


def scan_with(menders, tmp_path, monkeypatch, rescans, *methods, **options):
    """A run of a backdoored network whose re-scans end as told, in this order; how each mender went."""
    verdicts = iter(rescans)
    monkeypatch.setattr(mending.judging, "after_repair", lambda *a: Verdict(next(verdicts), 0.5))
    house = [plugin for plugin in fakes.whole_house() if plugin.stage != "mitigation"]
    with fakes.installed(*house, *menders):
        report = engine.run(fakes.request(tmp_path, *methods, **options))
    assert report.verdict.status == "backdoored"
    return report, [(run.name, run.status, run.reason) for run in report.methods if run.stage == "mitigation"]


MENDERS = [fakes.mender("first", 9), fakes.mender("second", 7), fakes.mender("third", 5), fakes.mender("fourth", 1)]


def test_where_the_first_repair_holds_no_other_is_tried(tmp_path, monkeypatch):
    report, went = scan_with(MENDERS, tmp_path, monkeypatch, ["clean"], "needy")
    because = "not needed: first has repaired the network"
    assert went == [("first", "ok", ""), ("second", "skipped", because), ("third", "skipped", because)]
    assert [repair.method for repair in report.repairs] == ["first"]


def test_the_next_is_tried_while_a_trigger_is_left(tmp_path, monkeypatch):
    report, went = scan_with(MENDERS, tmp_path, monkeypatch, ["backdoored", "clean"], "needy")
    assert [status for _, status, _ in went] == ["ok", "ok", "skipped"]
    assert [repair.method for repair in report.repairs] == ["second", "first"]


def test_the_next_is_tried_where_accuracy_fell_too_far(tmp_path, monkeypatch):
    menders = [fakes.mender("first", 9, accuracy=0.1), *MENDERS[1:]]
    report, went = scan_with(menders, tmp_path, monkeypatch, ["clean", "clean"], "needy")
    assert [status for _, status, _ in went] == ["ok", "ok", "skipped"]
    assert [repair.method for repair in report.repairs] == ["second", "first"]
    menders = [fakes.mender("first", 9, accuracy=0.1), *MENDERS[1:]]
    report, went = scan_with(menders, tmp_path, monkeypatch, ["clean"], "needy", max_accuracy_drop=1.0)
    assert [repair.method for repair in report.repairs] == ["first"]


def test_three_are_tried_at_most_and_the_best_comes_first(tmp_path, monkeypatch):
    report, went = scan_with(MENDERS, tmp_path, monkeypatch, ["backdoored", "backdoored", "inconclusive"], "needy")
    assert [name for name, _, _ in went] == ["first", "second", "third"]
    assert len(report.repairs) == 3


def test_all_that_are_named_run_whatever_the_first_does(tmp_path, monkeypatch):
    _, went = scan_with(MENDERS, tmp_path, monkeypatch, ["clean", "clean"], "needy", "fourth", "second")
    assert {name for name, status, _ in went if status == "ok"} == {"second", "fourth"}
    assert len(went) == 2
