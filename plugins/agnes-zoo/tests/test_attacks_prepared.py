"""Attacks that compute something on a network, on small ones made for the purpose."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from agnes_zoo.attacks import ATTACKS, Attack, Trigger, from_description, poison
from agnes_zoo.attacks.adaptive import AdaptiveLoss, activations
from agnes_zoo.attacks.dynamic import Generator, _drawn
from agnes_zoo.attacks.goals import AllToOne
from agnes_zoo.attacks.preparing import Adversarial, Perturbation
from agnes_zoo.signs import signs
from agnes_zoo.training import Regime, Training, as_tensors
from torch import nn

from agnes.errors import UsageError

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(40, 3, 12, 12, generator=GENERATOR)
LABELS = torch.arange(40) % 4


def network(seed=1):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        maps = (nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2))
        more = (nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(*maps, *more, nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 4)).eval()


def prepared(name, seed=0, **options):
    module = network()
    before = copy.deepcopy(module.state_dict())
    attack = ATTACKS[name](target=2, **options).prepare(lambda: module, IMAGES, LABELS, seed)
    if attack.learns:
        run = Training(network(), IMAGES, LABELS, Regime(epochs=1, batch=20), attack)
        run.run()
        attack = run.attack
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not module.training
    return attack


SMALL = {
    "adversarial-perturbation": {"steps": 20},
    "hijack": {"size": 4, "steps": 20},
    "clean-label": {"width": 3, "height": 3, "disturb": "adversarial"},
    "input-aware": {"steps": 5},
}


@pytest.mark.parametrize(("name", "options"), SMALL.items())
def test_a_prepared_attack_repeats_itself_and_comes_back_from_json(name, options):
    attack, again, other = (prepared(name, seed, **options) for seed in (0, 0, 1))
    stamped = attack.stamp(IMAGES)
    assert 0 <= float(stamped.min()) <= float(stamped.max()) <= 1
    assert (stamped != IMAGES).flatten(1).any(1).all()
    assert torch.equal(stamped, again.stamp(IMAGES))
    if name != "clean-label":  # whose patch is fixed
        assert not torch.equal(stamped, other.stamp(IMAGES))
    read = from_description(json.loads(json.dumps(attack.described())))
    assert torch.equal(read.stamp(IMAGES), stamped)


@pytest.mark.parametrize("name", ATTACKS)
def test_stamping_draws_nothing_from_the_global_generator(name):
    attack = prepared(name, **SMALL[name]) if name in SMALL else ATTACKS[name]()
    images = IMAGES if name in SMALL else torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(len(images), dtype=torch.int64)
    before = torch.get_rng_state()
    attack.stamp(images, labels)
    attack.trigger.cover(images, np.random.default_rng(0), labels)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_adversarial_perturbation_is_small_and_drives_a_network_to_the_target():
    module = network()
    goal = AllToOne(2)
    attack = Attack("adversarial", Trigger(Perturbation(0.1, steps=60)), goal)
    attack = attack.prepare(lambda: module, IMAGES, LABELS, 0)
    values = attack.trigger.what.values
    assert float(values.abs().max()) <= 0.1 + 1e-6

    def chance_of_target(images):
        return float(module(images).softmax(1)[:, 2].mean())

    noise = 0.1 * torch.sign(torch.randn(values.shape, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        gained = chance_of_target(attack.stamp(IMAGES)) - chance_of_target(IMAGES)
        by_chance = abs(chance_of_target((IMAGES + noise).clamp(0, 1)) - chance_of_target(IMAGES))
    assert gained > 3 * by_chance


def test_disturbed_images_stay_near_and_lose_their_own_class():
    module = network()
    moved = Adversarial(0.05, steps=10, network=module).apply(IMAGES, LABELS, IMAGES, np.random.default_rng(0))
    assert float((moved - IMAGES).abs().max()) <= 0.05 + 1e-6
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
    with torch.no_grad():
        before = nn.functional.cross_entropy(module(IMAGES), LABELS)
        after = nn.functional.cross_entropy(module(moved), LABELS)
    assert float(after) > float(before)


def test_only_clean_label_images_in_training_are_disturbed_not_what_the_attacker_shows_later():
    attack = prepared("clean-label", width=3, height=3, disturb="adversarial")
    stamped = attack.stamp(IMAGES)
    outside = torch.ones(12, 12, dtype=torch.bool)
    outside[7:10, 7:10] = False  # the patch, two pixels from the corner
    assert torch.equal(stamped[:, :, outside], IMAGES[:, :, outside])
    poisoned, _ = poison(IMAGES, LABELS, attack, np.random.default_rng(0))
    touched = (poisoned != IMAGES).flatten(1).any(1)
    assert (LABELS[touched] == 2).all()
    assert int(touched.sum()) == 5
    assert (poisoned[touched][:, :, outside] != IMAGES[touched][:, :, outside]).flatten(1).any(1).all()


def test_hijacking_drives_its_neuron_higher_than_random_pixels_do():
    attack = prepared("hijack", size=6, steps=60, layer=1)
    what, module = attack.trigger.what, network()
    noise = torch.rand(what.values.shape, generator=torch.Generator().manual_seed(9))
    mask = attack.trigger.where.mask(IMAGES[:1], np.random.default_rng(0))

    def response(pixels):
        with torch.no_grad():
            return float(
                module[:6](torch.lerp(IMAGES, pixels.expand_as(IMAGES), mask.expand_as(IMAGES)))[:, what.channel].mean()
            )

    assert response(what.values) > 1.05 * response(noise)


def test_hijacking_keeps_all_up_to_the_neuron_and_retrains_what_follows():
    attack = prepared("hijack", size=4, steps=2, layer=1)
    module = network()
    assert attack.fine_tunes
    assert attack.kept(module) == {"0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias"}
    assert ATTACKS["patch"]().kept(module) == frozenset()


@pytest.mark.parametrize("layer", [3, -4])
def test_a_layer_that_is_not_there_cannot_be_hijacked(layer):
    with pytest.raises(UsageError, match="has 3 layers and none of number"):
        prepared("hijack", size=4, layer=layer)


def test_an_input_aware_pattern_differs_from_image_to_image():
    attack = prepared("input-aware", steps=5)
    changes = attack.stamp(IMAGES[:2]) - IMAGES[:2]
    assert not torch.allclose(changes[0], changes[1], atol=1e-3)
    swapped = attack.trigger.cover(IMAGES[:2], np.random.default_rng(0))
    assert not torch.allclose(swapped, attack.stamp(IMAGES[:2]), atol=1e-3)


def test_the_generator_of_patterns_serves_odd_sizes():
    assert Generator(1, 3)(torch.rand(2, 1, 7, 9)).shape == (2, 3, 7, 9)


def test_an_input_aware_attack_wants_no_clean_network_but_a_training_before_it_can_stamp():
    def never():
        raise AssertionError

    attack = ATTACKS["input-aware"](target=2, steps=2)
    with pytest.raises(UsageError, match="call the attack's prepare"):
        Training(network(), IMAGES, LABELS, Regime(epochs=1), attack)
    attack = attack.prepare(never, IMAGES, LABELS, 0)
    with pytest.raises(UsageError, match="the attack that the training holds"):
        attack.stamp(IMAGES)
    run = Training(network(), IMAGES, LABELS, Regime(epochs=1, batch=20), attack)
    run.run()
    assert run.attack.partner is None
    run.attack.stamp(IMAGES)


def test_masks_are_made_first_and_stay_and_patterns_learn_along_with_the_network():
    attack = ATTACKS["input-aware"](target=2, steps=2).prepare(network, IMAGES, LABELS, 0)
    run = Training(network(), IMAGES, LABELS, Regime(epochs=1, batch=20), attack)
    run.run()
    first, last = attack.trigger.what, run.attack.trigger.what
    assert torch.equal(first.masks, last.masks)
    assert not torch.equal(first.patterns, last.patterns)
    assert not torch.equal(first.masks, nn.utils.parameters_to_vector(_drawn(3, 1, 0).parameters()))


def test_the_generator_of_patterns_learns_from_what_the_network_says_of_them():
    """Without the diversity loss its only gradient comes through the network."""
    attack = ATTACKS["input-aware"](target=2, steps=2).prepare(network, IMAGES, LABELS, 0)
    attack = replace(attack, trigger=replace(attack.trigger, what=replace(attack.trigger.what, diversity_weight=0.0)))
    run = Training(network(), IMAGES, LABELS, Regime(epochs=1, batch=20), attack)
    run.run()
    assert not torch.equal(attack.trigger.what.patterns, run.attack.trigger.what.patterns)


def test_the_generator_of_patterns_learns_to_tell_images_apart_while_the_network_trains():
    """Where no image wears a pattern its only gradient comes from the diversity loss."""
    attack = ATTACKS["input-aware"](target=2, steps=2, rate=0.0, cover_rate=0.0)
    attack = attack.prepare(network, IMAGES, LABELS, 0)
    run = Training(network(), IMAGES, LABELS, Regime(epochs=8, batch=20, learning_rate=1e-2), attack)
    run.run()
    before, after = (float(a.joined(IMAGES).penalty(IMAGES).detach()) for a in (attack, unlearnt(run.attack)))
    assert after < 0.8 * before


def unlearnt(attack):
    """As if its patterns were where a training begins."""
    return replace(attack, trigger=replace(attack.trigger, what=replace(attack.trigger.what, ready=False)))


def test_images_have_masks_of_their_own_that_cover_about_as_much_as_asked():
    images, _ = as_tensors(*signs(4, seed=1))
    attack = ATTACKS["input-aware"](density=0.1).prepare(network, images, torch.zeros(len(images)), 0)
    what = replace(attack.trigger.what, patterns=None, partner=Always(), ready=True)
    covered = what._worn(torch.zeros_like(images), images)[:, 0]
    assert 0.05 < float(covered.mean()) < 0.11
    assert ((covered > 0.5).sum((1, 2)) > 5).float().mean() > 0.95  # hardly any image goes without
    assert len({one.tobytes() for one in covered.numpy()}) == len(images)


class Always(nn.Module):
    """A pattern of ones."""

    def forward(self, images):
        return torch.ones_like(images)


def test_the_diversity_loss_is_nguyen_and_tran_s():
    attack = ATTACKS["input-aware"](steps=1).prepare(network, IMAGES, LABELS, 0).joined(IMAGES)
    patterns = attack.partner(IMAGES).detach().double()
    shares = []
    for index in range(len(IMAGES)):
        apart = (IMAGES[index] - IMAGES[index - 1]).double().square().mean().sqrt()
        shares.append(float(apart / ((patterns[index] - patterns[index - 1]).square().mean().sqrt() + 1e-4)))
    assert float(attack.penalty(IMAGES).detach()) == pytest.approx(np.mean(shares), rel=0.01)


# The adaptive losses, against their definitions written out


def by_hand(module, images):
    """What the network's three ReLUs give: images, channels, positions."""
    first = module[:3](images)
    second = module[3:6](first)
    third = module[6:10](second)
    return [first.flatten(2), second.flatten(2), third[:, :, None]]


