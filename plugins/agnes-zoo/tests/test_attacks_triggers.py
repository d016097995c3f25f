"""What triggers do to pixels, against slower or plainer ways to the same."""

import json
import math

import numpy as np
import pytest
import torch
from agnes_zoo.attacks import YELLOW, Patch, Trigger
from agnes_zoo.attacks.contents import Checks, Colour, Grid, Picture, RandomPixels, Sinusoid
from agnes_zoo.attacks.filters import GOTHAM, NASHVILLE, Filter
from agnes_zoo.attacks.places import Box, Corner, Everywhere, Pieces, RandomPlace, Shape
from agnes_zoo.attacks.warping import Warp
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy.ndimage import map_coordinates

from agnes.errors import UsageError

IMAGES = torch.linspace(0.1, 0.9, 4 * 3 * 8 * 8).reshape(4, 3, 8, 8)
RNG = np.random.default_rng


@pytest.mark.parametrize(("size", "place"), [(1, (0, 0)), (3, (4, 1)), (2, (6, 6)), (8, (0, 0))])
def test_the_patch_changes_exactly_its_pixels(size, place):
    original = IMAGES.clone()
    stamped = Patch(size, place, (1.0, 0.95, 0.0)).stamp(IMAGES)
    assert torch.equal(IMAGES, original)
    for y in range(8):
        for x in range(8):
            inside = place[0] <= y < place[0] + size and place[1] <= x < place[1] + size
            wanted = torch.tensor([1.0, 0.95, 0.0]).expand(4, 3) if inside else original[:, :, y, x]
            assert torch.equal(stamped[:, :, y, x], wanted)


@pytest.mark.parametrize("patch", [Patch(3, (6, 0)), Patch(2, (-1, 0)), Patch(0, (1, 1))])
def test_a_patch_outside_the_image_is_refused(patch):
    with pytest.raises(UsageError, match="does not lie in an image of 8x8"):
        patch.stamp(IMAGES)


def test_a_patch_of_other_channels_is_refused():
    with pytest.raises(UsageError, match="1 colour values, the images 3 channels"):
        Patch(2, (0, 0), (1.0,)).stamp(IMAGES)


def test_a_colour_on_grey_images_is_its_brightness():
    stamped = Patch(1, (0, 0), YELLOW).stamp(torch.zeros(1, 1, 4, 4))
    assert float(stamped[0, 0, 0, 0]) == pytest.approx(0.299 + 0.587)


def test_a_patch_comes_back_from_its_description():
    patch = Patch(4, (2, 25), (0.5, 0.25, 1.0))
    assert Patch.from_description(json.loads(json.dumps(patch.described()))) == patch


@given(opacity=st.floats(0, 1), pixel=st.floats(0, 1), colour=st.floats(0, 1))
def test_transparency_is_the_share_of_the_image_that_shows_through(opacity, pixel, colour):
    images = torch.full((1, 1, 2, 2), pixel)
    stamped = Trigger(Colour((colour,)), Box(0, 0, 1, 1), opacity).stamp(images)
    assert float(stamped[0, 0, 0, 0]) == pytest.approx((1 - opacity) * pixel + opacity * colour, abs=1e-6)
    assert torch.equal(stamped[0, 0, 1], images[0, 0, 1])


@pytest.mark.parametrize("opacity", [-0.1, 1.1])
def test_an_opacity_that_is_no_share_is_refused(opacity):
    with pytest.raises(UsageError, match="give one from 0 to 1"):
        Trigger(opacity=opacity).stamp(IMAGES)


@pytest.mark.parametrize(
    ("which", "rows", "columns"),
    [
        ("upper-left", [1, 2], [1, 2, 3]),
        ("upper-right", [1, 2], [4, 5, 6]),
        ("lower-left", [5, 6], [1, 2, 3]),
        ("lower-right", [5, 6], [4, 5, 6]),
    ],
)
def test_a_corner_lies_in_its_corner(which, rows, columns):
    mask = Corner(which, height=2, width=3, margin=1).mask(IMAGES, RNG(0))[0, 0]
    assert torch.nonzero(mask.sum(1)).flatten().tolist() == rows
    assert torch.nonzero(mask.sum(0)).flatten().tolist() == columns
    assert float(mask.sum()) == 6


