"""Promises of the views: images stay images, are moved and lit by no more than said, and keep their labels."""

import math

import pytest
import torch
from agnes_inversion import varying
from agnes_inversion.arms import Arm, divide
from agnes_inversion.varying import several, varied
from planted_corner import CLASSES, backend

from agnes.samples import Samples

SIDE = 41
LIMITS = ("_MOVED", "_TURNED", "_ZOOMED", "_LIGHTER", "_CONTRAST", "_NOISE")


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def only(monkeypatch):
    """Switch off all kinds of change but the ones named."""

    def switch(*kept):
        for limit in LIMITS:
            if limit not in kept:
                monkeypatch.setattr(varying, limit, 0.0)

    return switch


def places():
    """An image that says at each pixel where it is, from 0 to 1: columns, rows, and nothing; 300 times."""
    along = (torch.arange(SIDE) + 0.5) / SIDE
    image = torch.stack([along.expand(SIDE, SIDE), along[:, None].expand(SIDE, SIDE), torch.zeros(SIDE, SIDE)])
    return image.repeat(300, 1, 1, 1)


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 9, 14)])
def test_a_view_is_an_image_of_the_same_shape_inside_the_range(shape):
    images = torch.cat([torch.rand(20, *shape, generator=draw()), torch.zeros(1, *shape), torch.ones(1, *shape)])
    before = images.clone()
    seen = varied(images, draw())
    assert seen.shape == images.shape
    assert 0 <= float(seen.min()) <= float(seen.max()) <= 1
    assert torch.equal(images, before)
    assert bool((seen != images).flatten(1).any(1).all())


def test_the_same_seed_gives_the_same_views_and_each_look_another():
    images = torch.rand(4, 3, 8, 8, generator=draw())
    again = draw(1)
    first, second = varied(images, again), varied(images, again)
    assert torch.equal(first, varied(images, draw(1)))
    assert not torch.equal(first, second)


def test_nothing_is_changed_where_every_limit_is_zero(only):
    only()
    images = torch.rand(4, 3, 8, 9, generator=draw())
    torch.testing.assert_close(varied(images, draw()), images, rtol=0, atol=1e-5)


def test_an_image_is_moved_by_no_more_than_a_tenth_of_its_side(only):
    only("_MOVED")
    middle = SIDE // 2
    moved = (varied(places(), draw())[:, :2, middle, middle] - 0.5).abs()
    assert 0.09 < float(moved.max()) <= varying._MOVED + 1e-5
    assert varying._MOVED == 0.1


def test_an_image_is_turned_and_zoomed_by_no_more_than_said(only):
    only("_TURNED", "_ZOOMED")
    middle, far = SIDE // 2, SIDE // 2 + 10
    seen = varied(places(), draw())[:, :2]
    torch.testing.assert_close(seen[:, :, middle, middle], torch.full((300, 2), 0.5), rtol=0, atol=1e-5)
    across, down = (seen[:, :, middle, far] - 0.5).unbind(1)
    turned, zoomed = torch.atan2(down, across).abs(), (torch.hypot(across, down) * SIDE / 10 - 1).abs()
    assert 0.9 * varying._TURNED < float(turned.max()) <= varying._TURNED + 1e-4
    assert 0.9 * varying._ZOOMED < float(zoomed.max()) <= varying._ZOOMED + 1e-4
    below = seen[:, :, far, middle] - 0.5
    torch.testing.assert_close(below, torch.stack([-down, across], 1), rtol=0, atol=1e-4)  # turned, not sheared


def test_what_comes_in_at_the_edges_is_the_image_itself(only):
    only("_MOVED", "_TURNED", "_ZOOMED")
    bright = torch.full((50, 1, 12, 12), 0.8)
    torch.testing.assert_close(varied(bright, draw()), bright, rtol=0, atol=1e-5)


def test_an_image_is_lit_and_flattened_by_no_more_than_said(only):
    only("_LIGHTER", "_CONTRAST")
    half = torch.cat([torch.full((300, 1, 4, 4), 0.4), torch.full((300, 1, 4, 4), 0.6)], 3)
    low, high = varied(half, draw())[:, 0, 1, [0, 7]].unbind(1)
    lighter, contrast = ((low + high) / 2 - 0.5).abs(), ((high - low) / 0.2 - 1).abs()
    assert 0.9 * varying._LIGHTER < float(lighter.max()) <= varying._LIGHTER + 1e-5
    assert 0.9 * varying._CONTRAST < float(contrast.max()) <= varying._CONTRAST + 1e-4


def test_noise_has_the_deviation_that_is_said(only):
    only("_NOISE")
    seen = varied(torch.full((20, 3, 16, 16), 0.5), draw())
    assert float(seen.std()) == pytest.approx(varying._NOISE, rel=0.05)


@pytest.mark.parametrize(("have", "wanted"), [(5, 24), (6, 24), (24, 24), (30, 24), (1, 3)])
def test_images_come_as_often_as_it_takes_and_labels_follow(have, wanted):
    samples = Samples(torch.rand(have, 3, 4, 4, generator=draw()), torch.randint(9, (have,), generator=draw()))
    many = several(samples, wanted)
    times = math.ceil(wanted / have)
    assert len(many) == have * times >= wanted
    for place in range(len(many)):
        assert torch.equal(many.images[place], samples.images[place % have])
        assert many.labels[place] == samples.labels[place % have]


def test_images_without_labels_stay_so():
    many = several(Samples(torch.rand(2, 3, 4, 4, generator=draw())), 6)
    assert len(many) == 6
    assert many.labels is None


def test_views_are_of_the_images_that_triggers_are_made_on_alone(network, samples):
    parts = divide(samples, network, 0.5, 500, backend())
    assert parts.in_views(0) is parts
    many = parts.in_views(50)
    assert len(many.made_on) == 5 * len(parts.made_on)
    assert many.held_out is parts.held_out
    assert torch.equal(many.eligible([Arm(2, "scan")])[0], (parts.labels != 2).repeat(5))
    assert set(many.labels.tolist()) == set(range(CLASSES))
