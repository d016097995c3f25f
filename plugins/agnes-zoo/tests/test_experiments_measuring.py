"""What is counted of a search and of a repair, against cases known by hand."""

import time
from types import SimpleNamespace

import pytest
import torch
from agnes_zoo.attacks import find
from agnes_zoo.experiments import inside, measuring, repairing, searching
from agnes_zoo.experiments.searching import Found
from agnes_zoo.experiments.subject import TrueTrigger
from agnes_zoo.writing import export_onnx
from torch import nn

from agnes.backend import Backend
from agnes.errors import AgnesError
from agnes.network import Network
from agnes.results import MaskTrigger, Representatives
from agnes.samples import Samples

BACKEND = Backend.choose("cpu")
CLASSES, SIDE = 5, 8


def first_pixels():
    """A network whose classes are the first five pixels of the upper row, each a hundred times over."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES, bias=False))
    with torch.no_grad():
        module[1].weight.zero_()
        for number in range(CLASSES):
            module[1].weight[number, number] = 100.0
    return Network.of(module, (3, SIDE, SIDE))


def images_of(*labels):
    """Images that the network takes for these classes."""
    images = torch.full((len(labels), 3, SIDE, SIDE), 0.2)
    for row, label in enumerate(labels):
        images[row, 0, 0, label] = 0.6
    return Samples(images, torch.tensor(labels))


def trigger(target, value=1.0, asr=1.0, **other):
    """One red pixel in the place that stands for a class."""
    mask, pattern = torch.zeros(1, SIDE, SIDE), torch.zeros(3, SIDE, SIDE)
    mask[0, 0, target], pattern[0, 0, target] = 1.0, value
    return MaskTrigger(target=target, asr=asr, held_out=4, mask=mask, pattern=pattern, **other)


@pytest.fixture
def subject():
    held_out, network = images_of(*range(CLASSES), *range(CLASSES)), first_pixels()
    true = SimpleNamespace(apply=trigger(2).apply)
    return SimpleNamespace(
        clock=time.process_time,
        network=network,
        held_out=held_out,
        backend=BACKEND,
        target=2,
        true_trigger=true,
        found={},
        success=lambda network, each: each.asr,
        accuracy=lambda network: 0.9,
        true_success=lambda network: 1.0,
        attack=None,
    )


def test_a_trigger_that_works_misleads_every_other_class(subject):
    assert searching.misled_classes(subject, subject.network, trigger(2)) == 1.0
    assert searching.misled_classes(subject, subject.network, trigger(2, value=0.5)) == 0.0


def test_what_is_counted_of_a_search(subject):
    works, fails = trigger(2, layer="a", channel=1), trigger(3, value=0.3, asr=0.1, layer="a", channel=2)
    twin = trigger(2, asr=0.9, layer="a", channel=1)
    found = Found(None, (), (works, fails, twin), {"stimulation": 2.0, "inversion": 3.0, "abstraction": 5.0})
    counts = searching.counted(subject, subject.network, found, 0.8)
    assert (counts["reasr"], counts["asr"], counts["reached"]) == (1.0, 1.0, 1.0)
    assert (counts["neurons"], counts["neurons_asr"], counts["backdoors"]) == (1.0, 1.0, 2.0)
    assert (counts["seconds"], counts["seconds_searching"], counts["merged"]) == (10.0, 5.0, None)
    assert counts["mse"] == pytest.approx(0.0)
    assert counts["iou"] == 1.0


def test_a_search_that_finds_nothing_counts_nothing(subject):
    counts = searching.counted(subject, subject.network, Found(None, (), (), {}), 0.8)
    assert (counts["reasr"], counts["neurons"], counts["backdoors"], counts["mse"]) == (0.0, 0.0, 0.0, None)


def test_the_error_of_another_trigger_is_the_mean_square_of_what_they_change(subject):
    images = subject.held_out.images
    change = (trigger(2).apply(images) - images).mean(0), (trigger(4, value=0.7).apply(images) - images).mean(0)
    slow = sum(
        float((change[0][c, y, x] - change[1][c, y, x]) ** 2)
        for c in range(3)
        for y in range(SIDE)
        for x in range(SIDE)
    )
    found = searching.similarity(subject, [trigger(4, value=0.7)])
    assert found["mse"] == pytest.approx(slow / SIDE**2, rel=1e-5)
    assert found["iou"] == 0.0


def test_one_small_trigger_among_large_ones_is_flagged():
    def sized(target, pixels):
        mask = torch.zeros(1, 10, 10)
        mask.view(-1)[:pixels] = 1.0
        return MaskTrigger(target=target, asr=1.0, held_out=1, mask=mask, pattern=torch.zeros(3, 10, 10))

    large = [sized(number, 60 + number) for number in range(8)]
    assert searching.flagged_classes([*large, sized(9, 4)]) == [9]
    assert searching.flagged_classes(large) == []
    assert searching.flagged_classes([*large, sized(9, 100)]) == []


def test_of_a_scan_of_all_classes_the_flagged_ones_count():
    first, scanned = trigger(0), [trigger(number, purpose="scan") for number in range(3)]
    assert searching.pointed_out(scanned, [1]) == [scanned[1]]
    assert searching.pointed_out([first, *scanned], []) == [first]


def test_what_was_merged_is_what_no_representative_is():
    kept = torch.tensor([True, False, False, False])
    assert searching.merged(Representatives({}, {"a": kept, "b": torch.ones(4, dtype=torch.bool)})) == 3 / 8


def test_triggers_close_to_the_best_are_compromised():
    triggers = tuple(trigger(2, asr=asr) for asr in (1.0, 0.96, 0.9))
    assert searching.compromised(Found(None, (), triggers, {})) == list(triggers[:2])


def test_a_valid_trigger_succeeds_and_is_small(subject):
    found = Found(None, (), (trigger(1), trigger(2, asr=0.5)), {})
    assert repairing.valid_triggers(subject, found, {"asr": 0.8}) == [found.triggers[0]]
    assert repairing.valid_triggers(subject, found, {"asr": 0.8, "size": 0.01}) == []
    assert repairing.valid_triggers(subject, found, {"asr": 0.8, "size": 0.25}) == [found.triggers[0]]


def test_a_network_in_which_nothing_was_found_stays_as_it_is(subject):
    nothing = Found(None, (), (), {})
    for name in ("retrain", "tac-prune", "unlearn", "weight-prune"):
        assert repairing.mended(subject, subject.network, nothing, [], name, {}) is subject.network


def test_a_defence_succeeds_that_keeps_accuracy_and_ends_the_trigger(subject):
    after = {"network": (0.8, 0.1)}
    subject.accuracy = lambda network: 0.9 if network is subject.network else after["network"][0]
    subject.true_success = lambda network: 1.0 if network is subject.network else after["network"][1]
    found, other = Found(None, (), (trigger(2),), {"inversion": 4.0}), first_pixels()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repairing, "mended", lambda *given: other)
        for network, successful in (((0.8, 0.1), 1.0), ((0.6, 0.1), 0.0), ((0.8, 0.3), 0.0)):
            after["network"] = network
            values = repairing.repaired(subject, found, "clp", {}, {}, "", None, 0.8)
            assert values["successful"] == successful
            assert values["asr_lost"] == pytest.approx(1.0 - network[1])
            assert (values["seconds_search"], values["triggers"]) == (4.0, 1.0)


def test_the_confusion_of_a_trigger_lies_in_its_target(subject):
    values, arrays = inside.confusion(subject, Found(None, (), (trigger(2),), {}), 0.8, 15)
    assert values == {"masks": 1.0, "wrong": 0.8, "in_top": 1.0, "classes": 1.0}
    assert arrays["matrix"][:, 2].tolist() == [2] * CLASSES
    assert arrays["matrix"].sum() == 10


def test_the_channels_of_the_figure_are_judged_as_candidates_are_chosen():
    """Before the activation: after it, a channel that is always below zero would have no variance, here the third."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * SIDE * SIDE, CLASSES)
    ).eval()
    with torch.no_grad():
        module[1].weight[5], module[1].bias[5] = 1e-3, 1.0
        module[1].weight[2], module[1].bias[2] = 1.0, -9.0
    network, samples = Network.of(module, (3, SIDE, SIDE)), Samples(torch.rand(12, 3, SIDE, SIDE))
    case = SimpleNamespace(network=network, samples=samples, backend=BACKEND, true_trigger=trigger(2))
    values, arrays = inside.channels(case)

    with torch.no_grad():
        before, after = module[:2](samples.images), module[:2](trigger(2).apply(samples.images))
    variance = before.flatten(2).norm(dim=2).var(0)
    change = (after - before).flatten(2).norm(dim=2).mean(0)
    slow = torch.stack([(v - v.mean()) / v.std(correction=0) for v in (change, variance)], 1)
    torch.testing.assert_close(torch.from_numpy(arrays["points"]), slow, rtol=1e-3, atol=1e-3)
    assert values["candidates"] == values["low_variance"]
    assert values["largest_tac"] == pytest.approx(float(slow[:, 0].max()), rel=1e-3)


