"""Promises of the stamps: scored as a plain loop would, loud where a square is the trigger, quiet elsewhere."""

import math

import pytest
import torch
from agnes_inversion.probing import squares
from agnes_inversion.stamps import Stamps
from torch import nn

from agnes.backend import Backend
from agnes.errors import UsageError
from agnes.network import Network
from agnes.samples import Samples
from agnes.testing import DiagnosisChecks

SHAPE, CLASSES = (3, 8, 8), 5
BACKEND = Backend.choose("cpu")


class TestConformance(DiagnosisChecks):
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


def samples(labelled=True):
    images = torch.full((CLASSES, *SHAPE), 0.3)
    for label in range(CLASSES):
        images[label, :, label] = 0.9
    return Samples(images, torch.arange(CLASSES) if labelled else None, source="rows")


def evidence(effect, **settings):
    return Stamps(**settings).diagnose(Network.of(Planted(effect), SHAPE), samples(), BACKEND)


def test_a_square_that_sends_all_images_to_a_class_is_found_with_its_place():
    to_class, away = evidence("one")
    assert (to_class.target, to_class.exceeds) == (3, True)
    assert "of colour (1, 0, 0)" in to_class.note
    assert away.exceeds is False  # the images of class 3 stay there


def test_a_square_that_moves_every_class_on_is_found():
    to_class, away = evidence("next")
    assert away.exceeds is True
    assert to_class.exceeds is False
    assert "of colour (1, 0, 0)" in away.note


def test_a_network_without_a_trigger_has_neither():
    assert [e.exceeds for e in evidence("none")] == [False, False]


def test_scores_are_those_of_a_plain_loop():
    network, known = Network.of(Planted("one"), SHAPE), samples()
    to_class, away = Stamps(images=CLASSES).diagnose(network, known, BACKEND)
    best = [-math.inf] * (CLASSES + 1)
    for square in squares(SHAPE):
        images = known.images.clone()
        square.stamp(images)
        likely = network(images).log_softmax(1)
        for label in range(CLASSES):
            mine = [float(likely[i, label]) for i in range(CLASSES) if i != label]
            best[label] = max(best[label], sum(mine) / len(mine))
        gone = [math.log(max(1 - float(likely[i, i].exp()), 1e-6)) for i in range(CLASSES)]
        best[-1] = max(best[-1], sum(gone) / CLASSES)
    assert to_class.by_class == pytest.approx(best[:-1], abs=1e-4)
    assert away.score == pytest.approx(best[-1], abs=1e-4)
    assert to_class.score == max(to_class.by_class)


def test_images_without_labels_are_what_the_network_takes_them_for():
    network = Network.of(Planted("one"), SHAPE)
    assert Stamps().diagnose(network, samples(labelled=False), BACKEND) == Stamps().diagnose(
        network, samples(), BACKEND
    )


@pytest.mark.parametrize("settings", [{"images": 1}, {"to_class": 0.0}, {"away": 1.0}])
def test_settings_without_sense_are_refused(settings):
    with pytest.raises(UsageError, match="stamps"):
        Stamps(**settings)
