"""Contact sheets."""

import numpy as np
import pytest
from agnes_zoo.data import sheet

from agnes.errors import UsageError


def plain(count, channels=3):
    """Images of one colour each, all different."""
    values = (np.arange(count) * 7 + 3).astype(np.uint8)
    return np.broadcast_to(values[:, None, None, None], (count, 8, 8, channels)).copy()


def test_every_image_stands_whole_in_its_row_and_column():
    page = np.asarray(sheet(plain(5), 3, side=16))
    for index, image in enumerate(plain(5)):
        top, left = 4 + index // 3 * 20, 4 + index % 3 * 20
        assert (page[top : top + 16, left : left + 16] == image[0, 0]).all()
    assert page.shape == (2 * 20 + 4, 3 * 20 + 4, 3)


def test_pixels_become_squares():
    image = np.zeros((1, 2, 2, 3), np.uint8)
    image[0, 0, 1] = (255, 0, 0)
    page = np.asarray(sheet(image, side=8))
    assert (page[4:8, 8:12] == (255, 0, 0)).all()
    assert (page[8:12, 4:12] == 0).all()


def test_grey_images_are_shown_grey():
    page = np.asarray(sheet(plain(1, channels=1), side=8))
    assert (page[4:12, 4:12] == 3).all()


def test_fewer_images_than_columns_make_a_narrow_page():
    assert sheet(plain(2), 10, side=8).width == 2 * 12 + 4


def test_captions_stand_below_their_images_and_no_wider():
    without, page = sheet(plain(2), 2, side=32), sheet(plain(2), 2, side=32, captions=["", "a name much too long"])
    pixels = np.asarray(page)
    assert page.height > without.height
    assert (pixels[36:, :40] == 224).all()
    dark = (pixels[36:, 40:] < 100).all(-1)
    assert dark.any()
    assert not dark[:, -4:].any()
    assert (pixels[4:36, 4:36] == 3).all()


@pytest.mark.parametrize(
    ("images", "options"),
    [
        (plain(2).astype(np.float32), {}),
        (plain(2)[0], {}),
        (plain(2)[:0], {}),
        (plain(2, channels=2), {}),
        (plain(2), {"columns": 0}),
        (plain(2), {"captions": ["one"]}),
    ],
)
def test_what_is_no_batch_of_pictures_is_refused(images, options):
    with pytest.raises(UsageError, match="a sheet"):
        sheet(images, **options)
