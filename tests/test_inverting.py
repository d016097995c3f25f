"""Without data: images made from the network, and what a verdict on them is worth."""

import math
from dataclasses import replace

import fakes
import pytest
import torch
from torch import nn

from agnes import engine
from agnes.backend import Backend
from agnes.dealing import deal
from agnes.errors import AgnesError
from agnes.inverting import inverted, lowered
from agnes.network import Network
from agnes.results import Verdict
from agnes.samples import Samples
from agnes.testing import plant


@pytest.fixture(scope="module")
def network():
    return plant().network


@pytest.fixture(scope="module")
def made(network):
    return inverted(network, Backend.choose("cpu"))


def test_there_is_an_image_of_each_class_that_the_network_takes_for_it(network, made):
    assert made.labels.tolist() == list(range(network.class_count))
    assert torch.equal(network(made.images).argmax(1), made.labels)
    assert made.inverted
    made.check_against(network.input_shape, network.class_count)


def test_the_same_seed_gives_the_same_images_and_another_seed_others(network, made):
    assert torch.equal(inverted(network, Backend.choose("cpu")).images, made.images)
    assert not torch.equal(inverted(network, Backend.choose("cpu", seed=1)).images, made.images)


def test_images_made_a_few_at_a_time_are_those_made_together(network, made):
    few = inverted(network, Backend.choose("cpu", memory=1))
    assert torch.allclose(few.images, made.images, atol=0.02)  # up to rounding, over 200 steps


def test_the_network_is_left_as_it_was(network):
    before = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    inverted(network, Backend.choose("cpu"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.module.state_dict().items())
    assert all(parameter.grad is None for parameter in network.module.parameters())


def test_logits_are_not_driven_up_once_the_network_is_sure():
    """Of a network whose confidence has no end: the images stop where it is 0.95 sure."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    with torch.no_grad():
        module[1].weight[0], module[1].weight[1] = 1.0, -1.0
        module[1].bias[:] = torch.tensor([-24.0, 24.0])
    network = Network.of(module.eval(), (3, 4, 4))
    logits = network(inverted(network, Backend.choose("cpu")).images)
    assert (logits.softmax(1).amax(1) > 0.9).all()
    assert logits.diff(dim=1).abs().max() < 12  # all bright and all dark: 48


def test_a_class_that_no_image_reaches_is_left_out_and_named():
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    with torch.no_grad():
        module[1].weight[2], module[1].bias[2] = 0.0, -1000.0
    network = Network.of(module.eval(), (3, 4, 4), class_names=("one", "two", "never"))
    samples = inverted(network, Backend.choose("cpu"))
    assert samples.labels.tolist() == [0, 1]
    assert samples.notes[-1] == "no image could be made for: never"


def test_a_network_of_one_answer_is_told_to_bring_images():
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    with torch.no_grad():
        module[1].weight[:], module[1].bias[0] = 0.0, 1.0
    with pytest.raises(AgnesError, match=r"takes 1 image made from it .*--data DIR"):
        inverted(Network.of(module.eval(), (3, 4, 4)), Backend.choose("cpu"))


@pytest.mark.parametrize(
    ("status", "probability", "becomes", "left"),
    [
        ("clean", 0.2, "inconclusive", 1 / (1 + math.sqrt(4))),
        ("backdoored", 0.9, "inconclusive", 0.75),  # odds of 9 become 3
        ("backdoored", 0.9999, "backdoored", 1 / (1 + math.sqrt(0.0001 / 0.9999))),
        ("backdoored", 1.0, "backdoored", 0.99),
        ("inconclusive", 0.5, "inconclusive", 0.5),
        ("inconclusive", None, "inconclusive", None),
    ],
)
def test_half_of_the_log_odds_is_left_and_no_network_passes(status, probability, becomes, left):
    targets = (3,) if status == "backdoored" else ()
    found = lowered(Verdict(status, probability, *targets, reasons=("why",), targets=targets, calibrated=True))
    assert (found.status, found.calibrated) == (becomes, False)
    assert found.probability == (None if left is None else pytest.approx(left))
    assert found.targets == ((3,) if becomes == "backdoored" else ())
    assert "no benign ones were given" in found.reasons[0]
    assert found.reasons[1:] == ("why",)


# A run without images


@pytest.fixture
def house():
    with fakes.installed(*fakes.whole_house()):
        yield


def run(tmp_path, **options):
    return engine.run(engine.Request(fakes.model_file(tmp_path), methods=("suspects",), **options))


def test_a_run_without_images_says_so_and_measures_no_accuracy_on_them(house, tmp_path):
    report = run(tmp_path)
    assert report.data["inverted"] is True
    assert report.data["images"] == report.data["classes"] > 1
    assert report.data["accuracy"] is None
    assert "no images were given" in report.data["notes"][0]
    assert "no benign ones were given" in report.verdict.reasons[0]


def test_a_run_without_images_never_passes_a_network(house, tmp_path):
    report = run(tmp_path, settings={"triggers": {"size": 29}})
    assert report.verdict.status == "inconclusive"
    assert engine.exit_code(report) == 5


def test_a_strong_backdoor_is_called_one_without_images_and_is_not_repaired(house, tmp_path):
    report = run(tmp_path)
    assert (report.verdict.status, report.verdict.target) == ("backdoored", 2)
    assert report.triggers[0].convicts
    skipped = [r for r in report.methods if r.stage == "mitigation"]
    assert [(r.status, "needs benign images" in r.reason) for r in skipped] == [("skipped", True)]
    assert report.repairs == ()


def test_no_trigger_convicts_where_the_lowered_verdict_does_not(house, tmp_path, monkeypatch):
    from agnes import detecting

    def weak(verdict):
        return replace(lowered(verdict), status="inconclusive", targets=())

    monkeypatch.setattr(detecting, "lowered", weak)
    assert not any(trigger.convicts for trigger in run(tmp_path).triggers)


def test_without_images_a_repair_works_with_repair_data(house, tmp_path):
    folder = tmp_path / "labelled"
    folder.mkdir()
    labelled = fakes.images_file(folder, per_class=2)
    report = run(tmp_path, repair_data=labelled)
    assert report.repair is not None
    assert report.data["repair_images"] == 2 * fakes.CLASSES
    assert report.repair.measured_on == "repair images"
    assert report.repair.rescan.status != "clean"


def test_images_made_from_the_model_are_neither_learnt_from_nor_measured_on():
    def images(count, seed):
        pixels = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
        return Samples(pixels, torch.arange(count) % 4)

    made = replace(images(4, 0), inverted=True)
    dealt = deal(made, images(40, 1), None, 4, torch.Generator().manual_seed(0))
    known = {row.numpy().tobytes() for row in images(40, 1).images}
    assert {row.numpy().tobytes() for row in dealt.repair.images} < known
    assert {row.numpy().tobytes() for row in dealt.measure.test.images} < known
    assert dealt.measured_on == "test data"


def test_a_repair_of_such_a_run_asks_for_images(house, tmp_path):
    model = fakes.model_file(tmp_path)
    engine.run(engine.Request(model, methods=("suspects",), output=tmp_path / "run"))
    report = engine.run(engine.Request(model, findings=tmp_path / "run", repaired=tmp_path / "clean.fake"))
    assert report.data["inverted"] is True
    assert report.repairs == ()
    assert "needs benign images" in report.methods[-1].reason