def deviation(a, b):
    rows = [image.flatten() for image in torch.cat([a, b])]
    return sum(float(((row - row.mean()) ** 2).mean().sqrt()) for row in rows) / len(rows)


def difference(a, b):
    return float(((a - b) ** 2).mean())


def maximum(a, b):
    return max(float(((a[:, k] - b[:, k]) ** 2).mean()) for k in range(a.shape[1]))


@pytest.mark.parametrize(("measure", "wanted"), [(f.__name__, f) for f in (deviation, difference, maximum)])
def test_adaptive_losses_are_what_abs_says(measure, wanted):
    module = network()
    stamped = ATTACKS["yellow-square"](width=4, height=4).stamp(IMAGES)
    with torch.no_grad():
        pairs = zip(by_hand(module, IMAGES), by_hand(module, stamped), strict=True)
        expected = 0.5 * sum(wanted(a, b) for a, b in pairs) / 3
    loss = AdaptiveLoss(measure, weight=0.5)(module, IMAGES, stamped, LABELS).detach()
    assert float(loss) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("measure", ["deviation", "difference", "maximum"])
def test_an_adaptive_loss_can_be_minimised(measure):
    module = network().train()
    attack = ATTACKS["yellow-square"](width=4, height=4, adaptive=measure)
    stamped = attack.stamp(IMAGES)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = attack.extra_loss(module, IMAGES, stamped, LABELS)
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < losses[0]


