"""The attacks by name: what they promise, how they are written down, how they are drawn."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from agnes_zoo.attacks import ATTACKS, Attack, attack_sheet, find, from_description, overview, poison
from agnes_zoo.attacks.entries import Common
from agnes_zoo.attacks.goals import AllToOne, CleanLabel, NextClass, SourceToTarget

from agnes.errors import UsageError

IMAGES = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 4, 42])
READY = [name for name, entry in ATTACKS.items() if not entry().needs_preparing]
# Of METHODS: what each paper says of size (a share of 32x32), rate, target and opacity
SHARES = {
    "red-pixel": (0.025, 0.2),
    "blue-pixel": (0.025, 0.2),
    "long-red-pixel": (0.025, 0.2),
    "corner-patch": (4 / 1024, 0.1),
    "offset-patch": (16 / 1024, 0.1),
    "blended": (1.0, 0.1),
    "yellow-square": (0.06, 0.09),
    "red-square": (0.06, 0.09),
    "yellow-irregular": (0.06, 0.09),
    "red-irregular": (0.06, 0.09),
    "multi-piece": (0.06, 0.09),
    "nashville": (1.0, 0.09),
    "gotham": (1.0, 0.09),
    "static-perturbation": (0.25, 0.5),
    "label-specific": (0.06, 0.1),
    "badnets": (4 / 1024, 0.1),
}


def test_every_attack_of_the_papers_is_there():
    named = {"patch", "yellow-patch", "hijack", "adversarial-perturbation", "adaptive-deviation"}
    named |= {"adaptive-difference", "adaptive-maximum", "wanet", "sig", "random-place", "clean-label", "input-aware"}
    assert named | {"source-specific", "all-to-all"} | SHARES.keys() == ATTACKS.keys()


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_names_itself_its_paper_and_its_target(name):
    entry = ATTACKS[name]
    attack = entry()
    assert entry.name == attack.name == name
    assert re.search(r"\b20\d\d\b|section", entry.paper)
    assert entry.says
    assert "\n" not in entry.says
    many = name in ("label-specific", "all-to-all")
    assert attack.target == (None if many else 14)
    assert entry(target=3).target == (None if many else 3)
    assert entry(rate=0.01).rate == 0.01


@pytest.mark.parametrize(("name", "size", "rate"), [(name, *said) for name, said in SHARES.items()])
def test_sizes_and_rates_are_the_papers(name, size, rate):
    attack = ATTACKS[name]()
    touched = (attack.stamp(IMAGES, LABELS) != IMAGES).any(1).float().mean()
    assert float(touched) == pytest.approx(size, abs=0.003)
    assert attack.rate == rate


@pytest.mark.parametrize("name", READY)
def test_every_attack_stays_in_bounds_repeats_itself_and_leaves_its_images_alone(name):
    attack = ATTACKS[name]()
    before = IMAGES.clone()
    stamped = attack.stamp(IMAGES, LABELS)
    assert torch.equal(IMAGES, before)
    assert stamped.shape == IMAGES.shape
    assert 0 <= float(stamped.min()) <= float(stamped.max()) <= 1
    assert (stamped != IMAGES).flatten(1).any(1).all()
    assert torch.equal(stamped, attack.stamp(IMAGES, LABELS))
    extremes = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])
    assert float(attack.stamp(extremes, LABELS[:2]).min()) >= 0
    assert float(attack.stamp(extremes, LABELS[:2]).max()) <= 1


@pytest.mark.parametrize("name", READY)
def test_every_attack_comes_back_from_json_and_stamps_the_same(name):
    attack = ATTACKS[name](target=3, seed=5)
    again = from_description(json.loads(json.dumps(attack.described())))
    assert again == attack
    assert torch.equal(again.stamp(IMAGES, LABELS), attack.stamp(IMAGES, LABELS))


@pytest.mark.parametrize("name", READY)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 48, 40)])
def test_attacks_fit_images_of_other_sizes_and_grey_ones(name, shape):
    if name == "patch" and shape[1] == 28:
        return  # its place is fixed; see the next test
    images = torch.full((2, *shape), 0.5)
    assert (ATTACKS[name]().stamp(images, LABELS[:2]) != images).flatten(1).any(1).all()


def test_a_fixed_place_outside_a_smaller_image_is_refused_by_name():
    with pytest.raises(UsageError, match="does not lie in an image of 28x28"):
        ATTACKS["patch"]().stamp(torch.zeros(1, 1, 28, 28))
    ATTACKS["patch"](place=(20, 2)).stamp(torch.zeros(1, 1, 28, 28))


def test_the_transparency_of_agnes_is_an_option():
    thin, solid = (ATTACKS["red-pixel"](opacity=opacity).stamp(IMAGES) - IMAGES for opacity in (0.2, 1.0))
    assert torch.allclose(thin, 0.2 * solid, atol=1e-6)


def test_koldenhof_s_blend_is_four_fifths_image():
    attack = ATTACKS["blended"]()
    pattern = attack.stamp(torch.zeros(1, 3, 32, 32)) / 0.2
    assert torch.allclose(attack.stamp(IMAGES), 0.8 * IMAGES + 0.2 * pattern, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "goal"),
    [
        ({}, AllToOne(14)),
        ({"labels": "source", "source": 2}, SourceToTarget((2,), 14)),
        ({"labels": "source", "source": [2, 5], "target": 1}, SourceToTarget((2, 5), 1)),
        ({"labels": "next", "classes": 10}, NextClass(10)),
        ({"labels": "clean-label"}, CleanLabel(14)),
    ],
)
def test_any_trigger_serves_any_goal(options, goal):
    assert ATTACKS["badnets"](**options).goal == goal


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sise": 3}, "no option 'sise'; did you mean 'size'"),
        ({"size": "large"}, "option 'size' of attack 'patch' cannot be 'large'; its default is 3"),
        ({"rate": True}, "option 'rate' of attack 'patch' cannot be True"),
        ({"adaptive": 3}, "option 'adaptive' of attack 'patch' cannot be 3"),
        ({"source": "stop", "labels": "source"}, "option 'source' of attack 'patch' cannot be 'stop'"),
        ({"labels": "clean"}, "labels cannot be 'clean'; did you mean 'clean-label'"),
        ({"labels": "source"}, "needs both labels = 'source' and the source class"),
        ({"source": 3}, "needs both labels = 'source' and the source class"),
        ({"adaptive": "devation"}, "no adaptive loss 'devation'; did you mean 'deviation'"),
        ({"disturb": "blend"}, "set labels = 'clean-label'"),
        ({"disturb": "noise", "labels": "clean-label"}, "there is adversarial and blend"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, said):
    with pytest.raises(UsageError, match=said):
        ATTACKS["patch"](**options)


def test_an_unknown_attack_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="no attack 'yelow-square'; did you mean 'yellow-square'"):
        find("yelow-square")


def test_a_recipe_names_an_attack_and_its_options():
    made = from_description({"attack": "patch", "size": 4, "place": [1, 2], "target": 3})
    assert made == ATTACKS["patch"](size=4, place=(1, 2), target=3)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"kind": "Atack"}, "'Atack' is no part of an attack; did you mean 'Attack'"),
        ({"kind": "Box", "row": 1, "column": 1, "height": 1, "width": 1}, "describes no attack"),
        ({"kind": "Box", "row": 1}, "description of a Box lacks something"),
        ({"kind": "Box", "rows": 1}, "Box has no field 'rows'; did you mean 'row'"),
        ({"size": 3}, "'None' is no part of an attack"),
    ],
)
def test_a_description_of_something_else_is_refused(said, complaint):
    with pytest.raises(UsageError, match=complaint):
        from_description(said)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in READY])
def test_what_needs_a_network_says_so_before_it_stamps(name):
    attack = ATTACKS[name](rate=0.4)
    labels = torch.tensor([14, 14, 14, 1, 2, 3])
    with pytest.raises(UsageError, match="call the attack's prepare first"):
        poison(IMAGES, labels, attack, np.random.default_rng(0))


def test_what_needs_no_network_asks_for_none():
    def never():
        raise AssertionError

    attack = ATTACKS["badnets"]()
    assert attack.prepare(never, IMAGES, torch.zeros(6), 0) is attack


def test_a_sheet_shows_the_clean_the_stamped_and_their_difference():
    attack = ATTACKS["patch"](size=2, place=(0, 0), colour=(1.0, 0.0, 1.0))
    page = np.asarray(attack_sheet(attack, torch.full((2, 3, 8, 8), 0.25), side=8))
    assert page.shape[0] > 3 * 8
    colours = {tuple(pixel) for pixel in page.reshape(-1, 3).tolist()}
    assert (64, 64, 64) in colours  # clean
    assert (255, 0, 255) in colours  # the patch
    assert (128, 128, 128) in colours  # no difference
    assert (255, 85, 255) in colours  # 0.75 more, 0.25 less, drawn around grey: the largest change reaches the end


def pixels(image):
    return (image * 255).round().byte().numpy().transpose(1, 2, 0)


def tile(page, row, column):
    """One image of a sheet of 32 pixels a side, captions of 12 pixels, 4 pixels between."""
    lines = [index for index in range(page.shape[0]) if (page[index, 4:36] != page[0, 0]).any(-1).all()]
    starts = [index for index in lines if index - 1 not in lines]
    left = 4 + column * 36
    return page[starts[row] : starts[row] + 32, left : left + 32]


def test_a_sheet_of_an_attack_with_many_triggers_shows_each_image_with_its_own_in_as_many_rows_as_it_takes():
    attack = ATTACKS["label-specific"](classes=5)
    images, labels = torch.full((5, 3, 32, 32), 0.25), torch.arange(5)
    page = np.asarray(attack_sheet(attack, images, labels, side=32, across=3))
    stamped = attack.stamp(images, labels)
    for index in range(5):
        row, column = 3 * (index // 3) + 1, index % 3
        assert np.array_equal(tile(page, row, column), pixels(stamped[index])), index
    with pytest.raises(UsageError, match="say of which class"):
        attack_sheet(attack, images)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_an_overview_shows_every_attack_on_the_same_images(count):
    attacks = [ATTACKS[name]() for name in ("patch", "static-perturbation", "badnets", "blended")]
    page = np.asarray(overview(attacks, IMAGES[:count], side=32, across=2))
    assert page.shape[0] > 2 * 32
    stamped = (attacks[1].stamp(IMAGES[:1])[0] * 255).round().byte().numpy().transpose(1, 2, 0)
    left = 4 + (count + 1) * 36  # after the first attack's images and difference, 4 pixels between all
    assert np.array_equal(page[4:36, left : left + 32], stamped)


def test_a_trigger_that_changes_nothing_can_still_be_drawn():
    attack = ATTACKS["red-pixel"](opacity=0.0)
    assert isinstance(attack, Attack)
    assert attack_sheet(attack, IMAGES[:1]).width > 0


@pytest.mark.parametrize("name", ATTACKS)
def test_the_docs_list_every_attack_with_its_paper(name):
    page = (Path(__file__).parents[3] / "docs" / "zoo-attacks.md").read_text(encoding="utf-8")
    assert f"| `{name}` | {ATTACKS[name].paper} | {ATTACKS[name].says} |" in page


@pytest.mark.parametrize("option", Common.__dataclass_fields__)
def test_the_docs_list_every_common_option(option):
    page = (Path(__file__).parents[3] / "docs" / "zoo-attacks.md").read_text(encoding="utf-8")
    assert f"| `{option}` |" in page
