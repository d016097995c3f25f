"""Promises of agnes.forms: what a value is, as the batch grows, is known or not guessed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agnes import forms


@given(st.integers(1, 4), st.lists(st.integers(0, 4), min_size=1, max_size=6), st.integers(0, 1))
@settings(deadline=None)
def test_rows_of_images_are_found_wherever_the_batch_lies(per_image, images, dim):
    def value(batch: int) -> torch.Tensor:
        rows = torch.arange(batch * per_image * 7.0).view(batch * per_image, 7)
        return rows if dim == 0 else rows.T.contiguous()

    form = forms.compare(value(2), value(3))
    assert form == forms.Batched(dim, per_image)
    assert form.count(value(5)) == 5
    taken = forms.select(form, value(5), torch.tensor(images))
    expected = [value(5).movedim(dim, 0)[i * per_image : (i + 1) * per_image] for i in images]
    assert torch.equal(taken.movedim(dim, 0), torch.cat(expected))


@pytest.mark.parametrize(
    "value",
    [
        lambda n: n,
        lambda n: n * 12,
        lambda n: n / 4,
        lambda n: torch.Size([n, 3, 4]),
        lambda n: [n, (2 * n, "x")],
        lambda n: torch.tensor([n, 12 * n, 7]),
        lambda n: torch.arange(4.0),
        lambda n: None,
    ],
)
def test_sizes_are_known_from_the_batch_alone(value):
    form = forms.compare(value(2), value(3))
    rebuilt = forms.rebuild(form, 11, torch.device("cpu"))
    assert not forms.is_data(form)
    assert type(rebuilt) is type(value(11))
    if isinstance(rebuilt, torch.Tensor):
        assert torch.equal(rebuilt, value(11))
    else:
        assert rebuilt == value(11)


@pytest.mark.parametrize(
    "value",
    [
        lambda n: n + 1,
        lambda n: n > 2,
        lambda n: [0] * n,
        lambda n: torch.full((2,), float(n)),
        lambda n: torch.zeros(n + 1),
        lambda n: torch.zeros(n, n),
        lambda n: torch.zeros([1] * n),
        lambda n: {"size": n},
    ],
)
def test_what_follows_no_rule_is_not_guessed(value):
    with pytest.raises(forms.Unsupported):
        forms.compare(value(2), value(3))
