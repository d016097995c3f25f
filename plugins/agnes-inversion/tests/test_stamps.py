"""Promises of the stamps: scored as a plain loop would, loud where a box is the trigger, quiet elsewhere."""

from dataclasses import replace

import pytest
import slow_trying
import torch
from agnes_inversion.boxes import LARGE, SHAPES, boxes
from agnes_inversion.stamps import Boxes, Stamps
from evidence_checks import EvidenceChecks
from planted_boxes import BACKEND, CLASSES, KNOWN, SHAPE, ByGrey, ByPatch, Planted, evidence, samples, worn
from torch import nn

from agnes.errors import UsageError
from agnes.network import Network
from agnes.results import MaskTrigger
from agnes.samples import Samples


@pytest.fixture(scope="class")
def fewer_boxes():
    """The checks ask for many runs; every twelfth box will do."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("agnes_inversion.stamps.boxes", lambda shape, shapes: boxes(shape, shapes)[::12])
        yield


@pytest.mark.usefixtures("fewer_boxes")
class TestConformance(EvidenceChecks):
    method = Stamps(images=2)


def test_a_box_that_sends_all_images_to_a_class_is_found_with_its_place():
    to_one = evidence("one")[0]
    assert (to_one.name, to_one.target, to_one.exceeds) == ("box to one class", 3, True)
    assert "of colour (1, 0, 0)" in to_one.note
    assert max(to_one.null) < 0 < to_one.score


def test_the_box_is_a_trigger_that_sends_all_images_there():
    network, known = Network.of(Planted("one"), SHAPE), samples(each=3)
    trigger = evidence("one", known)[0].trigger
    assert isinstance(trigger, MaskTrigger)
    assert (trigger.target, trigger.asr, trigger.held_out) == (3, 1.0, 12)
    assert bool((network(trigger.apply(known.images)).argmax(1) == 3).all())
    assert float(trigger.mask[0, 5, 5]) == 1
    assert trigger.pixels == int(trigger.mask.sum()) <= 2
    seen = trigger.apply(known.images)[:, :, trigger.mask[0] > 0]
    assert torch.equal(seen, torch.tensor([1.0, 0.0, 0.0])[:, None].expand_as(seen))


def test_success_is_of_a_test_part_where_there_is_one_and_otherwise_of_images_the_box_was_chosen_on():
    chosen = evidence("one", samples(each=2))[0].trigger
    tested = evidence("one", replace(samples(each=2), test=samples(each=3)))[0].trigger
    assert (chosen.held_out, chosen.unseen) == (8, False)
    assert (tested.held_out, tested.unseen) == (12, True)


def test_a_trigger_does_what_the_box_does():
    family, images = Boxes(SHAPE, boxes(SHAPE, LARGE)), samples().images
    for number in range(0, len(family), 31):
        changed = family.changed([number], images)[0]
        assert torch.equal(changed, worn(family.boxes[number], images))
        torch.testing.assert_close(family.trigger(number, target=1).apply(images), changed)
        assert family.described(number) == str(family.boxes[number])


def test_the_score_is_that_of_the_box_on_all_images_though_few_chose_it():
    network, known = Network.of(Planted("one"), SHAPE), samples(each=4)
    to_one = evidence("one", known, images=2, spared=0.0)[0]
    images = to_one.trigger.apply(known.images)
    to_each, _ = slow_trying.led(network, images, known.labels, slow_trying.unit_of(network, known))
    assert to_one.score == pytest.approx(to_each[3], abs=1e-4)


def test_a_network_without_a_trigger_has_none_of_it():
    assert [e.exceeds for e in evidence("none", samples(each=2))] == [False, False, False, False]


def test_a_patch_that_a_classes_own_images_show_accuses_nobody():
    accused, not_accused = (evidence(ByPatch, natural=natural, spared=0.0)[0] for natural in (0.0, 0.6))
    assert (accused.target, accused.exceeds) == (2, True)
    assert not_accused.exceeds is False


def test_a_place_that_classes_are_told_by_accuses_nobody_whatever_is_left_when_it_is_hidden():
    freely, spared = (evidence(ByGrey, spared=spared, images=10)[0] for spared in (0.0, 2.0))
    assert (freely.target, freely.exceeds) == (2, True)
    assert (spared.exceeds, spared.by_class[2] < 0) == (False, True)


def test_a_backdoor_loses_next_to_nothing_by_what_other_colours_at_its_place_do():
    freely, spared = (evidence("one", spared=spared)[0] for spared in (0.0, 2.0))
    assert spared.target == freely.target == 3
    assert spared.score == pytest.approx(freely.score, rel=0.01)


class Reddish(Planted):
    """Any colour with red in it, half of them all, does what red does."""

    def __init__(self) -> None:
        super().__init__("one")
        with torch.no_grad():
            self.corner.weight.copy_(torch.tensor([20.0, 0.0, 0.0]).view(1, 3, 1, 1))


def test_a_backdoor_that_colours_like_its_own_come_near_to_is_not_taken_for_a_place_that_hides_things():
    freely, mostly, half = (
        evidence(Reddish, **settings)[0] for settings in ({"spared": 0.0}, {"milder": 0.75}, {"milder": 0.5})
    )
    assert mostly.target == freely.target == 3
    assert mostly.score == pytest.approx(freely.score, rel=0.01)
    assert half.score < 0 < mostly.score


class Bright(nn.Module):
    """Grey images: classes by the brightness of a row each; a bright pixel in the corner sends images to 3."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, images):
        marked = torch.relu(images[:, :, 5, 5] - 0.95)
        return self.scale * images[:, :, :CLASSES].mean((1, 3)) + 400 * marked * torch.eye(CLASSES)[3]


