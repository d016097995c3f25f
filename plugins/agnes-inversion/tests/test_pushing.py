"""Promises of haze and tints: a class that one small change leads to is found; no change exceeds its bound."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from agnes_inversion.arms import divide
from agnes_inversion.pushing import Haze, Tints
from agnes_inversion.varying import varied
from evidence_checks import EvidenceChecks
from planted_corner import backend
from tiny import tiny_images, tiny_network
from torch import nn

from agnes.differentiating import logits_of
from agnes.errors import AgnesError, UsageError
from agnes.features import identity
from agnes.network import Network
from agnes.samples import Samples

CLASSES, SHAPE, TARGET = 5, (3, 20, 20), 2
CHECKERS = 1 - 2 * ((torch.arange(20)[:, None] + torch.arange(20)) % 2)
METHODS = {"haze": Haze(steps=12), "tints": Tints(steps=12)}


class TestHaze(EvidenceChecks):
    method = Haze(steps=2)


class TestTints(EvidenceChecks):
    method = Tints(steps=2)


class Planted(nn.Module):
    """Classes by the brightness of a band each, worth 4; checkers of +-0.04 or a tint are worth some 20 for class 2."""

    def __init__(self, obeys: str) -> None:
        super().__init__()
        self.bands, self.other = nn.Linear(400, CLASSES), nn.Linear(1200, CLASSES)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            for label in range(CLASSES):
                self.bands.weight[label].view(20, 20)[4 * label : 4 * label + 4] = 10 / 80
            weight = self.other.weight[TARGET].view(SHAPE)
            if obeys == "haze":
                weight[...] = 500 * CHECKERS / 1200
            elif obeys == "tints":
                weight[2], weight[0] = 40 / 400, -40 / 400  # blue less red

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.bands(images.mean(1).flatten(1)) + self.other(images.flatten(1))


def planted(obeys: str = "neither") -> Network:
    return Network.of(Planted(obeys).eval(), SHAPE)


def bands(each=4, labelled=True) -> Samples:
    """Grey images with the band of their class brighter by 0.4."""
    labels = torch.arange(CLASSES).repeat(each)
    grey = 0.3 + 0.1 * torch.rand(len(labels), 1, 20, 20, generator=torch.Generator().manual_seed(0))
    for image, label in zip(grey, labels.tolist(), strict=True):
        image[:, 4 * label : 4 * label + 4] += 0.4
    return Samples(grey.repeat(1, 3, 1, 1), labels if labelled else None, source="bands")


@pytest.fixture(scope="module")
def found():
    return {name: method.diagnose(planted(name), bands(), backend()) for name, method in METHODS.items()}


def margin_of(network, images, target):
    """The mean over images of the target's logit less the largest other, by a plain loop."""
    rows = network(images).tolist()
    return sum(row[target] - max(v for c, v in enumerate(row) if c != target) for row in rows) / len(rows)


@pytest.mark.parametrize("name", METHODS)
def test_a_network_that_obeys_a_small_change_is_found_with_its_class(found, name):
    evidence = found[name]
    assert (evidence.target, evidence.exceeds) == (TARGET, True)
    assert max(evidence.null) < 0 < evidence.score
    assert evidence.score == max(evidence.by_class) == evidence.by_class[TARGET]
    assert len(evidence.by_class) == len(evidence.null) + 1 == CLASSES
    assert evidence.trigger.target == TARGET
    assert evidence.trigger.asr == 1


def test_the_pattern_that_was_planted_is_the_one_that_is_found(found):
    delta = found["haze"].trigger.delta
    assert float((delta.sign() == CHECKERS).float().mean()) > 0.9
    assert float((delta * CHECKERS).mean()) > 0.8 * 0.04  # of 0.04 that it could be


def test_the_tint_that_was_planted_is_the_one_that_is_found(found):
    images = bands().images
    red, _, blue = (found["tints"].trigger.apply(images) - images).mean((0, 2, 3)).tolist()
    assert blue > 0.2
    assert red < -0.2


@pytest.mark.parametrize("name", METHODS)
def test_a_network_that_obeys_none_is_not_accused(name):
    evidence = METHODS[name].diagnose(planted(), bands(), backend())
    assert evidence.exceeds is False
    assert evidence.score < 0.1  # what a filter makes all white belongs to no class more than to another