def test_an_unknown_corner_is_refused():
    with pytest.raises(UsageError, match="no corner 'middle'"):
        Corner("middle").mask(IMAGES, RNG(0))


@pytest.mark.parametrize("place", [(2, 3), (-6, -5)])
def test_a_shape_covers_what_is_drawn_from_either_edge(place):
    mask = Shape(*place, ("#.#", ".#.")).mask(IMAGES, RNG(0))[0, 0]
    assert torch.nonzero(mask).tolist() == [[2, 3], [2, 5], [3, 4]]


@pytest.mark.parametrize("drawing", [(), ("##", "#")])
def test_a_shape_that_is_no_rectangle_of_marks_is_refused(drawing):
    with pytest.raises(UsageError, match="rows of one length"):
        Shape(0, 0, drawing).mask(IMAGES, RNG(0))


def test_pieces_cover_what_any_of_them_covers():
    pieces = Pieces((Box(0, 0, 1, 2), Box(0, 1, 1, 2), Corner("lower-right", 1, 1)))
    assert torch.nonzero(pieces.mask(IMAGES, RNG(0))[0, 0]).tolist() == [[0, 0], [0, 1], [0, 2], [7, 7]]


def test_a_random_place_is_whole_and_reaches_every_edge():
    images = torch.zeros(400, 1, 6, 5)
    masks = RandomPlace(2, 3).mask(images, RNG(0))[:, 0]
    assert (masks.sum((1, 2)) == 6).all()
    places = {tuple(torch.nonzero(mask)[0].tolist()) for mask in masks}
    assert places == {(row, column) for row in range(5) for column in range(3)}


def test_a_random_place_that_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="9x2"):
        RandomPlace(9, 2).mask(IMAGES, RNG(0))


def test_random_pixels_are_the_same_on_all_images_and_uniform():
    shown = RandomPixels(seed=3).on(torch.zeros(2, 3, 64, 64), RNG(0))
    assert torch.equal(shown[0], shown[1])
    counts = torch.histc(shown[0], 10, 0, 1)
    assert float(counts.min()) > 0.9 * float(counts.mean())
    assert not torch.equal(shown, RandomPixels(seed=4).on(torch.zeros(2, 3, 64, 64), RNG(0)))


def test_checks_alternate():
    shown = Checks(side=2, first=(1.0,), second=(0.0,)).on(torch.zeros(1, 1, 4, 6), RNG(0))[0, 0]
    assert shown.int().tolist() == [[1, 1, 0, 0, 1, 1]] * 2 + [[0, 0, 1, 1, 0, 0]] * 2


def test_the_static_grid_brightens_every_nth_pixel_and_stays_in_bounds():
    stamped = Trigger(Grid(step=3, amount=0.2)).stamp(IMAGES)
    for y in range(8):
        for x in range(8):
            added = 0.2 if y % 3 == 0 and x % 3 == 0 else 0.0
            assert torch.allclose(stamped[:, :, y, x], (IMAGES[:, :, y, x] + added).clamp(max=1), atol=1e-7)


def test_the_sinusoid_follows_its_formula():
    images = torch.full((1, 3, 5, 32), 0.5)
    stamped = Trigger(Sinusoid(amount=0.1, frequency=6)).stamp(images)
    for column in range(32):
        wanted = 0.5 + 0.1 * math.sin(2 * math.pi * column * 6 / 32)
        assert torch.allclose(stamped[0, :, :, column], torch.tensor(wanted), atol=1e-6)


def test_a_picture_replaces_the_image_and_must_be_of_its_size():
    pixels = ((((0.1, 0.2), (0.3, 0.4))),)
    assert torch.equal(Picture(pixels).on(torch.zeros(2, 1, 2, 2), RNG(0))[1], torch.tensor(pixels))
    with pytest.raises(UsageError, match="give one of their size"):
        Picture(pixels).on(IMAGES, RNG(0))


def slowly_filtered(image, look):
    """One pixel at a time."""
    out = np.zeros_like(image)
    _, height, width = image.shape
    for y in range(height):
        for x in range(width):
            red, green, blue = image[:, y, x]
            grey = 0.299 * red + 0.587 * green + 0.114 * blue
            for channel, value in enumerate((red, green, blue)):
                toned = min(max(grey + look.saturation * (value - grey), 0), 1) ** look.gamma
                toned = min(max((toned - 0.5) * look.contrast + 0.5, 0), 1)
                low, high = look.shadows[channel], look.highlights[channel]
                out[channel, y, x] = low + (high - low) * toned
    return out


