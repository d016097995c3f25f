"""Promises of the forms of triggers: inside [0, 1] whatever the parameters, and no larger than they say."""

from __future__ import annotations

import pytest
import torch
from agnes_inversion.forms import Additive, Form, Masked, Mixed, pixel_sizes, size_term, squashed
from hypothesis import given, settings
from hypothesis import strategies as st

from agnes.features import FeatureTrigger, identity, mixed, pooled

SHAPE = (3, 7, 9)
FORMS: dict[str, tuple[Form, tuple[int, ...]]] = {
    "additive": (Additive(), (2, *SHAPE)),
    "masked": (Masked(), (1 + SHAPE[0], *SHAPE[1:])),
    "mixed": (Mixed(), (SHAPE[0], 4 * SHAPE[0] + 1)),
}
FACTS = {"target": 1, "asr": 1.0, "held_out": 3}


def noise(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def images(seed: int = 0) -> torch.Tensor:
    drawn = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return torch.cat([drawn, torch.zeros(1, *SHAPE), torch.ones(1, *SHAPE)])


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.1, 1.0, 30.0]))
def test_a_trigger_never_leaves_the_range_of_images(name, seed, scale):
    form, shape = FORMS[name]
    made = form.made(noise(1, *shape, seed=seed, scale=scale))
    trigger = form.trigger(made[0], images(seed), **FACTS)
    stamped = trigger.apply(images(seed + 1))
    assert float(stamped.min()) >= 0
    assert float(stamped.max()) <= 1
    assert 0 <= float(trigger.change().min()) <= float(trigger.change().max()) <= 1


@pytest.mark.parametrize("name", FORMS)
def test_a_trigger_does_to_images_what_the_search_did(name):
    form, shape = FORMS[name]
    made = form.made(noise(1, *shape))
    trigger = form.trigger(made[0], images(), **FACTS)
    searched = form.stamp(made.expand(6, *made.shape[1:]), images())
    torch.testing.assert_close(trigger.apply(images()), searched, atol=1 / 255, rtol=0)
    assert trigger.l1 == pytest.approx(float(form.sizes(made, images())[0]), abs=63 / 255)


def test_the_pattern_and_its_size_are_those_of_the_thesis():
    parameters = noise(2, 2, 3, 4, 5)
    more, less = (parameters[:, 0].tanh() + 1) / 2, (parameters[:, 1].tanh() + 1) / 2
    torch.testing.assert_close(squashed(parameters), more - less)
    total = 0.0
    for part in range(2):
        for row in range(4):
            for column in range(5):
                total += max(float((torch.tanh(parameters[1, part, c, row, column] / 10) + 1) / 2) for c in range(3))
    assert float(size_term(parameters)[1]) == pytest.approx(total, rel=1e-5)
    assert float(pixel_sizes(torch.full((1, 3, 2, 2), -0.5))[0]) == 2


def test_a_mask_beyond_its_largest_size_costs_more_and_one_below_nothing():
    form = Masked(largest=5.0, steepness=10.0)
    parameters = torch.full((2, 4, 7, 9), -20.0)
    parameters[0, 0].flatten()[:8] = 20  # eight pixels
    parameters[1, 0].flatten()[:4] = 20
    penalty = form.penalty(parameters)
    assert penalty is not None
    assert penalty.tolist() == pytest.approx([30, 0], abs=1e-4)
    assert Masked().penalty(parameters) is None


def test_pools_are_those_of_a_loop_over_what_lies_around_each_pixel():
    (image,) = images()[:1]
    found = pooled(image[None], 3)[0].view(4, *SHAPE)
    torch.testing.assert_close(found[0], image)
    for row in range(SHAPE[1]):
        for column in range(SHAPE[2]):
            around = image[:, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].flatten(1)
            torch.testing.assert_close(found[1, :, row, column], around.amax(1))
            torch.testing.assert_close(found[2, :, row, column], around.amin(1))
            torch.testing.assert_close(found[3, :, row, column], around.mean(1))


def test_a_mix_is_a_matrix_applied_to_every_pixel():
    mix = noise(1, 3, 13, scale=0.2)
    stack = pooled(images()[:1], 3)[0]
    expected = torch.zeros(SHAPE)
    for row in range(SHAPE[1]):
        for column in range(SHAPE[2]):
            expected[:, row, column] = mix[0, :, :12] @ stack[:, row, column] + mix[0, :, 12]
    torch.testing.assert_close(mixed(images()[:1], mix, 3)[0], expected.clamp(0, 1))


def test_the_mix_that_is_the_identity_changes_nothing():
    torch.testing.assert_close(mixed(images(), identity(3).expand(6, -1, -1), 3), images())


def test_a_filter_is_applied_alike_from_its_arrays():
    form, shape = FORMS["mixed"]
    trigger = form.trigger(noise(*shape, scale=0.3), images(), **FACTS)
    arrays = trigger.arrays()
    again = FeatureTrigger(
        **FACTS,
        mix=torch.from_numpy(arrays["mix"]),
        window=int(arrays["window"]),
        changed=torch.from_numpy(arrays["changed"]),
    )
    assert torch.equal(trigger.apply(images()), again.apply(images()))
    assert trigger.l1 == again.l1 > 0