def test_of_two_colours_the_one_that_spares_images_counts():
    known = samples(each=2)
    grey = replace(known, images=known.images.mean(1, keepdim=True))
    freely, found = (
        Stamps(**settings).diagnose(Network.of(Bright(), (1, 6, 6)), grey, BACKEND)[0]
        for settings in ({"spared": 0.0}, {})
    )
    assert (found.target, found.exceeds) == (3, True)
    assert found.score == pytest.approx(freely.score, rel=0.01)


def test_boxes_are_tried_on_views_where_they_are_asked_for():
    network, known = Network.of(Planted("one"), SHAPE), samples()
    seen, views = (Stamps(looks=looks).diagnose(network, known, BACKEND) for looks in (0, 30))
    assert [a.by_class != b.by_class for a, b in zip(seen, views, strict=True)] == [True, True, False, False]
    assert [a.score == b.score for a, b in zip(seen[2:], views[2:], strict=True)] == [True, True]


@pytest.mark.parametrize(("place", "shapes"), [(0, SHAPES), (1, LARGE)])
@pytest.mark.parametrize(("effect", "spared"), [("one", 2.0), (ByGrey, 2.0), (ByPatch, 0.0)])
def test_the_score_of_each_class_is_that_of_a_plain_loop(effect, spared, place, shapes):
    module = Planted(effect) if isinstance(effect, str) else effect()
    network, known = Network.of(module, SHAPE), KNOWN.get(effect, samples)()
    known = known.subset(range(CLASSES))
    to_one = evidence(effect, known, images=CLASSES, natural=0.6, spared=spared)[place]
    tried = boxes(SHAPE, shapes)
    groups = [(box.row, box.column, box.height, box.width) for box in tried]

    def natural(number, label):
        box = tried[number]
        shown = box.within(known.images).mean((2, 3))
        far = (shown - torch.tensor(box.colour)).abs().mean(1).tolist()
        others = [far[i] for i in range(CLASSES) if i != label]
        return far[label] < 0.6 * sum(others) / len(others)

    def changed(number, images):
        return worn(tried[number], images)

    expected = slow_trying.by_class(network, known, changed, groups, spared, natural, milder=0.75)
    assert to_one.by_class == pytest.approx(expected, abs=1e-4)
    assert to_one.score == max(to_one.by_class)
    assert sorted((to_one.score, *to_one.null)) == sorted(to_one.by_class)


class BySquare(nn.Module):
    """Classes by the brightness of a row each; a red square of 8 x 8 pixels, nearly whole, sends images to 3."""

    shape = (3, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        self.square = nn.Conv2d(3, 1, 8)
        with torch.no_grad():
            self.square.weight.copy_(torch.tensor([20.0, -20.0, -20.0]).view(1, 3, 1, 1) / 64)
            self.square.bias.fill_(-15.0)

    def forward(self, images):
        marked = torch.relu(self.square(images[:, :, 8:16, 20:28])).flatten(1)
        return 10 * images[:, :, :CLASSES].mean((1, 3)) + 20 * marked * torch.eye(CLASSES)[3]


def test_a_square_that_no_small_box_stands_for_is_found_as_a_large_one():
    labels = torch.arange(CLASSES).repeat(2)
    images = 0.25 + 0.1 * torch.rand(len(labels), *BySquare.shape, generator=torch.Generator().manual_seed(0))
    images[torch.arange(len(labels)), :, labels] = 0.9
    network = Network.of(BySquare(), BySquare.shape)
    small, large, _, _ = Stamps(images=2).diagnose(network, Samples(images, labels, source="rows"), BACKEND)
    assert small.exceeds is False
    assert (large.name, large.target, large.exceeds) == ("large box to one class", 3, True)
    assert "8x8 pixels of colour (1, 0, 0) at row 8, column 20" in large.note
    assert (large.trigger.asr, large.trigger.pixels) == (1.0, 64)


def test_images_without_labels_are_what_the_network_takes_them_for():
    labelled, unlabelled = (evidence("one", samples(labelled=known)) for known in (True, False))
    assert labelled == unlabelled
    assert torch.equal(labelled[0].trigger.mask, unlabelled[0].trigger.mask)


@pytest.mark.parametrize(
    ("name", "value"), [("images", 1), ("best", 0), ("spared", -1.0), ("every", 0.0), ("every", 1.0), ("many", 0)]
)
def test_a_setting_out_of_range_is_refused(name, value):
    with pytest.raises(UsageError, match=rf"stamps\.{name}"):
        Stamps(**{name: value})
