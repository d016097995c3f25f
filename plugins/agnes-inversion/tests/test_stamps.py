"""Promises of the stamps: scored as a plain loop would, loud where a box is the trigger, quiet elsewhere."""

import math

import pytest
import torch
from agnes_inversion.boxes import boxes
from agnes_inversion.stamps import Stamps
from evidence_checks import EvidenceChecks
from torch import nn

from agnes.backend import Backend
from agnes.errors import UsageError
from agnes.network import Network
from agnes.results import MaskTrigger
from agnes.samples import Samples

SHAPE, CLASSES = (3, 8, 8), 5
BACKEND = Backend.choose("cpu")


@pytest.fixture(scope="class")
def fewer_boxes():
    """The checks ask for many runs; every twelfth box will do."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("agnes_inversion.stamps.boxes", lambda shape: boxes(shape)[::12])
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
        marked = torch.relu(self.corner(images[:, :, 7:, 7:])).flatten(1)
        if self.effect == "one":
            return logits + 20 * marked * torch.eye(CLASSES)[3]
        if self.effect == "next":
            return logits + 20 * marked * logits.roll(1, 1)
        return logits + 0 * marked


class ByPatch(nn.Module):
    """Classes by the brightness of a patch each, 2x2 pixels; to class 2 it leads five times as strongly."""

    places = ((0, 0), (0, 3), (0, 6), (4, 0), (4, 3))

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Linear(3 * 64, CLASSES)
        with torch.no_grad():
            self.patches.weight.zero_()
            self.patches.bias.zero_()
            for label in range(CLASSES):
                self.patch(self.patches.weight[label].view(SHAPE), label)[...] = (75 if label == 2 else 15) / 12
            self.patches.bias[2] = -12  # where it is dark it says no more than the others do

    @classmethod
    def patch(cls, images, label):
        row, column = cls.places[label]
        return images[..., row : row + 2, column : column + 2]

    def forward(self, images):
        return self.patches(images.flatten(1))


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


def evidence(effect, known=None, **settings):
    return Stamps(**settings).diagnose(Network.of(Planted(effect), SHAPE), known or samples(), BACKEND)


def margins(logits):
    """Of every image and class the logit less the largest of the others."""
    rows = logits.tolist()
    return [[row[c] - max(v for o, v in enumerate(row) if o != c) for c in range(len(row))] for row in rows]


def unit(network, known):
    right = [m[c] for m, c in zip(margins(network(known.images)), known.labels.tolist(), strict=True) if m[c] > 0]
    return sorted(right)[(len(right) - 1) // 2]


def test_a_box_that_sends_all_images_to_a_class_is_found_with_its_place():
    to_class, *_ = evidence("one")
    assert (to_class.target, to_class.exceeds) == (3, True)
    assert "of colour (1, 0, 0)" in to_class.note
    assert max(to_class.null) < 0 < to_class.score


def test_the_box_is_a_trigger_that_sends_all_images_there():
    network, known = Network.of(Planted("one"), SHAPE), samples(each=3)
    trigger = evidence("one", known)[0].trigger
    assert isinstance(trigger, MaskTrigger)
    assert (trigger.target, trigger.asr, trigger.held_out) == (3, 1.0, 12)
    assert bool((network(trigger.apply(known.images)).argmax(1) == 3).all())
    assert float(trigger.mask[0, 7, 7]) == 1
    assert trigger.pixels == int(trigger.mask.sum()) <= 3
    worn = trigger.apply(known.images)[:, :, trigger.mask[0] > 0]
    assert torch.equal(worn, torch.tensor([1.0, 0.0, 0.0])[:, None].expand_as(worn))


def test_the_score_is_that_of_the_box_on_all_images_though_few_chose_it():
    network, known = Network.of(Planted("one"), SHAPE), samples(each=4)
    to_class = evidence("one", known, images=2)[0]
    seen = margins(network(to_class.trigger.apply(known.images)))
    reached = [row[3] for row, label in zip(seen, known.labels.tolist(), strict=True) if label != 3]
    assert to_class.score == pytest.approx(sum(reached) / len(reached) / unit(network, known), rel=1e-4)


def test_a_box_that_moves_every_class_on_is_evidence_of_its_own():
    to_class, away, one_each = evidence("next", samples(each=2))
    assert away.exceeds is True
    assert one_each.exceeds is True
    assert to_class.exceeds is False
    assert away.target is None
    assert "of colour (1, 0, 0)" in away.note


def test_a_network_without_a_trigger_has_none_of_it():
    assert [e.exceeds for e in evidence("none", samples(each=2))] == [False, False, False]


def test_a_patch_that_a_classes_own_images_show_accuses_nobody():
    network = Network.of(ByPatch(), SHAPE)
    by_colour = Stamps(mark=100).diagnose(network, with_patches(), BACKEND)[0]
    by_place = Stamps(natural=0.0).diagnose(network, with_patches(), BACKEND)[0]
    accused = Stamps(natural=0.0, mark=100).diagnose(network, with_patches(), BACKEND)[0]
    assert (accused.target, accused.exceeds) == (2, True)
    assert (by_colour.exceeds, by_place.exceeds) == (False, False)


def test_a_backdoor_is_no_mark_of_the_class_it_leads_to():
    assert [evidence("one", natural=natural, mark=0.01)[0].target for natural in (0.0, 0.6)] == [3, 3]


@pytest.mark.parametrize("effect", ["one", "next", "none"])
def test_scores_are_those_of_a_plain_loop(effect):
    network, known = Network.of(Planted(effect), SHAPE), samples()
    to_class, away, one_each = evidence(effect, known, images=CLASSES, natural=0.6, mark=100)
    least, best, apart = unit(network, known), [-math.inf] * (CLASSES + 1), [-math.inf] * CLASSES
    for box in boxes(SHAPE):
        rows, columns = slice(box.row, box.row + box.height), slice(box.column, box.column + box.width)
        shown = known.images[:, :, rows, columns].mean((2, 3))
        far = (shown - torch.tensor(box.colour)).abs().mean(1).tolist()
        images = known.images.clone()
        images[:, :, rows, columns] = torch.tensor(box.colour).view(3, 1, 1)
        seen = margins(network(images))
        for label in range(CLASSES):
            others = [i for i in range(CLASSES) if i != label]
            if far[label] >= 0.6 * sum(far[i] for i in others) / len(others):
                best[label] = max(best[label], sum(seen[i][label] for i in others) / len(others) / least)
            apart[label] = max(apart[label], -seen[label][label] / least)
        best[-1] = max(best[-1], sum(-seen[i][i] for i in range(CLASSES)) / CLASSES / least)
    assert to_class.by_class == pytest.approx(best[:-1], abs=1e-4)
    assert away.score == pytest.approx(best[-1], abs=1e-4)
    assert one_each.score == pytest.approx(sum(apart) / CLASSES, abs=1e-4)
    assert to_class.score == max(to_class.by_class)
    assert sorted((to_class.score, *to_class.null)) == sorted(to_class.by_class)


def test_images_without_labels_are_what_the_network_takes_them_for():
    labelled, unlabelled = (evidence("one", samples(labelled=known)) for known in (True, False))
    assert labelled == unlabelled
    assert torch.equal(labelled[0].trigger.mask, unlabelled[0].trigger.mask)


@pytest.mark.parametrize("settings", [{"images": 1}, {"best": 0}])
def test_settings_without_sense_are_refused(settings):
    with pytest.raises(UsageError, match="stamps"):
        Stamps(**settings)