def test_a_first_layer_twice_as_strong_is_excited_twice_as_much_by_either_noise(tmp_path):
    torch.manual_seed(0)
    filters, strong = nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(3, 4, 3, bias=False)
    with torch.no_grad():
        strong.weight.copy_(2 * filters.weight)
    rest = (nn.ReLU(), nn.Flatten(), nn.Linear(4 * (SIDE - 2) ** 2, CLASSES))
    export_onnx(nn.Sequential(filters, *rest).eval(), tmp_path / "clean.onnx", (3, SIDE, SIDE))
    network = Network.of(nn.Sequential(strong, *rest).eval(), (3, SIDE, SIDE))
    case = SimpleNamespace(network=network, samples=images_of(0), backend=BACKEND)
    values = inside.overactivation(case, SimpleNamespace(file=tmp_path / "clean.onnx"))

    with torch.no_grad():
        slow = strong(BACKEND.normal(200, 3, SIDE, SIDE)).relu().amax((1, 2, 3))
    assert values["normal_mean_backdoor"] == pytest.approx(float(slow.mean()), rel=1e-5)
    ratios = [values[name] for name in ("max_ratio", "mean_ratio", "normal_mean_ratio")]
    assert ratios == pytest.approx([2, 2, 2], rel=1e-5)
    assert values["larger"] == values["normal_larger"] == 200


def test_the_true_trigger_is_the_attacks():
    attack = find("offset-patch")()
    true = TrueTrigger(target=14, asr=1.0, held_out=1, attack=attack)
    images = torch.full((2, 3, 32, 32), 0.5)
    assert torch.equal(true.apply(images), attack.stamp(images))
    assert true.pixels == 16


def test_a_search_is_made_once_for_all_that_ask(subject, monkeypatch):
    calls = []
    monkeypatch.setattr(measuring, "search", lambda *given: calls.append(given) or Found(None, (), (), {}))
    subject.samples = subject.held_out
    measuring.searched(subject, "abs", {})
    measuring.searched(subject, "abs", {})
    measuring.searched(subject, "abs", {"abs": {"samples": 4}})
    assert len(calls) == 2


def test_a_repair_by_the_truth_needs_one(subject):
    subject.true_trigger = None
    with pytest.raises(AgnesError, match="no trigger"):
        repairing.truth_of(subject)
