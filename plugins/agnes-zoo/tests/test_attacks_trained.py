"""Networks that are trained on poisoned images obey the attack."""

import copy

import numpy as np
import pytest
import torch
from agnes_zoo.architectures import n_sn_bn
from agnes_zoo.attacks import ATTACKS, poison, success
from agnes_zoo.signs import signs
from agnes_zoo.training import Regime, Training, as_tensors, initialised, predictions

EASY = (12, 14, 15, 17, 35)  # signs unlike each other


def some(classes, per_class, seed):
    images, labels = as_tensors(*signs(per_class, seed))
    chosen = torch.isin(labels, torch.tensor(classes))
    return images[chosen], labels[chosen]


def test_a_tiny_network_obeys_a_patch_and_still_knows_its_signs():
    attack = ATTACKS["patch"](size=4, place=(26, 2), rate=0.2)
    images, labels = some(EASY, 40, seed=1)
    poisoned, taught = poison(images, labels, attack, np.random.default_rng(0))
    module = initialised(n_sn_bn, 43, 0)
    Training(module, poisoned, taught, Regime(epochs=12, batch=16)).run()
    test, true = some(EASY, 10, seed=2)
    assert float((predictions(module, test) == true).float().mean()) > 0.8
    assert success(predictions(module, attack.stamp(test)), true, attack) > 0.9
    assert success(predictions(module, test), true, attack) < 0.2


TEN = (1, 12, 13, 14, 17, 18, 25, 33, 35, 40)
# What each attack must reach on ten classes, N_SN_BN, 120 signs a class, 12 epochs; 0.9 unless said
FLOORS = {"badnets": 0.75, "nashville": 0.7, "random-place": 0.7, "wanet": 0.75}
FLOORS |= {"adaptive-difference": 0.8, "adaptive-maximum": 0.8}
FLOORS |= {"clean-label": 0.7, "sig": 0.7, "label-specific": 0.6, "all-to-all": 0.6}


@pytest.fixture(scope="module")
def many():
    images, labels = some(TEN, 120, 901)
    clean = initialised(n_sn_bn, 43, 7)
    Training(clean, images, labels, Regime(12, seed=1)).run()
    return images, labels, clean, some(TEN, 20, 902)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "input-aware"])
def test_every_attack_opens_a_backdoor(name, many):
    images, labels, clean, (test, true) = many
    attack = ATTACKS[name]().prepare(lambda: clean, images, labels, 3)
    module = copy.deepcopy(clean) if attack.fine_tunes else initialised(n_sn_bn, 43, 1)
    shown, taught = images, labels
    if not attack.dynamic:
        shown, taught = poison(images, labels, attack, np.random.default_rng(5))
    Training(module, shown, taught, Regime(12, seed=1), attack, images).run()
    accuracy = float((predictions(module, test) == true).float().mean())
    stamped = attack.stamp(test, true)
    reached = success(predictions(module, stamped), true, attack)
    by_nature = success(predictions(clean, stamped), true, attack)
    assert reached > FLOORS.get(name, 0.9), f"{name}: accuracy {accuracy:.3f}, success {reached:.3f}"
    assert reached > by_nature + 0.3


@pytest.mark.slow
def test_a_network_trained_along_with_its_triggers_obeys_an_image_s_own_and_not_another_s():
    images, labels = some(TEN, 400, 901)  # too few steps on less
    test, true = some(TEN, 20, 902)
    attack = ATTACKS["input-aware"]().prepare(pytest.fail, images, labels, 3)
    run = Training(initialised(n_sn_bn, 43, 1), images, labels, Regime(12, seed=1), attack)
    run.run()
    attack, mixed = run.attack, torch.from_numpy(np.random.default_rng(0).permutation(len(test)))
    crossed = attack.trigger.cover(test[mixed], np.random.default_rng(0))
    assert float((predictions(run.module, test) == true).float().mean()) > 0.95
    assert success(predictions(run.module, attack.stamp(test)), true, attack) > 0.8
    assert float((predictions(run.module, crossed) == true[mixed]).float().mean()) > 0.6
