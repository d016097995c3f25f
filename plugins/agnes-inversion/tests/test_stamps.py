"""Promises of the stamps: scored as a plain loop would, loud where a box is the trigger, quiet elsewhere."""

from dataclasses import replace

import pytest
import slow_trying
import torch
from agnes_inversion.boxes import LARGE, SHAPES, boxes
from agnes_inversion.stamps import Boxes, Stamps
from evidence_checks import EvidenceChecks
from torch import nn

from agnes.backend import Backend
from agnes.errors import UsageError
from agnes.network import Network
from agnes.results import MaskTrigger
from agnes.samples import Samples

SHAPE, CLASSES = (3, 6, 6), 5
BACKEND = Backend.choose("cpu")


@pytest.fixture(scope="class")
def fewer_boxes():
    """The checks ask for many runs; every twelfth box will do."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("agnes_inversion.stamps.boxes", lambda shape, shapes: boxes(shape, shapes)[::12])
        yield


@pytest.mark.usefixtures("fewer_boxes")
class TestConformance(EvidenceChecks):
    method = Stamps(images=2)


class Planted(nn.Module):
    """Classes by the brightness of a row each; a bright red pixel in the corner sends images to 3, or one class on."""

    def __init__(self, effect: str) -> None:
        super().__init__()
        self.effect = effect
        self.corner = nn.Conv2d(3, 1, 1)
        with torch.no_grad():
            self.corner.weight.copy_(torch.tensor([20.0, -20.0, -20.0]).view(1, 3, 1, 1))
            self.corner.bias.fill_(-15.0)

    def forward(self, images):
        logits = 10 * images[:, :, :CLASSES].mean((1, 3))
        marked = torch.relu(self.corner(images[:, :, 5:, 5:])).flatten(1)
        if self.effect == "one":
            return logits + 20 * marked * torch.eye(CLASSES)[3]
        if self.effect == "next":
            return logits + 20 * marked * logits.roll(1, 1)
        return logits + 0 * marked


class ByPatch(nn.Module):
    """Classes by the brightness of a patch each, 2x2 pixels; to class 2 it leads four times as strongly."""

    places = ((0, 0), (0, 2), (0, 4), (3, 0), (3, 2))

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Linear(3 * 36, CLASSES)
        with torch.no_grad():
            self.patches.weight.zero_()
            self.patches.bias.zero_()
            for label in range(CLASSES):
                self.patch(self.patches.weight[label].view(SHAPE), label)[...] = (65 if label == 2 else 15) / 12
            self.patches.bias[2] = -10  # where it is dark it says no more than the others do

    @classmethod
    def patch(cls, images, label):
        row, column = cls.places[label]
        return images[..., row : row + 2, column : column + 2]

    def forward(self, images):
        return self.patches(images.flatten(1))


class ByGrey(nn.Module):
    """Classes by the grey of one pixel; where it is of no class's grey, class 2 is what is left."""

    greys = (0.42, 0.46, 0.5, 0.54, 0.58)

    def __init__(self) -> None:
        super().__init__()
        self.grey = nn.Conv2d(3, 1, 1)
        with torch.no_grad():
            self.grey.weight.fill_(1 / 3)
            self.grey.bias.zero_()
        self.register_buffer("greys_", torch.tensor(self.greys))
        self.register_buffer("worth", torch.tensor([12.0, 12.0, 0.0, 12.0, 12.0]))

    def forward(self, images):
        far = (self.grey(images[:, :, 3:4, 3:4]).flatten(1) - self.greys_).abs()
        return self.worth * torch.relu(1 - 50 * far) + 6 * torch.eye(CLASSES)[2]


def samples(each=1, labelled=True):
    labels = torch.arange(CLASSES).repeat(each)
    images = 0.25 + 0.1 * torch.rand(len(labels), *SHAPE, generator=torch.Generator().manual_seed(0))
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, label] = 0.9
    return Samples(images, labels if labelled else None, source="rows")


def with_patches():
    """Two images a class, dark but for the patch of the class."""
    labels = torch.arange(CLASSES).repeat(2)
    images = torch.full((len(labels), *SHAPE), 0.2)
    for image, label in zip(images, labels.tolist(), strict=True):
        ByPatch.patch(image, label)[...] = 0.9
    return Samples(images, labels, source="patches")


def with_greys():
    """Two images a class, of noise but for the pixel that tells the class."""
    labels = torch.arange(CLASSES).repeat(2)
    images = torch.rand(len(labels), *SHAPE, generator=torch.Generator().manual_seed(0))
    images[:, :, 3, 3] = torch.tensor(ByGrey.greys)[labels, None]
    return Samples(images, labels, source="greys")


KNOWN = {ByPatch: with_patches, ByGrey: with_greys}


def evidence(effect, known=None, **settings):
    """To one class, by a large box, and to every class; of a planted network or of a kind of network."""
    module = Planted(effect) if isinstance(effect, str) else effect()
    known = known or KNOWN.get(effect, samples)()
    return Stamps(**settings).diagnose(Network.of(module, SHAPE), known, BACKEND)


def worn(box, images):
    """Images that wear a box, pixel by pixel."""
    images = images.clone()
    for row in range(box.row, box.row + box.height):
        for column in range(box.column, box.column + box.width):
            images[:, :, row, column] = torch.tensor(box.colour)
    return images


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


