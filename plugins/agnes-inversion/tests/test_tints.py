"""Promises of the tints: each filter does what it says, the one that leads to a class is found, none is too strong."""

from __future__ import annotations

import itertools

import pytest
import slow_trying
import torch
from agnes_inversion.tints import Faint, Filter, Tints, filters
from evidence_checks import EvidenceChecks
from planted_bands import CLASSES, TARGET, bands, grey_bands, grey_network, planted
from planted_corner import backend
from torch import nn

from agnes.errors import UsageError
from agnes.network import Network
from agnes.samples import Samples

BOUND = 0.1


@pytest.fixture(scope="class")
def fewer_filters():
    """The checks ask for many runs; every thirtieth filter will do."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("agnes_inversion.tints.filters", lambda channels: filters(channels)[::30])
        yield


@pytest.mark.usefixtures("fewer_filters")
class TestConformance(EvidenceChecks):
    method = Tints(images=2)


def filtered(which, images):
    """What a filter does, step by step: less or more colour, less or more contrast, then light and tint."""
    if images.shape[1] == 3:
        red, green, blue = images.unbind(1)
        grey = (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]
    else:
        grey = images.mean(1, keepdim=True)
    coloured = grey + which.saturation * (images - grey)
    contrasted = 0.5 + which.contrast * (coloured - 0.5)
    added = which.brightness + 0.12 * torch.tensor(which.tint)
    return (contrasted + added[:, None, None]).clamp(0, 1)


def size(which, images):
    return float((filtered(which, images) - images).abs().mean())


def photographs(channels=3):
    return torch.rand(4, channels, 6, 7, generator=torch.Generator().manual_seed(0))


def diagnosed(obeys, known=None, **settings):
    (evidence,) = Tints(**settings).diagnose(planted(obeys), known or bands(), backend())
    return evidence


@pytest.fixture(scope="module")
def found():
    return diagnosed("tints")


def test_a_network_that_obeys_a_tint_is_found_with_its_class(found):
    assert (found.target, found.exceeds) == (TARGET, True)
    assert max(found.null) < 0 < found.score
    assert (found.trigger.target, found.trigger.asr, found.trigger.held_out) == (TARGET, 1.0, 16)


def test_the_tint_that_was_planted_is_the_one_that_is_found(found):
    images = bands().images
    red, _, blue = (found.trigger.apply(images) - images).mean((0, 2, 3)).tolist()
    assert blue - red > 0.2
    assert found.note.endswith("+0.12)")
    assert "tint (-0.12" in found.note


def test_a_network_that_obeys_none_is_not_accused():
    evidence = diagnosed("neither")
    assert evidence.exceeds is False
    assert evidence.score < 0.1


@pytest.mark.parametrize(("obeys", "spared"), [("tints", 0.0), ("tints", 1.0), ("neither", 0.0)])
def test_the_score_of_each_class_is_that_of_a_plain_loop(obeys, spared, monkeypatch):
    every = filters(3)[::4]
    monkeypatch.setattr("agnes_inversion.tints.filters", lambda channels: every)
    network, known = planted(obeys), bands(each=1)
    evidence = diagnosed(obeys, known, images=CLASSES, looks=0, spared=spared)
    tried = [which for which in every if size(which, known.images) <= BOUND]
    groups = [(which.saturation, which.contrast, which.brightness) for which in tried]

    def changed(number, images):
        return filtered(tried[number], images)

    assert evidence.by_class == pytest.approx(slow_trying.by_class(network, known, changed, groups, spared), abs=1e-4)
    assert evidence.score == max(evidence.by_class)


@pytest.mark.parametrize(("channels", "count"), [(3, 899), (1, 8)])
def test_there_are_as_many_filters_as_the_card_says_and_no_two_are_alike(channels, count):
    every = filters(channels)
    assert len(every) == len({tuple(which.mix().flatten().tolist()) for which in every}) == count


@pytest.mark.parametrize("channels", [3, 1])
def test_no_filter_leaves_all_images_as_they_are(channels):
    images = photographs(channels)
    assert min(size(which, images) for which in filters(channels)) > 0.01
    same = Filter(1.0, 1.0, 0.0, (0,) * channels)
    torch.testing.assert_close(filtered(same, images), images)
    assert same not in filters(channels)


def known(images):
    return Samples(images, torch.zeros(len(images), dtype=torch.int64), source="photographs")


def test_filters_of_a_group_differ_in_tint_alone():
    family = Faint(known(photographs()), 1.0)
    for one, other in itertools.pairwise(range(len(family))):
        ours, theirs = family.filters[one], family.filters[other]
        alike = Filter(ours.saturation, ours.contrast, ours.brightness, theirs.tint) == theirs
        assert (family.groups[one] == family.groups[other]) is alike


@pytest.mark.parametrize("channels", [3, 1])
def test_the_mix_of_a_filter_does_what_its_steps_do(channels):
    images = photographs(channels)
    family = Faint(known(images), 1.0)
    assert len(family) == len(filters(channels))
    changed = family.changed(range(len(family)), images)
    for number, which in enumerate(filters(channels)):
        assert family.filters[number] == which
        torch.testing.assert_close(changed[number], filtered(which, images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [3, 1])
def test_a_trigger_does_what_the_filter_does_and_says_how_much(channels):
    images = photographs(channels)
    family = Faint(known(images), 1.0)
    for number in range(0, len(family), 1 + len(family) // 20):
        trigger = family.trigger(number, target=1)
        changed = family.changed([number], images)[0]
        torch.testing.assert_close(trigger.apply(images), changed, rtol=0, atol=1e-5)
        torch.testing.assert_close(trigger.change(), (changed - images).abs().amax(1).mean(0))


@pytest.mark.parametrize("bound", [0.05, 0.11, 0.15])
def test_those_filters_are_tried_that_change_images_of_all_classes_by_no_more_than_the_bound(bound):
    samples = bands(each=8)
    by_class = samples.labels.argsort(stable=True)
    few = samples.images[by_class][:: -(-len(samples) // 16)]
    expected = [which for which in filters(3) if size(which, few) <= bound]
    for order in (torch.arange(len(samples)), by_class):
        assert Faint(samples.subset(order), bound).filters == expected
    assert 0 < len(expected) < 899


def test_where_every_filter_is_too_strong_the_faintest_is_tried():
    images = photographs()
    (only,) = Faint(known(images), 1e-4).filters
    assert size(only, images) == pytest.approx(min(size(which, images) for which in filters(3)), rel=1e-3)


def test_images_stay_images():
    images = torch.cat([photographs(), torch.zeros(1, 3, 6, 7), torch.ones(1, 3, 6, 7)])
    worn = Faint(known(images), 1.0).changed(range(899), images)
    assert 0 <= float(worn.min()) <= float(worn.max()) <= 1


def test_grey_images_are_made_lighter_darker_and_flatter():
    (evidence,) = Tints().diagnose(grey_network(), grey_bands(), backend())
    assert evidence.exceeds is False
    assert evidence.trigger.apply(grey_bands().images).shape == (20, 1, 20, 20)


def test_the_same_seed_gives_the_same_evidence(found):
    again = diagnosed("tints")
    assert again == found
    assert torch.equal(again.trigger.mix, found.trigger.mix)


def test_images_without_labels_are_what_the_network_takes_them_for(found):
    assert diagnosed("tints", bands(labelled=False)) == found


@pytest.mark.parametrize(("channels", "suits"), [(1, True), (3, True), (4, False)])
def test_colour_filters_are_for_pictures(channels, suits):
    network = Network.of(nn.Sequential(nn.Flatten(), nn.Linear(channels * 16, 3)).eval(), (channels, 4, 4))
    assert bool(Tints().suits(network)) is suits


@pytest.mark.parametrize(("name", "value"), [("bound", 0.0), ("images", 1), ("best", 0), ("spared", -1.0)])
def test_a_setting_out_of_range_is_refused(name, value):
    with pytest.raises(UsageError, match=rf"tints\.{name}"):
        Tints(**{name: value})
