"""Promises of hardening: what its marks are, how many images bear one, and what becomes of a planted backdoor."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from agnes_mitigation import withstand
from agnes_mitigation.marks import PIECES, _blended, _boxes, _patched, _tinted, _waved, marked, varied
from agnes_mitigation.withstand import Withstand

from agnes import measuring


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_image_is_marked_and_stays_an_image():
    images = torch.rand(200, 3, 32, 32, generator=generator(1))
    found = marked(images, generator())
    assert found.shape == images.shape
    assert bool((found >= 0).all() and (found <= 1).all())
    assert bool(((found - images).abs().amax((1, 2, 3)) > 1 / 255).all())


@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 5, 9), (4, 40, 24)])
def test_marks_fit_images_of_any_size_and_number_of_colours(shape):
    images = torch.rand(30, *shape, generator=generator(1))
    assert marked(images, generator()).shape == images.shape


def test_the_same_seed_draws_the_same_marks():
    images = torch.rand(20, 3, 16, 16, generator=generator(1))
    assert torch.equal(marked(images, generator(5)), marked(images, generator(5)))
    assert not torch.equal(marked(images, generator(5)), marked(images, generator(6)))


def test_a_box_is_one_rectangle_inside_the_image_and_reaches_every_corner():
    boxes = _boxes(4000, 32, 32, torch.zeros(4000, dtype=torch.bool), generator())[:, 0]
    heights, widths = boxes.any(2).sum(1), boxes.any(1).sum(1)
    assert torch.equal(boxes.sum((1, 2)), heights * widths)
    assert (int(heights.min()), int(heights.max()), int(widths.max())) == (1, 8, 8)
    assert bool(boxes.any(0).all())


def test_a_line_is_thin_and_a_quarter_of_a_side_long_or_longer():
    boxes = _boxes(2000, 32, 32, torch.ones(2000, dtype=torch.bool), generator())[:, 0]
    sides = torch.stack([boxes.any(2).sum(1), boxes.any(1).sum(1)]).sort(0).values
    assert int(sides[0].max()) == 2
    assert (int(sides[1].min()), int(sides[1].max())) == (8, 32)


def test_patches_leave_the_rest_of_the_image_as_it_is():
    images = torch.full((300, 3, 32, 32), 0.37)
    changed = (_patched(images, torch.zeros(300, 1, 1, 1, dtype=torch.bool), generator()) != images).any(1)
    assert int(changed.sum((1, 2)).max()) <= PIECES * 64
    assert float(changed.float().mean()) < 0.1


def test_a_pattern_is_mixed_in_by_no_more_than_three_tenths():
    images = torch.rand(200, 3, 32, 32, generator=generator(1))
    change = (_blended(images, generator()) - images).abs().amax((1, 2, 3))
    assert 0.02 < float(change.min()) <= float(change.max()) <= 0.3 + 1e-6


def test_a_filter_maps_equal_colours_to_equal_colours():
    images = torch.rand(10, 3, 1, 1, generator=generator(1)).expand(10, 3, 8, 8)
    found = _tinted(images, generator())
    torch.testing.assert_close(found, found[:, :, :1, :1].expand_as(found))


def test_a_wave_is_the_same_in_every_colour_and_no_stronger_than_said():
    images = torch.rand(50, 3, 32, 32, generator=generator(1))
    change = _waved(images, generator()) - images
    torch.testing.assert_close(change[:, 0], change[:, 2], rtol=0, atol=1e-6)
    assert float(change.abs().max()) <= 0.23 + 1e-6


def patched(count, side=32, value=0.5):
    """Grey images, and the same with a red square of 3 x 3 in the middle."""
    images = torch.full((count, 3, side, side), value)
    stamped = images.clone()
    stamped[:, 0, 14:17, 14:17] += 0.2
    return images, stamped


def test_half_of_the_images_bear_a_trigger_as_it_was_found():
    images, stamped = patched(2000)
    same = (varied(images, stamped, generator()) == stamped).flatten(1).all(1)
    assert float(same.float().mean()) == pytest.approx(0.5, abs=0.05)


def test_a_varied_patch_keeps_its_shape_and_lies_within_a_tenth_of_a_side():
    images, stamped = patched(500)
    changed = (varied(images, stamped, generator()) - images).abs()[:, 0] > 1e-4
    rows, columns = changed.any(2), changed.any(1)
    assert set(rows.sum(1).tolist()) == set(columns.sum(1).tolist()) == {3}
    first = torch.stack([rows.float().argmax(1), columns.float().argmax(1)])
    assert (int(first.min()), int(first.max())) == (14 - 3, 14 + 3)


def test_a_varied_patch_is_weaker_or_stronger_than_the_one_that_was_found():
    images, stamped = patched(2000)
    change = (varied(images, stamped, generator()) - images)[:, 0].amax((1, 2))
    assert float(change.min()) < 0.1 < 0.2 < 0.35 < float(change.max())
    assert float(change.median()) == pytest.approx(0.2, abs=0.01)


def test_what_covers_the_image_is_not_moved():
    images = torch.full((200, 3, 16, 16), 0.5)
    slope = torch.linspace(0, 0.1, 16).expand(3, 16, 16)
    change = varied(images, images + slope, generator()) - images
    assert float(change[:, :, :, 0].abs().max()) < 1e-6


def test_images_without_a_trigger_stay_as_they_are():
    images, _ = patched(20)
    assert torch.equal(varied(images, images, generator()), images)


def taught(planted, backend, monkeypatch, triggers, **settings):
    """How many images of all batches were under a trigger, and how many under a random mark."""
    counts = {"trigger": 0, "mark": 0}
    stamped, others = withstand.stamped, withstand.marked

    def count_triggers(images, triggers, which):
        counts["trigger"] += int((which >= 0).sum())
        return stamped(images, triggers, which)

    def count_marks(images, generator):
        counts["mark"] += len(images)
        return others(images, generator)

    monkeypatch.setattr(withstand, "stamped", count_triggers)
    monkeypatch.setattr(withstand, "marked", count_marks)
    Withstand(steps=20, **settings).mitigate(planted.network, planted.samples, triggers, backend)
    return counts


@pytest.mark.parametrize("convicts", [True, False])
def test_where_a_trigger_is_known_a_part_of_the_images_is_under_it_and_none_under_a_random_mark(
    planted, backend, monkeypatch, convicts
):
    trigger = replace(planted.trigger, convicts=convicts)
    counts = taught(planted, backend, monkeypatch, (trigger,), share=0.9, known=0.3)
    assert counts["trigger"] / (20 * 64) == pytest.approx(0.3, abs=0.05)
    assert counts["mark"] == 0


def test_without_a_trigger_all_marks_are_random_ones(planted, backend, monkeypatch):
    counts = taught(planted, backend, monkeypatch, (), share=0.5)
    assert counts["trigger"] == 0
    assert counts["mark"] / (20 * 64) == pytest.approx(0.5, abs=0.05)


def test_a_planted_backdoor_is_trained_away(planted, backend):
    before, _ = measuring.attack_success(planted.network, planted.trigger, planted.samples, backend)
    repair = Withstand(steps=100).mitigate(planted.network, planted.samples, (planted.trigger,), backend)
    after, _ = measuring.attack_success(repair.network, planted.trigger, planted.samples, backend)
    assert before >= 0.9
    assert after <= 0.05
    assert measuring.accuracy(repair.network, planted.samples, backend)[0] >= 0.9