def test_a_box_that_moves_every_class_on_is_loud_where_no_class_is_accused():
    to_one, _, to_every, _ = evidence("next", samples(each=2), images=10)
    assert (to_every.name, to_every.exceeds, to_every.target) == ("box to every class", True, None)
    assert "of colour (1, 0, 0)" in to_every.note
    assert to_every.score > 0.95
    assert to_one.exceeds is False


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


@pytest.mark.parametrize("effect", ["one", "none", ByPatch, ByGrey])
def test_no_box_of_another_network_leads_to_every_class(effect):
    assert evidence(effect, images=5)[2].score < 0.4


def reaching(network, known, box, unit):
    """How surely each class is reached by its surest image of another class, the surest first."""
    rows, owners = slow_trying.margins(network(worn(box, known.images))), known.labels.tolist()
    surely = []
    for label in range(CLASSES):
        others = [row[label] / unit for row, own in zip(rows, owners, strict=True) if own != label]
        surely.append((min(max(max(others, default=-1), -1), 1) + 1) / 2)
    return sorted(surely, reverse=True)


@pytest.mark.parametrize(("effect", "count"), [("one", 5), ("next", 6), ("next", 10), ("none", 5)])
def test_how_surely_classes_are_reached_is_that_of_a_plain_loop_over_boxes(effect, count, monkeypatch):
    monkeypatch.setattr("agnes_inversion.stamps._LOOKED_AT", 10**6)
    network, known = Network.of(Planted(effect), SHAPE), samples(each=2).subset(range(count))
    unit = slow_trying.unit_of(network, known)
    found = {box: reaching(network, known, box, unit) for box in boxes(SHAPE, ((5, 5), *LARGE))}
    means = {str(box): sum(surely) / len(surely) for box, surely in found.items()}
    to_every = evidence(effect, known, images=4)[2]
    assert to_every.score == pytest.approx(max(means.values()), abs=1e-4)
    assert means[to_every.note.split("that wear ")[1]] == pytest.approx(to_every.score, abs=1e-4)


class ByPlace(nn.Module):
    """Classes by the brightness of a row each; for each class a place of 8 x 8 pixels that, wholly red, leads to it."""

    shape = (3, 32, 32)
    places = ((8, 0), (8, 12), (8, 24), (20, 4), (20, 20))

    def __init__(self, *, any_mark: bool = False) -> None:
        super().__init__()
        self.any_mark = any_mark
        self.red = nn.Conv2d(3, 1, 1)
        with torch.no_grad():
            self.red.weight.copy_(torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1))
            self.red.bias.zero_()

    def forward(self, images):
        red = torch.relu(self.red(images)[:, 0] - 0.5) * 2
        shown = torch.stack([red[:, row : row + 8, column : column + 8].sum((1, 2)) for row, column in self.places], 1)
        marked = (shown / 16).clamp(max=1) if self.any_mark else torch.relu(shown / 64 - 0.7)
        return 10 * images[:, :, :CLASSES].mean((1, 3)) + 100 * marked


def with_rows():
    labels = torch.arange(CLASSES).repeat(2)
    images = 0.25 + 0.1 * torch.rand(len(labels), *ByPlace.shape, generator=torch.Generator().manual_seed(0))
    images[torch.arange(len(labels)), :, labels] = 0.9
    return Samples(images, labels, source="rows")


@pytest.mark.parametrize(("any_mark", "score"), [(False, 5), (True, 0)])
def test_a_square_of_its_own_for_each_class_is_loud_unless_any_mark_there_does_as_much(any_mark, score):
    network = Network.of(ByPlace(any_mark=any_mark), ByPlace.shape)
    for many in (4, 5):
        to_many = Stamps(many=many).diagnose(network, with_rows(), BACKEND)[3]
        assert (to_many.name, to_many.target, to_many.score) == ("boxes to many classes", None, score)
        assert to_many.exceeds == (score > many)


@pytest.mark.parametrize(("effect", "count"), [("one", 5), ("next", 10), (ByPatch, 10)])
def test_classes_with_a_box_of_their_own_are_those_of_a_plain_loop(effect, count, monkeypatch):
    monkeypatch.setattr("agnes_inversion.stamps._TRIED_AGAIN", 10**6)
    monkeypatch.setattr("agnes_inversion.stamps.HALF", ((2, 2),))  # a single pixel of these images
    module = Planted(effect) if isinstance(effect, str) else effect()
    network, known = Network.of(module, SHAPE), KNOWN.get(effect, lambda: samples(each=2))().subset(range(count))

    def best(shapes, label):
        others = [number for number, own in enumerate(known.labels.tolist()) if own != label]
        moved = [network(worn(box, known.images)).argmax(1)[others] == label for box in boxes(SHAPE, shapes)]
        return max(float(each.float().mean()) for each in moved)

    large, small = ([best(shapes, label) for label in range(CLASSES)] for shapes in (LARGE, ((2, 2),)))
    own = [each >= 0.5 and half < each / 2 for each, half in zip(large, small, strict=True)]
    assert evidence(effect, known)[3].score == sum(own)
    assert evidence(effect, known)[3].score == {"one": 0, "next": 0, ByPatch: 4}[effect]


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


def test_a_few_images_say_nothing_of_a_box_to_every_class():
    known = samples()
    for few in (1, 4):
        to_every = evidence("next", known.subset(range(few)))[2]
        assert (to_every.name, to_every.score, to_every.exceeds) == ("box to every class", 0.0, False)
    assert evidence("next", known)[2].score > 0
