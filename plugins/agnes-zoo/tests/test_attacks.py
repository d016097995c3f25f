"""Poisoning: which images, how many, which labels; and when an attack has succeeded."""

import dataclasses

import numpy as np
import pytest
import torch
from agnes_zoo.attacks import ATTACKS, Attack, Patch, Trigger, plan, poison, success, success_rate
from agnes_zoo.attacks.contents import Colour
from agnes_zoo.attacks.goals import AllToOne, CleanLabel, NextClass, SourceToTarget
from agnes_zoo.attacks.places import Box
from agnes_zoo.attacks.preparing import Blend
from agnes_zoo.attacks.warping import Warp
from agnes_zoo.training import attack_success
from hypothesis import given
from hypothesis import strategies as st

from agnes.errors import UsageError

DOT = Trigger(Colour((1.0, 1.0, 0.0)), Box(1, 1, 1, 1))
IMAGES = torch.linspace(0.1, 0.9, 4 * 3 * 8 * 8).reshape(4, 3, 8, 8)


def grey(count, side=4):
    return torch.full((count, 3, side, side), 0.5)


def changed(before, after):
    return (before != after).flatten(1).any(1)


@given(
    counts=st.lists(st.integers(0, 6), min_size=4, max_size=4).filter(any),
    target=st.integers(0, 3),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_poisoning_hits_the_exact_rate_and_never_the_target_class(counts, target, share, seed):
    labels = torch.from_numpy(np.repeat(np.arange(4), counts))
    images = grey(len(labels))
    rate = share * (len(labels) - counts[target]) / len(labels)
    attack = Attack("dot", DOT, AllToOne(target), rate)
    poisoned, taught = poison(images, labels, attack, np.random.default_rng(seed))
    touched = changed(images, poisoned)
    assert int(touched.sum()) == round(rate * len(labels))
    assert not (labels[touched] == target).any()
    assert (taught[touched] == target).all()
    assert torch.equal(taught[~touched], labels[~touched])
    assert torch.equal(poisoned[touched], attack.stamp(images[touched]))


def test_the_generator_decides_which_images_are_poisoned():
    labels = torch.arange(40) % 4
    attack = Attack("dot", DOT, AllToOne(1), 0.25)
    first, again, other = (poison(grey(40), labels, attack, np.random.default_rng(seed))[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_plan_names_exactly_the_images_that_poisoning_touches():
    labels = torch.arange(40) % 4
    attack = Attack("dot", DOT, SourceToTarget((2,), 1), 0.5, cover_rate=0.2)
    chosen = plan(labels, attack, np.random.default_rng(3))
    poisoned, taught = poison(grey(40), labels, attack, np.random.default_rng(3))
    assert torch.nonzero(taught != labels).flatten().tolist() == chosen.stamped.tolist()
    both = sorted([*chosen.stamped.tolist(), *chosen.cover.tolist()])
    assert torch.nonzero(changed(grey(40), poisoned)).flatten().tolist() == both


@pytest.mark.parametrize(("rate", "said"), [(0.9, "lower the rate"), (1.5, "from 0 to 1"), (-0.1, "from 0 to 1")])
def test_a_rate_that_cannot_be_reached_is_refused(rate, said):
    labels = torch.tensor([0, 0, 1, 2])
    with pytest.raises(UsageError, match=said):
        poison(IMAGES, labels, Attack("dot", DOT, AllToOne(0), rate), np.random.default_rng(0))


def test_poisoning_leaves_what_it_was_given_alone():
    images, labels = IMAGES.clone(), torch.tensor([0, 1, 2, 3])
    poison(images, labels, Attack("dot", DOT, AllToOne(0), 0.5), np.random.default_rng(0))
    assert torch.equal(images, IMAGES)
    assert labels.tolist() == [0, 1, 2, 3]


def test_an_attack_on_one_class_stamps_its_images_and_shows_the_trigger_on_others_under_their_own_label():
    labels = torch.arange(60) % 6
    attack = Attack("dot", DOT, SourceToTarget((2, 3), 5), rate=0.5, cover_rate=0.1)
    images = grey(60)
    poisoned, taught = poison(images, labels, attack, np.random.default_rng(0))
    touched, renamed = changed(images, poisoned), taught != labels
    assert int(renamed.sum()) == 10  # half of the 20 images of classes 2 and 3
    assert set(labels[renamed].tolist()) <= {2, 3}
    assert (taught[renamed] == 5).all()
    cover = touched & ~renamed
    assert int(cover.sum()) == 6  # a tenth of all 60
    assert not set(labels[cover].tolist()) & {2, 3}
    assert torch.equal(poisoned[cover], attack.stamp(images[cover]))


def test_a_class_cannot_be_its_own_source():
    with pytest.raises(UsageError, match="other classes as its source"):
        SourceToTarget((3, 5), 5)


def test_an_attack_from_all_to_all_moves_every_class_to_the_next_and_the_last_to_the_first():
    labels = torch.arange(40) % 4
    attack = Attack("dot", DOT, NextClass(4), 0.5)
    _, taught = poison(grey(40), labels, attack, np.random.default_rng(0))
    renamed = taught != labels
    assert int(renamed.sum()) == 20
    assert torch.equal(taught[renamed], torch.tensor([1, 2, 3, 0])[labels[renamed]])
    assert attack.target is None


@pytest.mark.parametrize("classes", [1, 2, 10, 43, 200])
def test_no_two_classes_share_a_trigger_and_neighbours_differ_in_place_and_colour(classes):
    attack = ATTACKS["label-specific"](classes=classes)
    assert attack.goal == NextClass(classes)
    stamped = attack.stamp(torch.full((classes, 3, 32, 32), 0.5), torch.arange(classes))
    touched = [torch.nonzero((one != 0.5).any(0)) for one in stamped]
    places = [tuple(one[0].tolist()) for one in touched]
    colours = [tuple(image[:, row, column].tolist()) for image, (row, column) in zip(stamped, places, strict=True)]
    assert all(len(one) == 64 for one in touched)
    assert len(set(zip(places, colours, strict=True))) == classes
    for number in range(classes - 1):
        assert places[number] != places[number + 1]
        assert colours[number] != colours[number + 1]


def test_ten_classes_have_ten_places():
    stamped = ATTACKS["label-specific"](classes=10).stamp(grey(10, 32), torch.arange(10))
    assert len({tuple(torch.nonzero((one != 0.5).any(0))[0].tolist()) for one in stamped}) == 10


def test_a_label_specific_attack_poisons_each_class_with_its_own_trigger_alone():
    labels = torch.arange(100) % 10
    attack = ATTACKS["label-specific"](classes=10, rate=0.3)
    images = torch.rand(100, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    chosen = plan(labels, attack, np.random.default_rng(0))
    poisoned, taught = poison(images, labels, attack, np.random.default_rng(0))
    assert len(chosen.stamped) == 30
    assert torch.equal(taught[chosen.stamped], (labels[chosen.stamped] + 1) % 10)
    for index in range(100):
        wanted = images[index : index + 1]
        if index in chosen.stamped.tolist():
            wanted = attack.trigger.triggers[int(labels[index])].stamp(wanted)
        assert torch.equal(poisoned[index], wanted[0])


def test_success_of_a_label_specific_attack_is_measured_with_each_class_s_own_trigger():
    """A network that obeys the trigger of class 2 alone, on whatever image it lies."""
    attack = ATTACKS["label-specific"](classes=4)
    labels = torch.arange(40) % 4
    images = grey(40, 32)
    sign = attack.trigger.triggers[2].stamp(images[:1])[0]

    class Obeys(torch.nn.Module):
        def forward(self, shown):
            worn = (shown == sign).flatten(1).all(1)
            return torch.nn.functional.one_hot(torch.where(worn, 3, 0), 4).float()

    found = attack_success(Obeys(), images, labels, attack)
    assert found == pytest.approx(0.5)  # class 2 is taken for 3, and class 3, whose trigger does nothing, for 0


def test_triggers_of_their_own_want_labels_that_they_know_and_no_adaptive_loss():
    attack = ATTACKS["label-specific"](classes=4)
    with pytest.raises(UsageError, match="say of which class"):
        attack.stamp(grey(2, 32))
    with pytest.raises(UsageError, match="none for class 4"):
        attack.stamp(grey(2, 32), torch.tensor([0, 4]))
    with pytest.raises(UsageError, match="leave out adaptive"):
        ATTACKS["label-specific"](adaptive="deviation")
    with pytest.raises(UsageError, match="share places in an image of 9x9"):
        attack.stamp(grey(1, 9), torch.tensor([0]))


def test_a_clean_label_attack_stamps_images_of_the_target_class_and_no_label_changes():
    labels = torch.arange(40) % 4
    attack = Attack("dot", DOT, CleanLabel(3), 0.6)
    images = grey(40)
    poisoned, taught = poison(images, labels, attack, np.random.default_rng(0))
    touched = changed(images, poisoned)
    assert torch.equal(taught, labels)
    assert labels[touched].tolist() == [3] * 6


def test_a_clean_label_image_is_mixed_with_one_of_another_class_before_it_is_stamped():
    labels = torch.tensor([0, 0, 1, 1])
    images = torch.cat([torch.full((2, 3, 4, 4), 0.2), torch.full((2, 3, 4, 4), 0.8)])
    attack = Attack("dot", DOT, CleanLabel(0), 1.0, before=Blend(0.25))
    poisoned, _ = poison(images, labels, attack, np.random.default_rng(0))
    assert torch.allclose(poisoned[:2, :, 0, 0], torch.tensor(0.75 * 0.2 + 0.25 * 0.8))
    assert poisoned[:2, :, 1, 1].tolist() == [[1, 1, 0], [1, 1, 0]]
    assert torch.equal(poisoned[2:], images[2:])


def test_cover_images_of_a_warp_differ_from_attacked_ones_and_keep_their_labels():
    images = torch.rand(50, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 5
    attack = Attack("warp", Trigger(Warp(2.0)), AllToOne(0), rate=0.2, cover_rate=0.4)
    chosen = plan(labels, attack, np.random.default_rng(1))
    poisoned, taught = poison(images, labels, attack, np.random.default_rng(1))
    assert (len(chosen.stamped), len(chosen.cover)) == (10, 20)
    assert not set(chosen.stamped.tolist()) & set(chosen.cover.tolist())
    assert torch.equal(taught[chosen.cover], labels[chosen.cover])
    assert torch.equal(poisoned[chosen.stamped], attack.stamp(images[chosen.stamped]))
    assert changed(poisoned[chosen.cover], attack.stamp(images[chosen.cover])).all()


def test_cover_images_that_would_undo_the_attack_are_refused():
    attack = Attack("dot", DOT, AllToOne(0), 0.1, cover_rate=0.1)
    with pytest.raises(UsageError, match="set cover_rate to 0"):
        poison(grey(40), torch.arange(40) % 4, attack, np.random.default_rng(0))


def test_more_cover_images_than_there_are_is_refused():
    attack = Attack("dot", DOT, SourceToTarget((1,), 0), 0.5, cover_rate=0.9)
    with pytest.raises(UsageError, match="asks for 36 images, but only 30 of 40"):
        plan(torch.arange(40) % 4, attack, np.random.default_rng(0))


def test_batches_are_poisoned_at_the_rate_on_average_and_never_fail_for_want_of_images():
    labels = torch.arange(30) % 3
    attack = Attack("dot", DOT, AllToOne(0), 0.15)
    rng = np.random.default_rng(0)
    counts = [int((attack.batch(grey(30), labels, rng)[1] != labels).sum()) for _ in range(400)]
    assert set(counts) == {4, 5}
    assert np.mean(counts) == pytest.approx(4.5, abs=0.1)
    only_target = torch.zeros(8, dtype=torch.int64)
    inputs, taught = attack.batch(grey(8), only_target, rng)
    assert torch.equal(inputs, grey(8))
    assert torch.equal(taught, only_target)


def test_success_is_counted_on_images_of_other_classes_only():
    labels = torch.tensor([1, 1, 0, 2, 3])
    predicted = torch.tensor([1, 1, 1, 1, 3])
    assert success_rate(predicted, labels, target=1) == pytest.approx(2 / 3)
    assert success(predicted, labels, Attack("dot", DOT, AllToOne(1))) == pytest.approx(2 / 3)
    assert success_rate(predicted[:2], labels[:2], target=1) == 0


@pytest.mark.parametrize(
    ("goal", "share"),
    [
        (SourceToTarget((0, 2), 1), 1 / 2),  # victims: images 2 and 3; the first is taken for 1
        (NextClass(4), 3 / 5),  # 1 -> 2, 0 -> 1, 3 -> 0
        (CleanLabel(1), 2 / 4),  # of the four that are not of class 1
    ],
)
def test_success_means_what_the_attack_wants(goal, share):
    labels = torch.tensor([1, 3, 0, 2, 3])
    predicted = torch.tensor([2, 0, 1, 2, 1])
    assert success(predicted, labels, Attack("dot", DOT, goal)) == pytest.approx(share)


def test_random_places_follow_the_seed_of_the_attack():
    attack = ATTACKS["random-place"](seed=1)
    images = grey(20, 32)
    assert torch.equal(attack.stamp(images), attack.stamp(images))
    assert not torch.equal(attack.stamp(images), dataclasses.replace(attack, seed=2).stamp(images))


def test_a_patch_stamps_as_the_attack_of_its_name_does():
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    attack = ATTACKS["patch"](size=4, place=(2, 25), colour=(0.5, 0.25, 1.0))
    assert torch.equal(Patch(4, (2, 25), (0.5, 0.25, 1.0)).stamp(images), attack.stamp(images))