@pytest.mark.parametrize("look", [NASHVILLE, GOTHAM, Filter(saturation=2.5, gamma=0.5)])
def test_filters_are_what_a_loop_over_pixels_gives(look):
    images = torch.rand(2, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    wanted = np.stack([slowly_filtered(image, look) for image in images.double().numpy()])
    assert np.abs(look.on(images, RNG(0)).numpy() - wanted).max() < 1e-5


@pytest.mark.parametrize("amount", [0.0, 0.4, 1.0, 1.7])
def test_saturation_is_pillow_s(amount):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    wanted = np.asarray(ImageEnhance.Color(Image.fromarray(pixels)).enhance(amount)).astype(float)
    images = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].double() / 255
    found = Filter(saturation=amount).on(images, RNG(0))[0].numpy().transpose(1, 2, 0) * 255
    assert np.abs(found - wanted).max() <= 2  # Pillow rounds the grey and the colour to whole numbers


def test_a_filter_that_changes_nothing_changes_nothing():
    assert torch.allclose(Filter().on(IMAGES, RNG(0)), IMAGES, atol=1e-6)


def test_filters_also_serve_grey_images():
    shown = GOTHAM.on(torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2), RNG(0)).flatten().tolist()
    assert shown == pytest.approx([sum(GOTHAM.shadows) / 3, sum(GOTHAM.highlights) / 3])


def slowly_warped(image, places):
    """Bilinear reading, one pixel at a time; outside the image is black."""
    _, height, width = image.shape
    out = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            column, row = (places[y, x, 0] + 1) / 2 * (width - 1), (places[y, x, 1] + 1) / 2 * (height - 1)
            left, top = math.floor(column), math.floor(row)
            for near_y, near_x in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                if 0 <= near_y < height and 0 <= near_x < width:
                    weight = (1 - abs(row - near_y)) * (1 - abs(column - near_x))
                    out[:, y, x] += weight * image[:, near_y, near_x]
    return out


@pytest.mark.parametrize("strength", [0.5, 3.0])
def test_warping_is_what_a_loop_over_pixels_gives(strength):
    images = torch.rand(2, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    warp = Warp(strength, grid=4, seed=5)
    places = warp.places(images)[0].double().numpy()
    wanted = np.stack([slowly_warped(image, places) for image in images.double().numpy()])
    assert np.abs(Trigger(warp).stamp(images).numpy() - wanted).max() < 1e-5


@pytest.mark.parametrize("strength", [0.5, 3.0])
def test_warping_is_what_scipy_reads_at_the_moved_places(strength):
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    warp = Warp(strength, seed=2)
    columns, rows = ((warp.places(images)[0].double().numpy() + 1) / 2 * 31).transpose(2, 0, 1)
    wanted = [
        [map_coordinates(c, (rows, columns), order=1, mode="nearest") for c in i] for i in images.double().numpy()
    ]
    assert np.abs(warp.on(images, RNG(0)).numpy() - np.array(wanted)).max() < 1e-4


def test_no_warp_is_no_change_and_a_stronger_one_moves_further():
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    still = Warp(0.0).places(images)
    assert torch.allclose(Warp(0.0).on(images, RNG(0)), images, atol=1e-5)
    moved = [float((Warp(strength, seed=1).places(images) - still).abs().mean()) for strength in (0.5, 1.0)]
    assert moved[1] == pytest.approx(2 * moved[0], rel=0.1)
    assert moved[0] == pytest.approx(0.5 / 32, rel=0.5)  # control points of mean size 1, in shares of the height


def test_the_noise_of_cover_images_is_small_and_another_one_in_every_image():
    images = torch.linspace(0, 1, 32).expand(3, 1, 32, 32).contiguous()
    warp = Warp(0.5)
    off = warp.cover(images, RNG(0)) - warp.on(images, RNG(0))
    assert not torch.equal(off[0], off[1])
    assert 0 < float(off.abs().max()) < 1 / 31  # half a pixel's difference of brightness at most


def test_the_whole_image_is_everywhere():
    assert float(Everywhere().mask(IMAGES, RNG(0)).mean()) == 1
