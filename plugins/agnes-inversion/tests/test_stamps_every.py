"""Promises of the stamps: one box that reaches every class, and a box of its own for each, as plain loops find them."""

import pytest
import slow_trying
import torch
from agnes_inversion.boxes import LARGE, boxes
from agnes_inversion.stamps import Stamps
from planted_boxes import BACKEND, CLASSES, KNOWN, SHAPE, ByGrey, ByPatch, Planted, evidence, samples, worn
from torch import nn

from agnes.network import Network
from agnes.samples import Samples


def test_a_box_that_moves_every_class_on_is_loud_where_no_class_is_accused():
    to_one, _, to_every, _ = evidence("next", samples(each=2), images=10)
    assert (to_every.name, to_every.exceeds, to_every.target) == ("box to every class", True, None)
    assert "of colour (1, 0, 0)" in to_every.note
    assert to_every.score > 0.95
    assert to_one.exceeds is False


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


def test_a_few_images_say_nothing_of_a_box_to_every_class():
    known = samples()
    for few in (1, 4):
        to_every = evidence("next", known.subset(range(few)))[2]
        assert (to_every.name, to_every.score, to_every.exceeds) == ("box to every class", 0.0, False)
    assert evidence("next", known)[2].score > 0
