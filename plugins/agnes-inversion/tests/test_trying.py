"""Promises of trying many changes: scored as plain loops would, however they are cut, whatever counts for no class."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import slow_trying
import torch
from agnes_inversion.haze import Haze
from agnes_inversion.stamps import Stamps
from agnes_inversion.tints import Tints
from agnes_inversion.trying import Family, Sight, Trying, _shares, seen_under
from agnes_inversion.waves import Waves
from planted_corner import backend
from torch import nn

from agnes.differentiating import logits_of
from agnes.errors import OutOfTime, UsageError
from agnes.network import Network
from agnes.results import Evidence, MaskTrigger
from agnes.samples import Samples

SHAPE, CLASSES, COUNT = (3, 4, 4), 4, 48
COLOURS = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]


class Dots(Family):
    """One pixel in one of three colours; those at one place are alike."""

    def __init__(self, count: int = COUNT, barred: Sequence[tuple[int, int]] = ()) -> None:
        self.groups = [number // 3 for number in range(count)]
        self.barred = barred

    def changed(self, numbers: Sequence[int], images: torch.Tensor) -> torch.Tensor:
        return torch.stack([dotted(number, images) for number in numbers])

    def trigger(self, number: int, target: int) -> MaskTrigger:
        mask = dotted(number, torch.zeros(1, *SHAPE))[0]
        return MaskTrigger(target=target, asr=0.0, held_out=0, mask=mask.amax(0, keepdim=True), pattern=mask)

    def described(self, number: int) -> str:
        return f"dot {number}"

    def natural(self, known: Samples, class_count: int) -> torch.Tensor | None:
        if not self.barred:
            return None
        where = torch.zeros(len(self), class_count, dtype=torch.bool)
        for number, label in self.barred:
            where[number, label] = True
        return where


@dataclass(frozen=True)
class TryDots(Trying):
    """Try dots."""

    what: ClassVar[str] = "dot"
    count: int = COUNT  # dots
    barred: tuple[tuple[int, int], ...] = ()  # dots and classes that they do not count for

    def family(self, network: Network, known: Samples) -> Dots:
        return Dots(self.count, self.barred)


def dotted(number: int, images: torch.Tensor) -> torch.Tensor:
    changed = images.clone()
    row, column = divmod(number // 3, 4)
    changed[:, :, row, column] = torch.tensor(COLOURS[number % 3])
    return changed


@pytest.fixture(scope="module")
def network():
    """A small network of random weights, for which each dot does something and each class is as likely."""
    module, draw = nn.Sequential(nn.Flatten(), nn.Linear(48, 12), nn.ReLU(), nn.Linear(12, CLASSES)), torch.Generator()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw.manual_seed(len(parameter))))
        module[3].bias -= module(torch.rand(500, *SHAPE, generator=draw)).mean(0)
    return Network.of(module.eval(), SHAPE)


@pytest.fixture(scope="module")
def known(network):
    """Two images that the network calls each class, and three that it calls another."""
    images = torch.rand(200, *SHAPE, generator=torch.Generator().manual_seed(0))
    called = network(images).argmax(1)
    places = [place for label in range(CLASSES) for place in (called == label).nonzero()[:2, 0].tolist()]
    labels = [*called[places].tolist(), *((called[-3:] + 1) % CLASSES).tolist()]
    return Samples(torch.cat([images[places], images[-3:]]), torch.tensor(labels))


@pytest.fixture(scope="module")
def sight(network, known):
    return Sight.of(network, known, backend())


def drawn(known, count):
    """The images that are drawn to try all dots on."""
    order = torch.randperm(len(known), generator=backend().generator("trydots images", device="cpu"))
    return known.subset(order[:count].tolist())


@pytest.mark.parametrize("share", [0.0, 0.5, 0.75, 1.0])
def test_each_change_gets_what_a_share_of_its_group_lies_below(share):
    values = torch.rand(40, generator=torch.Generator().manual_seed(0))
    groups = [("even" if number % 2 == 0 else number % 3) for number in range(40)]
    alike = [[float(values[other]) for other in range(40) if groups[other] == group] for group in groups]
    expected = [slow_trying.below(share, each) for each in alike]
    assert _shares(values, groups, share).tolist() == pytest.approx(expected)
    if share == 0.5:
        assert expected == [statistics.median_low(each) for each in alike]


def test_what_is_led_to_each_class_and_what_is_kept_is_that_of_a_plain_loop(network, known, sight):
    found = sight.under(Dots(), range(COUNT), sight.to_classes)
    assert found.shape == (COUNT, CLASSES + 1)
    assert sight.unit == pytest.approx(slow_trying.unit_of(network, known), rel=1e-5)
    for number in range(COUNT):
        to_each, kept = slow_trying.led(network, dotted(number, known.images), known.labels, sight.unit)
        assert found[number].tolist() == pytest.approx([*to_each, kept], abs=1e-4)


def test_very_far_counts_as_far_and_very_near_counts_by_its_logarithm(sight):
    two = replace(sight, images=sight.images[:2], labels=torch.tensor([0, 1]))
    margins = torch.tensor([[[2.0, -9.0, 0.5, -1.0], [-0.5, 4.0, 1.0, -20.0]]])
    to_each = [-0.5, -1.5, (math.log(1.5) + math.log(2)) / 2, (-1 - 1.5) / 2]
    assert two.to_classes(margins)[0].tolist() == pytest.approx([*to_each, 1.0])


def test_a_class_that_all_images_belong_to_is_led_to_by_nothing(sight):
    alone = replace(sight, labels=torch.full_like(sight.labels, 3))
    found = alone.under(Dots(), range(COUNT), alone.to_classes)
    assert found[:, 3].tolist() == [0.0] * COUNT
    assert bool((found[:, :3] != 0).all())


@pytest.mark.parametrize("at_once", [1, 25, 10**6])
@pytest.mark.parametrize("memory", [1, 1 << 27])
def test_however_the_work_is_cut_each_change_has_its_own_row(network, known, monkeypatch, at_once, memory):
    monkeypatch.setattr("agnes_inversion.trying._AT_ONCE_ON_CPU", at_once)
    numbers = [7, 3, 3, 40, 0, 12]

    def part(start, stop):
        return Dots().changed(numbers[start:stop], known.images)

    logits = logits_of(network)
    found = seen_under(part, len(numbers), logits, len(known), lambda seen: seen, backend(memory=memory))
    assert found.shape == (6, 11, CLASSES)
    for row, number in zip(found, numbers, strict=True):
        torch.testing.assert_close(row, network(dotted(number, known.images)))


def test_no_gradients_are_kept_and_images_stay_as_they_were(known, sight):
    before = known.images.clone()
    found = sight.under(Dots(), range(COUNT), sight.to_classes)
    assert found.requires_grad is False
    assert torch.equal(known.images, before)


def test_a_few_are_different_images_with_their_own_labels(known, sight):
    few = sight.few(5, "a few")
    places = [next(i for i, image in enumerate(known.images) if torch.equal(image, one)) for one in few.images]
    assert len(set(places)) == 5
    assert few.labels.tolist() == known.labels[places].tolist()
    assert few.unit == sight.unit
    assert torch.equal(sight.few(5, "a few").images, few.images)
    assert len(sight.few(99, "a few").labels) == len(known)


@pytest.mark.parametrize(("spared", "milder"), [(0.0, 0.5), (1.0, 0.5), (1.0, 1.0)])
@pytest.mark.parametrize(("images", "best"), [(5, 1), (5, 4), (11, 2)])
def test_the_evidence_is_that_of_a_plain_search(network, known, images, best, spared, milder):
    method = TryDots(images=images, best=best, spared=spared, milder=milder)
    (evidence,) = method.diagnose(network, known, backend())
    few, groups = drawn(known, images), Dots().groups
    assert len(set(few.labels.tolist())) > 1  # or every change would lead as far
    expected = slow_trying.by_class(network, known, dotted, groups, spared, few=few, best=best, milder=milder)
    assert evidence.by_class == pytest.approx(expected, abs=1e-4)
    assert evidence.score == max(evidence.by_class) == evidence.by_class[evidence.target]
    assert sorted((evidence.score, *evidence.null)) == sorted(evidence.by_class)


@pytest.mark.parametrize(("looks", "count"), [(0, 11), (11, 11), (12, 22), (40, 44)])
def test_few_images_are_looked_at_in_several_views_each_with_its_label(known, sight, looks, count):
    seen = sight.with_views(looks, "views")
    assert len(seen.images) == len(seen.labels) == count
    assert torch.equal(seen.images[:11], known.images)
    assert seen.labels.tolist() == known.labels.tolist() * (count // 11)
    assert len(seen.images.unique(dim=0)) == count
    assert torch.equal(sight.with_views(looks, "views").images, seen.images)


def test_the_best_are_tried_on_the_views(network, known, sight):
    (evidence,) = TryDots(images=5, looks=40).diagnose(network, known, backend())
    seen = sight.with_views(40, "trydots views")
    looks = Samples(seen.images, seen.labels)
    groups = Dots().groups
    expected = slow_trying.by_class(network, known, dotted, groups, 0.0, few=drawn(known, 5), best=5, looks=looks)
    assert evidence.by_class == pytest.approx(expected, abs=1e-4)
    on_images_alone = slow_trying.by_class(network, known, dotted, groups, 0.0, few=drawn(known, 5), best=5)
    assert evidence.by_class != pytest.approx(on_images_alone, abs=0.05)


@pytest.mark.parametrize(("images", "seed"), [(2, 1), (2, 2), (8, 1), (11, 0)])  # at 2, 2 few images prefer another
def test_the_trigger_is_the_change_that_the_score_is_of(network, known, images, seed):
    (evidence,) = TryDots(images=images).diagnose(network, known, backend(seed=seed))
    number = int(evidence.note.rsplit(" ", 1)[1])
    images = dotted(number, known.images)
    assert torch.equal(evidence.trigger.apply(known.images), images)
    to_each, _ = slow_trying.led(network, images, known.labels, slow_trying.unit_of(network, known))
    assert evidence.score == pytest.approx(to_each[evidence.target], abs=1e-4)
    others = known.labels != evidence.target
    taken = network(images[others]).argmax(1) == evidence.target
    assert (evidence.trigger.asr, evidence.trigger.held_out) == (pytest.approx(float(taken.float().mean())), len(taken))
    assert evidence.trigger.target == evidence.target


@pytest.mark.parametrize("count", [1, 3])
def test_a_family_of_fewer_changes_than_are_tried_again_is_tried_whole(network, known, count):
    (evidence,) = TryDots(best=50, count=count, images=4).diagnose(network, known, backend())
    groups = Dots(count).groups
    expected = slow_trying.by_class(network, known, dotted, groups, 0.0, few=drawn(known, 4))
    assert evidence.by_class == pytest.approx(expected, abs=1e-4)


def test_what_is_natural_for_a_class_does_not_count_for_it_and_counts_for_the_others(network, known):
    freely = TryDots(images=11).diagnose(network, known, backend())[0]
    number = int(freely.note.rsplit(" ", 1)[1])
    barred = ((number, freely.target), *((dot, 1) for dot in range(0, COUNT, 2)))
    (evidence,) = TryDots(images=11, barred=barred).diagnose(network, known, backend())

    def natural(number, label):
        return (number, label) in barred

    expected = slow_trying.by_class(network, known, dotted, Dots().groups, 0.0, natural)
    assert evidence.by_class == pytest.approx(expected, abs=1e-4)
    assert evidence.by_class[freely.target] < freely.score


@pytest.mark.parametrize("spared", [0.0, 1.0])
def test_a_class_for_which_every_change_is_natural_is_as_far_as_can_be(network, known, spared):
    barred = tuple((number, 2) for number in range(COUNT))
    (evidence,) = TryDots(spared=spared, barred=barred).diagnose(network, known, backend())
    assert evidence.by_class[2] == min(evidence.by_class) == -1.5 - 2 * spared
    assert evidence.target != 2


def test_once_the_time_is_spent_no_more_is_tried(network, known):
    with pytest.raises(OutOfTime):
        TryDots().diagnose(network, known, backend(time_budget=0.0))


@pytest.mark.parametrize(
    ("name", "value"), [("images", 1), ("best", 0), ("looks", -1), ("spared", -0.1), ("milder", -0.1), ("milder", 1.1)]
)
def test_a_setting_out_of_range_is_refused_by_the_method_s_name(name, value):
    with pytest.raises(UsageError, match=rf"trydots\.{name}"):
        TryDots(**{name: value})


class Rows(nn.Module):
    """A class is the brightness of one row: nothing is planted."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale * images[:, :, : self.classes].mean((1, 3))


def rows_of(classes, labels):
    images = 0.25 + 0.1 * torch.rand(len(labels), 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images[torch.arange(len(labels)), :, labels] = 0.9
    return Network.of(Rows(classes), (3, 16, 16)), Samples(images, labels, source="rows")


@pytest.mark.parametrize("method", [Tints(), Waves(), Stamps(), Haze(steps=5)], ids=lambda m: type(m).__name__)
def test_images_of_one_class_do_not_make_that_class_stand_out(method):
    network, known = rows_of(10, torch.full((6,), 4))
    found = method.diagnose(network, known, backend())
    for evidence in [found] if isinstance(found, Evidence) else found:
        if evidence.by_class:
            assert evidence.target != 4
            assert evidence.by_class[4] == min(evidence.by_class)
            assert evidence.trigger.held_out > 0