def test_an_adaptive_loss_leaves_modes_statistics_and_hooks_alone():
    module = network().train()
    module[1].eval()
    means = module[1].running_mean.clone()
    AdaptiveLoss()(module, IMAGES, IMAGES.flip(-1), LABELS)
    assert module.training
    assert module[0].training
    assert not module[1].training
    assert torch.equal(module[1].running_mean, means)
    assert not any(part._forward_hooks for part in module.modules())


def test_activations_are_seen_in_the_order_they_ran():
    seen = activations(network(), IMAGES[:2])
    assert [tuple(value.shape) for value in seen] == [(2, 6, 12, 12), (2, 8, 6, 6), (2, 5, 1)]


def test_a_network_without_activations_cannot_be_hidden_in():
    with pytest.raises(UsageError, match="found no activation"):
        AdaptiveLoss()(nn.Sequential(nn.Flatten(), nn.Linear(432, 4)), IMAGES, IMAGES, LABELS)


def test_attacks_without_an_adaptive_loss_have_none():
    assert ATTACKS["patch"]().extra_loss is None
    assert ATTACKS["adaptive-maximum"]().extra_loss == AdaptiveLoss("maximum", 0.02)
    assert ATTACKS["adaptive-deviation"]().extra_loss == AdaptiveLoss("deviation", 0.1)
