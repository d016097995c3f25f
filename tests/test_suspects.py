"""What a repair learns from: triggers that convict, others beside them, and suspects where nothing convicts."""

from dataclasses import dataclass, replace

import fakes
import torch

import agnes
from agnes import engine, mending
from agnes.detecting import Findings
from agnes.results import Change, MaskTrigger, Repair
from agnes.testing import tiny_network


def freely(name, preference, given):
    """A plugin that repairs without a trigger, and notes which triggers it was given."""

    @dataclass(frozen=True)
    class Freely(fakes.FakeMitigation):
        """Repairs whatever it is given."""

        needs = frozenset()

        @agnes.hookimpl
        def mitigate(self, network, triggers):
            given.append(triggers)
            return Repair(network.copy(), (Change(network.layers[0].name, 0, "mended"),))

    Freely.preference = preference
    return fakes.plugin(name, "mitigation", Freely)


def house_with(*menders):
    return fakes.installed(*(p for p in fakes.whole_house() if p.stage != "mitigation"), *menders)


def acquitted(tmp_path):
    """The folder of a run that found nothing unusual."""
    settings = {"triggers": {"size": 29}}
    report = engine.run(fakes.request(tmp_path, "suspects", settings=settings, output=tmp_path / "run"))
    assert report.verdict.status == "clean"
    return report


def test_a_network_that_nothing_convicts_is_left_alone_by_the_engines_choice(tmp_path):
    given = []
    with house_with(freely("alone", 9, given)):
        report = acquitted(tmp_path)
    assert report.repairs == ()
    assert given == []
    assert [(m.status, m.reason) for m in report.methods if m.name == "alone"] == [
        ("skipped", "needs a trigger that convicts")
    ]


def test_who_asks_for_a_repair_all_the_same_gets_one_without_a_trigger_and_no_word_of_success(tmp_path):
    given = []
    with house_with(freely("alone", 5, given), freely("further", 3, given), fakes.mender("first", 9)):
        acquitted(tmp_path)
        report = engine.run(fakes.request(tmp_path, findings=tmp_path / "run"))
    assert [repair.method for repair in report.repairs] == ["alone"]
    assert report.repair.rescan.status == "inconclusive"
    assert "found no backdoor in the original" in report.repair.rescan.reasons[0]
    assert "not scanned again: the scan found no backdoor" in report.repair.notes[-1]
    went = {run.name: (run.status, run.reason.partition(":")[0]) for run in report.methods if run.stage == "mitigation"}
    assert went == {
        "first": ("skipped", "needs a trigger that convicts"),
        "alone": ("ok", ""),
        "further": ("skipped", "not needed"),
    }
    assert len(given) == 1


def covering(rows, asr=0.9, method="boxes", target=0, **said):
    """A trigger for the tiny network that covers some rows."""
    colours, height, width = tiny_network("plain").input_shape
    mask = torch.zeros(1, height, width)
    mask[:, :rows] = 1
    pattern = torch.zeros(colours, height, width)
    return MaskTrigger(target=target, asr=asr, held_out=5, mask=mask, pattern=pattern, method=method, **said)


def shown(*found):
    return mending._shown(tiny_network("plain"), Findings(triggers=tuple(found)))


def test_suspects_are_the_triggers_that_work_best_and_cover_no_more_than_a_quarter():
    quarter = tiny_network("plain").input_shape[1] // 4
    weak, half, large = covering(1, 0.4), covering(1, 0.5, target=1), covering(quarter, target=2)
    too_large, untested = covering(quarter + 1, 1.0, target=3), replace(covering(1, 1.0, target=4), held_out=0)
    random = replace(covering(1, 1.0, target=5), purpose="null", layer="conv", channel=0)
    assert shown(weak, half, large, too_large, untested, random) == [large, half]
    many = [covering(1, 0.5 + number / 20, target=number) for number in range(9)]
    assert shown(*many) == many[:3:-1]


def test_of_suspects_of_one_method_to_one_class_the_best_is_enough():
    best, lesser, others = covering(2, 0.9), covering(1, 0.8), covering(1, 0.7, method="patterns")
    of_one_class = replace(lesser, source=3)
    assert shown(lesser, others, best, of_one_class) == [best, of_one_class, others]


def test_a_repair_learns_from_smaller_triggers_of_other_methods_to_a_class_that_is_convicted():
    convicts = covering(2, 0.9, convicts=True)
    smaller, larger = covering(1, 0.6, method="patterns"), covering(3, 1.0, method="waves")
    same, elsewhere = covering(1, 0.8), covering(1, 1.0, method="patterns", target=1)
    weak = covering(1, 0.4, method="haze")
    assert shown(convicts, smaller, larger, same, elsewhere, weak) == [convicts, smaller]