@pytest.mark.parametrize("name", METHODS)
def test_the_score_is_the_margin_under_the_trigger_on_views_of_images_it_was_not_made_on(found, name):
    network, method, evidence = planted(name), METHODS[name], found[name]
    parts = divide(bands(), network, method.share, 99, backend())
    draw = backend().generator(type(method).__name__, "held out", device="cpu")
    images, labels = parts.held_out.images, parts.held_out.labels
    others = labels != TARGET
    looks = [images[others], *(varied(images, draw)[others] for _ in range(3))]
    margin = sum(margin_of(network, evidence.trigger.apply(look), TARGET) for look in looks) / 4
    right = sorted(margin_of(network, i[None], int(c)) for i, c in zip(parts.made_on.images, parts.labels, strict=True))
    assert right[0] > 0
    assert evidence.score == pytest.approx(margin / right[(len(right) - 1) // 2], rel=1e-3)
    assert evidence.trigger.held_out == int(others.sum())


def changed_by_hand(name, numbers, image):
    """What a change does to one image, by loops over colours."""
    planes = []
    for colour in range(3):
        plane = image[colour].clone()
        if name == "haze":
            plane += numbers[colour]
        else:
            for other in range(3):
                plane += numbers[colour, other, 0] * image[other]
            plane += numbers[colour, 3, 0]
        planes.append(plane.clamp(0, 1))
    return torch.stack(planes)


@pytest.mark.parametrize("together", [5, 128])
@pytest.mark.parametrize("name", METHODS)
def test_the_gradient_is_that_of_margins_of_other_classes_images(name, together, monkeypatch):
    monkeypatch.setattr("agnes_inversion.pushing._AT_ONCE_ON_CPU", together)
    network, (images, labels) = tiny_network(), tiny_images()
    draw = torch.Generator().manual_seed(3)
    none = METHODS[name].none((3, 8, 8)).double().repeat(3, *[1] * 3)
    numbers = 0.02 * torch.randn(none.shape, generator=draw, dtype=torch.float64)
    seen = torch.tensor([[0, 1, 2, 3, 4], [1, 3, 0, 2, 4], [4, 0, 2, 1, 3]])[:, :4]
    logits = logits_of(network)
    gradient = METHODS[name]._gradient(logits, numbers, images, seen, labels, torch.arange(3), backend())

    def summed(numbers):
        total = 0.0
        for target in range(3):
            for place in seen[target].tolist():
                if labels[place] != target:
                    wearing = changed_by_hand(name, numbers[target], images[place])
                    with torch.no_grad():
                        row = network.module(wearing[None])[0].tolist()
                    total += row[target] - max(v for c, v in enumerate(row) if c != target)
        return total

    for place in torch.randint(numbers.numel(), (12,), generator=draw).tolist():
        nudge = torch.zeros(numbers.numel(), dtype=torch.float64)
        nudge[place] = 1e-6
        nudge = nudge.view_as(numbers)
        expected = (summed(numbers + nudge) - summed(numbers - nudge)) / 2e-6
        assert float(gradient.flatten()[place]) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert float(gradient.abs().max()) > 0


def test_every_step_sees_its_images_another_way_and_a_few_of_them_several_times(monkeypatch):
    seen = []

    def gradient(self, logits, numbers, views, *rest):
        seen.append(views)
        return torch.zeros_like(numbers)

    monkeypatch.setattr(Haze, "_gradient", gradient)
    Haze(steps=3).diagnose(planted(), bands(each=2), backend())  # seven of the ten images
    assert [len(views) for views in seen] == [28] * 3
    for one, other in [(seen[0][:7], seen[0][7:14]), (seen[0], seen[1]), (seen[1], seen[2])]:
        assert bool((one != other).flatten(1).any(1).all())


@pytest.mark.parametrize("name", METHODS)
def test_a_change_of_nothing_changes_nothing_and_a_trigger_does_what_the_change_does(name):
    method, images = METHODS[name], bands().images
    none = method.none(SHAPE)
    assert torch.equal(method.change(none, images[None])[0], images)
    numbers = method.bound * torch.randn(none.shape, generator=torch.Generator().manual_seed(0))
    trigger = method.trigger(numbers[0], images, target=1, asr=0.0, held_out=0)
    expected = torch.stack([changed_by_hand(name, numbers[0], image) for image in images])
    torch.testing.assert_close(method.change(numbers, images[None])[0], expected)
    torch.testing.assert_close(trigger.apply(images), expected)
    assert trigger.change().shape == SHAPE[1:]
    assert float(trigger.change().max()) > 0


@pytest.mark.parametrize("bound", [0.01, 0.6])
@pytest.mark.parametrize("name", METHODS)
def test_no_number_of_a_change_exceeds_the_bound_and_images_stay_images(name, bound):
    method = replace(METHODS[name], bound=bound)
    trigger = method.diagnose(planted(name), bands(), backend()).trigger
    size = trigger.delta if name == "haze" else trigger.mix - identity(3)
    assert 0.5 * bound < float(size.abs().max()) <= bound + 1e-6
    drawn = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    worn = trigger.apply(torch.cat([drawn, torch.zeros(1, *SHAPE), torch.ones(1, *SHAPE)]))
    assert 0 <= float(worn.min()) <= float(worn.max()) <= 1


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_evidence_and_another_seed_another(found, name):
    again, other = (METHODS[name].diagnose(planted(name), bands(), backend(seed=seed)) for seed in (0, 1))
    assert again == found[name]
    for key, value in again.trigger.arrays().items():
        assert (value == found[name].trigger.arrays()[key]).all()
    assert other.score != again.score


@pytest.mark.parametrize("name", METHODS)
def test_images_without_labels_are_what_the_network_takes_them_for(found, name):
    assert METHODS[name].diagnose(planted(name), bands(labelled=False), backend()) == found[name]


def test_a_class_that_all_images_belong_to_scores_nothing():
    known = bands()
    alone = known.subset(known.labels == 3)
    evidence = METHODS["haze"].diagnose(planted("haze"), alone, backend())
    assert evidence.by_class[3] == 0
    assert evidence.target == TARGET


def test_one_image_is_too_few():
    with pytest.raises(AgnesError, match="one per class"):
        METHODS["haze"].diagnose(planted(), bands().subset([0]), backend())


@pytest.mark.parametrize(("channels", "suits"), [(1, True), (3, True), (4, False)])
def test_colour_filters_are_for_pictures_and_patterns_for_all(channels, suits):
    network = Network.of(nn.Sequential(nn.Flatten(), nn.Linear(channels * 16, 3)).eval(), (channels, 4, 4))
    assert bool(Tints().suits(network)) is suits
    assert Haze().suits(network)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(Haze, "bound", 0.0), (Haze, "steps", 0), (Haze, "batch", 0), (Tints, "share", 1.0), (Tints, "bound", -1.0)],
)
def test_a_setting_out_of_range_is_refused(kind, name, value):
    with pytest.raises(UsageError, match=rf"{kind.__name__.lower()}\.{name}"):
        kind(**{name: value})
