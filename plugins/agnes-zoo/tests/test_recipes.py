"""Recipes: what they ask for, and that those for testing and for calibration share nothing."""

import tomllib
from dataclasses import replace
from importlib import resources
from itertools import pairwise

import pytest
from agnes_zoo import recipes
from agnes_zoo.dealing import deal
from agnes_zoo.making import attack_of

from agnes.errors import UsageError

CALIBRATED = ("calibration", "calibration2", "calibration3")
MEASURED = ("test", "test2")

SMALL = """
seed = 7
[data.ten]
source = "signs10"
train = 100
[[models]]
arch = ["N_SN", "N_SN_BN"]
data = "ten"
count = 2
[[models]]
arch = "N_SN"
data = "ten"
attack = ["patch", "blended"]
options = { rate = 0.3 }
training = { epochs = 2 }
bars = { asr = 0.5 }
"""


def small(old="", new=""):
    return recipes.parse(SMALL.replace(old, new).encode(), "small.toml")


def test_a_group_asks_for_every_architecture_with_every_attack_so_many_times():
    found = small()
    kinds = sorted((entry.plan.arch, entry.plan.attack or "") for entry in found.entries)
    assert kinds == [
        *[("N_SN", "")] * 2,
        ("N_SN", "blended"),
        ("N_SN", "patch"),
        *[("N_SN_BN", "")] * 2,
    ]
    attacked = next(entry for entry in found.entries if entry.plan.attack == "patch")
    assert attacked.plan.regime.epochs == 2
    assert (attacked.bars.asr, attacked.bars.accuracy) == (0.5, 0.0)
    assert attacked.plan.options == {"target": "any", "rate": 0.3}


def test_a_models_number_tells_nothing_of_its_kind():
    found = recipes.read("test")
    trojaned = [entry.plan.attack is not None for entry in sorted(found.entries, key=lambda e: e.number)]
    changes = sum(a != b for a, b in pairwise(trojaned))
    assert changes > len(trojaned) / 4
    assert [entry.name for entry in found.entries][:2] == ["model-0001", "model-0002"]


def test_no_two_models_and_no_images_share_a_seed():
    for name in recipes.names():
        found = recipes.read(name)
        assert len(found.seeds) == sum(entry.attempts for entry in found.entries) + len(found.data)


@pytest.mark.parametrize("measured", MEASURED)
@pytest.mark.parametrize("name", [*CALIBRATED, "tiny"])
def test_calibration_shares_no_seed_and_no_model_with_test(measured, name):
    test, other = recipes.read(measured), recipes.read(name)
    assert test.seeds.isdisjoint(other.seeds)
    assert {e.plan.digest for e in test.entries}.isdisjoint({e.plan.digest for e in other.entries})


def test_calibration_has_twenty_clean_and_twenty_trojaned_models_of_architectures_that_test_lacks():
    known = {entry.plan.arch for entry in recipes.read("test").entries}
    models = [e for name in CALIBRATED for e in recipes.read(name).entries]
    left = [entry.plan for entry in models if entry.plan.arch not in known]
    assert sum(plan.attack is None for plan in left) >= 20
    assert sum(plan.attack is not None for plan in left) >= 20
    for name in ("calibration2", "calibration3"):
        assert not known & {entry.plan.arch for entry in recipes.read(name).entries}


def test_what_is_measured_again_is_the_same_but_for_its_seeds():
    test, again = (
        tomllib.loads(resources.files("agnes_zoo.recipes").joinpath(f"{name}.toml").read_text()) for name in MEASURED
    )
    assert {**test, "name": "test2", "seed": again["seed"]} == again
    assert recipes.read("test").seeds.isdisjoint(recipes.read("test2").seeds)


def test_calibration_shares_no_image_with_test_in_any_hand():
    drawn = {}
    for name in (*MEASURED, *CALIBRATED, "tiny"):
        found = [deal(replace(plan, train=86, held_out=2)) for plan in recipes.read(name).data.values()]
        hands = [hand for dealt in found for hand in (dealt.train, dealt.samples, dealt.test, dealt.held_out)]
        drawn[name] = {image.tobytes() for images, _ in hands for image in images}
    assert len(drawn["test"]) > 800
    for measured in MEASURED:
        for name in {*MEASURED, *CALIBRATED, "tiny"} - {measured}:
            assert drawn[measured].isdisjoint(drawn[name]), (measured, name)


def test_the_recipe_for_testing_has_what_the_project_promises():
    found = recipes.read("test")
    clean = [entry for entry in found.entries if entry.plan.attack is None]
    trojaned = [entry for entry in found.entries if entry.plan.attack is not None]
    assert len(clean) >= 20
    assert len(trojaned) >= 20
    attacks = {entry.plan.attack for entry in trojaned}
    assert attacks >= {"patch", "random-place", "blended", "multi-piece", "long-red-pixel", "sig", "label-specific"}
    assert "all-to-all" in attacks
    assert attacks & {"gotham", "nashville"}
    assert any(entry.plan.options.get("opacity") == 0.4 for entry in trojaned)
    for group in (clean, trojaned):
        assert {entry.plan.data.source for entry in group} == {"signs", "signs10"}
        assert {"N_MN", "N_MN_BN", "ResNet8"} <= {entry.plan.arch for entry in group}
    assert len(recipes.read("tiny").entries) == 4


@pytest.mark.parametrize("name", recipes.names())
def test_every_attack_of_a_recipe_can_be_made(name):
    found = recipes.read(name)
    targets = set()
    for entry in found.entries:
        if entry.plan.attack is not None:
            classes = 10 if entry.plan.data.source == "signs10" else 43
            targets.add(attack_of(entry.plan, classes).target)
    assert len(targets) > 1 or targets == {None}  # each class has a trigger of its own


def test_a_target_that_may_be_any_follows_from_the_seed_and_is_never_the_source():
    entry = small("rate = 0.3", 'labels = "source", source = "any", rate = 0.3').entries[0]
    plans = [e.plan for e in small("rate = 0.3", 'labels = "source", source = "any"').entries if e.plan.attack]
    assert entry.plan.seed
    for seed in range(30):
        attack = attack_of(plans[0].with_seed(seed), 3)
        assert attack.target not in attack.goal.sources
        assert attack.target == attack_of(plans[0].with_seed(seed), 3).target


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed = 7", "seed = -1", "seed takes a whole number"),
        ("seed = 7", "sed = 7", "has no 'sed'; did you mean 'seed'?"),
        ("count = 2", "cuont = 2", r"models\[0\] has no 'cuont'; did you mean 'count'?"),
        ("count = 2", 'count = "2"', "count takes a whole number"),
        ('"N_SN_BN"', '"N_XX"', "there is no plugin 'N_XX'"),
        ('"patch"', '"pach"', "there is no attack 'pach'; did you mean 'patch'"),
        ('data = "ten"', 'data = "tne"', "there is no data 'tne'"),
        ("train = 100", "trian = 100", "has no setting 'trian'"),
        ("train = 100", "train = 100\nseed = 3", "leave it out"),
        ("epochs = 2", "seed = 2", "leave it out"),
        ("seed = 7", "retries = 100", "give fewer than 100"),
        ("[data.ten]", "[data.ten", "is not TOML"),
    ],
)
def test_what_a_recipe_gets_wrong_is_named(old, new, said):
    with pytest.raises(UsageError, match=said):
        small(old, new)


def test_an_unknown_recipe_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(UsageError, match=r"no recipe 'tyni'.*did you mean 'tiny'"):
        recipes.read("tyni")
