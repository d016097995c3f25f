"""Promises of haze: a class that one faint pattern leads to is found, and no pattern exceeds its bound."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from agnes_inversion.arms import divide
from agnes_inversion.haze import Haze, _hazy
from agnes_inversion.varying import varied
from evidence_checks import EvidenceChecks
from planted_bands import CHECKERS, CLASSES, SHAPE, TARGET, bands, grey_bands, grey_network, planted
from planted_corner import backend
from slow_trying import margins
from tiny import tiny_images, tiny_network

from agnes.differentiating import logits_of
from agnes.errors import AgnesError, UsageError


class TestConformance(EvidenceChecks):
    method = Haze(steps=2)


def diagnosed(obeys, known=None, seed=0, **settings):
    return Haze(**{"steps": 12, **settings}).diagnose(planted(obeys), known or bands(), backend(seed=seed))


@pytest.fixture(scope="module")
def found():
    return diagnosed("haze")


def margin_of(network, images, target):
    """The mean over images of the target's logit less the largest other."""
    rows = margins(network(images))
    return sum(row[target] for row in rows) / len(rows)


def test_a_network_that_obeys_a_faint_pattern_is_found_with_its_class(found):
    assert (found.target, found.exceeds) == (TARGET, True)
    assert max(found.null) < 0 < found.score
    assert found.score == max(found.by_class) == found.by_class[TARGET]
    assert len(found.by_class) == len(found.null) + 1 == CLASSES
    assert (found.trigger.target, found.trigger.asr) == (TARGET, 1.0)


def test_the_pattern_that_was_planted_is_the_one_that_is_found(found):
    delta = found.trigger.delta
    assert float((delta.sign() == CHECKERS).float().mean()) > 0.9
    assert float((delta * CHECKERS).mean()) > 0.8 * 0.04  # of 0.04 that it could be


def test_a_network_that_obeys_none_is_not_accused():
    evidence = diagnosed("neither")
    assert evidence.exceeds is False
    assert evidence.score < 0.1


def test_the_score_is_the_margin_under_the_trigger_on_views_of_images_it_was_not_made_on(found):
    network = planted("haze")
    parts = divide(bands(), network, Haze.share, 99, backend())
    draw = backend().generator("Haze", "held out", device="cpu")
    images, labels = parts.held_out.images, parts.held_out.labels
    others = labels != TARGET
    looks = [images[others], *(varied(images, draw)[others] for _ in range(3))]
    margin = sum(margin_of(network, found.trigger.apply(look), TARGET) for look in looks) / 4
    right = sorted(margin_of(network, i[None], int(c)) for i, c in zip(parts.made_on.images, parts.labels, strict=True))
    assert right[0] > 0
    assert found.score == pytest.approx(margin / right[(len(right) - 1) // 2], rel=1e-3)
    assert found.trigger.held_out == int(others.sum())


@pytest.mark.parametrize("together", [5, 128])
def test_the_gradient_is_that_of_margins_of_other_classes_images(together, monkeypatch):
    monkeypatch.setattr("agnes_inversion.haze._AT_ONCE_ON_CPU", together)
    network, (images, labels) = tiny_network(), tiny_images()
    draw = torch.Generator().manual_seed(3)
    patterns = 0.02 * torch.randn(3, 3, 8, 8, generator=draw, dtype=torch.float64)
    seen = torch.tensor([[0, 1, 2, 3, 4], [1, 3, 0, 2, 4], [4, 0, 2, 1, 3]])[:, :4]
    gradient = Haze()._gradient(logits_of(network), patterns, images, seen, labels, torch.arange(3), backend())

    def summed(patterns):
        total = 0.0
        for target in range(3):
            for place in seen[target].tolist():
                if labels[place] != target:
                    with torch.no_grad():
                        logits = network.module((images[place] + patterns[target]).clamp(0, 1)[None])
                    total += margins(logits)[0][target]
        return total

    for place in torch.randint(patterns.numel(), (12,), generator=draw).tolist():
        nudge = torch.zeros(patterns.numel(), dtype=torch.float64)
        nudge[place] = 1e-6
        nudge = nudge.view_as(patterns)
        expected = (summed(patterns + nudge) - summed(patterns - nudge)) / 2e-6
        assert float(gradient.flatten()[place]) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert float(gradient.abs().max()) > 0


def test_every_step_sees_its_images_another_way_and_a_few_of_them_several_times(monkeypatch):
    seen = []

    def gradient(self, logits, patterns, views, *rest):
        seen.append(views)
        return torch.zeros_like(patterns)

    monkeypatch.setattr(Haze, "_gradient", gradient)
    diagnosed("neither", bands(each=2), steps=3)  # seven of the ten images
    assert [len(views) for views in seen] == [28] * 3
    for one, other in [(seen[0][:7], seen[0][7:14]), (seen[0], seen[1]), (seen[1], seen[2])]:
        assert bool((one != other).flatten(1).any(1).all())


def test_a_pattern_is_added_to_every_image_and_a_trigger_does_the_same(found):
    images, patterns = bands().images, 0.3 * torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    hazy = _hazy(patterns, images[None])
    for number, pattern in enumerate(patterns):
        for place, image in enumerate(images):
            torch.testing.assert_close(hazy[number, place], (image + pattern).clamp(0, 1))
    assert torch.equal(_hazy(torch.zeros(1, *SHAPE), images[None])[0], images)
    assert torch.equal(found.trigger.apply(images), _hazy(found.trigger.delta[None], images[None])[0])


@pytest.mark.parametrize("bound", [0.01, 0.6])
def test_no_number_of_a_pattern_exceeds_the_bound_and_images_stay_images(bound):
    trigger = diagnosed("haze", bound=bound).trigger
    assert 0.5 * bound < float(trigger.delta.abs().max()) <= bound + 1e-6
    drawn = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    worn = trigger.apply(torch.cat([drawn, torch.zeros(1, *SHAPE), torch.ones(1, *SHAPE)]))
    assert 0 <= float(worn.min()) <= float(worn.max()) <= 1


def test_the_same_seed_gives_the_same_evidence_and_another_seed_another(found):
    again, other = (diagnosed("haze", seed=seed) for seed in (0, 1))
    assert again == found
    assert torch.equal(again.trigger.delta, found.trigger.delta)
    assert other.score != again.score


def test_images_without_labels_are_what_the_network_takes_them_for(found):
    assert diagnosed("haze", bands(labelled=False)) == found


def test_a_class_that_all_images_belong_to_stands_out_from_none():
    known = bands()
    evidence = diagnosed("haze", known.subset(known.labels == 3))
    assert evidence.by_class[3] == min(evidence.by_class)
    assert evidence.target == TARGET


def test_success_is_measured_on_all_of_a_test_part_however_few_images_are_scanned():
    evidence = diagnosed("haze", replace(bands(each=2), test=bands(each=8)))
    assert evidence.trigger.held_out == 8 * (CLASSES - 1)


def test_one_image_is_too_few():
    with pytest.raises(AgnesError, match="one per class"):
        diagnosed("neither", bands().subset([0]))


def test_patterns_are_for_images_of_any_channels():
    evidence = Haze(steps=2).diagnose(grey_network(), grey_bands(), backend())
    assert Haze().suits(grey_network())
    assert evidence.trigger.delta.shape == (1, 20, 20)


@pytest.mark.parametrize(("name", "value"), [("bound", 0.0), ("steps", 0), ("batch", 0), ("share", 1.0)])
def test_a_setting_out_of_range_is_refused(name, value):
    with pytest.raises(UsageError, match=rf"haze\.{name}"):
        Haze(**{name: value})
