"""Promises of the waves: the one that leads to a class is found, what any wave of its length does accuses nobody."""

from __future__ import annotations

import math
from functools import cache

import pytest
import slow_trying
import torch
from agnes_inversion.waves import CYCLES, Plane, Waves
from evidence_checks import EvidenceChecks
from planted_bands import CLASSES, SHAPE, TARGET, bands, grey_bands, grey_network, planted
from planted_corner import backend
from torch import nn

from agnes.errors import UsageError
from agnes.network import Network

WAYS = {
    "across": lambda row, column: column,
    "down": lambda row, column: row,
    "along the diagonal": lambda row, column: row + column,
    "against the diagonal": lambda row, column: column - row,
}
EVERY = [(cycles, way, phase) for cycles in CYCLES for way in WAYS for phase in range(4)]
GROUPS = [cycles for cycles, _, _ in EVERY]
CPU = torch.device("cpu")


class TestConformance(EvidenceChecks):
    method = Waves(images=2)


@cache
def wave(cycles, way, phase, height=20, width=20):
    """A wave of strength 1, number by number."""

    def at(row, column):
        return math.sin(2 * math.pi * (cycles * WAYS[way](row / height, column / width) + phase / 4))

    return torch.tensor([[at(row, column) for column in range(width)] for row in range(height)])


def waved(number, images, bound=0.1):
    return (images + bound * wave(*EVERY[number], *images.shape[2:])).clamp(0, 1)


def diagnosed(obeys, known=None, **settings):
    (evidence,) = Waves(**settings).diagnose(planted(obeys), known or bands(), backend())
    return evidence


@pytest.fixture(scope="module")
def found():
    return diagnosed("waves")


def test_a_network_that_obeys_a_wave_is_found_with_its_class_and_the_wave(found):
    assert (found.target, found.exceeds) == (TARGET, True)
    assert max(found.null) < 0 < found.score
    assert "5 cycles across, shifted by 0/4 of one, of strength 0.1" in found.note
    assert (found.trigger.target, found.trigger.asr, found.trigger.held_out) == (TARGET, 1.0, 16)
    torch.testing.assert_close(found.trigger.delta, 0.1 * wave(5, "across", 0).expand(SHAPE), rtol=0, atol=1e-6)


def test_a_network_that_obeys_none_is_not_accused():
    evidence = diagnosed("neither")
    assert evidence.exceeds is False
    assert evidence.score < 0.1


def test_a_length_at_which_every_wave_makes_images_lose_their_class_accuses_nobody():
    assert (diagnosed("length", spared=0.0).target, diagnosed("length", spared=0.0).exceeds) == (TARGET, True)
    evidence = diagnosed("length")
    assert evidence.exceeds is False
    assert evidence.by_class[TARGET] < 0.1


@pytest.mark.parametrize("spared", [0.0, 1.0])
@pytest.mark.parametrize("obeys", ["waves", "length", "neither"])
def test_the_score_of_each_class_is_that_of_a_plain_loop(obeys, spared):
    network, known = planted(obeys), bands(each=1)
    evidence = diagnosed(obeys, known, images=CLASSES, looks=0, spared=spared)
    expected = slow_trying.by_class(network, known, waved, GROUPS, spared)
    assert evidence.by_class == pytest.approx(expected, abs=1e-4)
    assert evidence.score == max(evidence.by_class)


def test_images_that_need_not_be_square_wear_each_wave_as_its_number_says():
    images = torch.rand(2, 3, 20, 26, generator=torch.Generator().manual_seed(0))
    family = Plane((3, 20, 26), 0.1, CPU)
    assert len(family) == len(EVERY) == 160
    assert list(family.groups) == GROUPS
    changed = family.changed(range(160), images)
    for number in range(160):
        torch.testing.assert_close(changed[number], waved(number, images), rtol=0, atol=1e-5)
    torch.testing.assert_close(family.changed([150, 3], images), changed[[150, 3]])


@pytest.mark.parametrize("shape", [SHAPE, (1, 12, 16)])
def test_a_trigger_does_what_the_wave_does(shape):
    family, images = Plane(shape, 0.2, CPU), torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    for number in range(0, 160, 7):
        trigger = family.trigger(number, target=1)
        torch.testing.assert_close(trigger.apply(images), family.changed([number], images)[0])
        cycles, way, phase = EVERY[number]
        assert family.described(number).startswith(f"a wave of {cycles} cycles {way}, shifted by {phase}/4")


@pytest.mark.parametrize("bound", [0.02, 0.5])
def test_no_wave_is_stronger_than_the_bound_and_images_stay_images(bound):
    family = Plane((3, 32, 32), bound, CPU)
    size = family.waves.abs().flatten(1).amax(1)
    assert float(size.max()) <= bound + 1e-6
    assert float(size.min()) > 0.7 * bound
    drawn = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    worn = family.changed(range(160), torch.cat([drawn, torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)]))
    assert 0 <= float(worn.min()) <= float(worn.max()) <= 1


def test_the_bound_is_the_strength_of_the_trigger():
    trigger = diagnosed("waves", bound=0.06).trigger
    assert float(trigger.delta.abs().max()) == pytest.approx(0.06, rel=1e-3)


def test_waves_are_for_images_of_any_channels():
    (evidence,) = Waves().diagnose(grey_network(), grey_bands(), backend())
    assert evidence.exceeds is False
    assert evidence.trigger.delta.shape == (1, 20, 20)
    network = Network.of(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval(), (4, 4, 4))
    assert Waves().suits(network)


def test_the_same_seed_gives_the_same_evidence(found):
    again = diagnosed("waves")
    assert again == found
    assert torch.equal(again.trigger.delta, found.trigger.delta)


def test_images_without_labels_are_what_the_network_takes_them_for(found):
    assert diagnosed("waves", bands(labelled=False)) == found


@pytest.mark.parametrize(("name", "value"), [("bound", 0.0), ("images", 1), ("best", 0), ("spared", -1.0)])
def test_a_setting_out_of_range_is_refused(name, value):
    with pytest.raises(UsageError, match=rf"waves\.{name}"):
        Waves(**{name: value})
