"""Promises of the pieces: four boxes that only together lead to a class are found, a class's own are not."""

from __future__ import annotations

import pytest
import slow_trying
import torch
from agnes_inversion.boxes import boxes
from agnes_inversion.pieces import Fours, Pieces
from evidence_checks import EvidenceChecks
from torch import nn

from agnes.backend import Backend
from agnes.network import Network
from agnes.results import MaskTrigger
from agnes.samples import Samples

SHAPE, CLASSES, TARGET = (3, 16, 16), 5, 3
BACKEND = Backend.choose("cpu")
CORNERS = ((0, 0), (0, 15), (15, 0), (15, 15))


class TestConformance(EvidenceChecks):
    method = Pieces(images=2)


class Planted(nn.Module):
    """Classes by the brightness of rows in the middle; bright red pixels in all of some corners send images to 3."""

    def __init__(self, corners) -> None:
        super().__init__()
        self.corners = corners
        self.red = nn.Conv2d(3, 1, 1)
        with torch.no_grad():
            self.red.weight.copy_(torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1))
            self.red.bias.zero_()

    def forward(self, images):
        logits = 10 * images[:, :, 5 : 5 + CLASSES].mean((1, 3))
        if not self.corners:
            return logits + 0 * self.red(images).mean((1, 2, 3))[:, None]
        red = self.red(images)[:, 0]
        worn = torch.stack([red[:, row, column] for row, column in self.corners], 1).amin(1)
        return logits + 40 * torch.relu(worn - 0.5)[:, None] * torch.eye(CLASSES)[TARGET]


def samples(each=1):
    labels = torch.arange(CLASSES).repeat(each)
    images = 0.25 + 0.1 * torch.rand(len(labels), *SHAPE, generator=torch.Generator().manual_seed(0))
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 5 + label] = 0.9
    return Samples(images, labels, source="rows")


def network(corners=CORNERS):
    return Network.of(Planted(corners), SHAPE)


def evidence(corners=CORNERS, known=None, **settings):
    (found,) = Pieces(**settings).diagnose(network(corners), known or samples(each=2), BACKEND)
    return found


def worn(box, images):
    """The square and its mirror images, pixel by pixel."""
    copies = images.clone()
    colour = torch.tensor(box.colour)
    for row in range(box.row, box.row + box.height):
        for column in range(box.column, box.column + box.width):
            for down in (row, SHAPE[1] - 1 - row):
                for across in (column, SHAPE[2] - 1 - column):
                    copies[:, :, down, across] = colour
    return copies


def squares():
    """All squares of 3 and 5 pixels of 32 that lie in the upper left quarter."""
    return [box for box in boxes(SHAPE, ((3, 3), (5, 5))) if max(box.row + box.height, box.column + box.width) <= 8]


def test_four_pieces_that_work_only_together_are_found():
    found = evidence()
    assert (found.target, found.exceeds) == (TARGET, True)
    assert max(found.null) < 0 < found.score
    assert "colour (1, 0, 0) at row 0, column 0 and its three mirror images" in found.note


def test_the_trigger_wears_all_four_and_works():
    known = samples(each=2)
    trigger = evidence(known=known).trigger
    assert isinstance(trigger, MaskTrigger)
    assert (trigger.target, trigger.asr, trigger.held_out) == (TARGET, 1.0, 8)
    assert trigger.mask.shape == (1, 16, 16)
    for row, column in CORNERS:
        assert float(trigger.mask[0, row, column]) == 1
    assert float(trigger.mask.sum()) <= 4 * 2**2
    assert torch.equal(trigger.pattern[:, 0, 0], torch.tensor([1.0, 0.0, 0.0]))


def test_a_network_without_a_trigger_is_not_accused():
    found = evidence(corners=())
    assert found.exceeds is False
    assert found.score < 0


def test_each_family_member_is_four_squares_and_nothing_else_changes():
    family, images = Fours(SHAPE, 0.6), samples().images
    assert len(family) == len(squares()) > 50
    for number in range(0, len(family), 7):
        assert torch.equal(family.changed([number], images)[0], worn(squares()[number], images))
        trigger = family.trigger(number, 1)
        torch.testing.assert_close(trigger.apply(images), worn(squares()[number], images))


def test_what_a_classs_own_images_show_in_all_four_corners_accuses_nobody():
    known = samples(each=2)
    for number in (known.labels == TARGET).nonzero()[:, 0].tolist():
        for row, column in CORNERS:
            down, across = slice(row and 14, (row and 14) + 2), slice(column and 14, (column and 14) + 2)
            known.images[number, :, down, across] = torch.tensor([0.9, 0.1, 0.1])[:, None, None]
    assert evidence(known=known).exceeds is False
    assert evidence(known=known, natural=0.0).target == TARGET


@pytest.mark.parametrize("corners", [CORNERS, CORNERS[:1], ()])
def test_scores_are_those_of_plain_loops(corners):
    known, tried = samples(), squares()
    found = evidence(corners, known, images=CLASSES)
    groups = [(box.row, box.column, box.height) for box in tried]

    def natural(number, label):
        box = tried[number]
        places = worn(box, torch.zeros(1, *SHAPE)) - worn(box, torch.ones(1, *SHAPE)) == 0
        shown = [[float(image[channel][places[0, channel]].mean()) for channel in range(3)] for image in known.images]
        far = [sum(abs(a - b) for a, b in zip(one, box.colour, strict=True)) / 3 for one in shown]
        others = [far[i] for i in range(CLASSES) if i != label]
        return far[label] < 0.6 * sum(others) / len(others)

    expected = slow_trying.by_class(
        network(corners), known, lambda n, images: worn(tried[n], images), groups, 2.0, natural, milder=0.75
    )
    assert found.by_class == pytest.approx(expected, abs=1e-4)


def test_small_images_have_no_quarters_to_speak_of():
    small = Network.of(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, 3)).eval(), (3, 4, 4))
    assert Pieces().suits(small) is None
    assert Pieces().suits(network())
