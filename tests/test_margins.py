"""Promises of the margins: those of a plain loop, in units of what benign images have."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agnes.margins import benign_margin, every_margin, margin
from agnes.testing import tiny_backend


def by_hand(row, target):
    """A logit less the largest of the others."""
    return row[target] - max(value for place, value in enumerate(row) if place != target)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 6).flatmap(
        lambda classes: st.lists(
            st.lists(st.sampled_from([-3.0, -0.5, 0.0, 1.0, 1.5, 7.0]), min_size=classes, max_size=classes),
            min_size=1,
            max_size=4,
        )
    )
)
def test_margins_are_those_of_a_plain_loop_ties_included(rows):
    logits = torch.tensor(rows)
    expected = torch.tensor([[by_hand(row, target) for target in range(len(row))] for row in rows])
    assert torch.equal(every_margin(logits), expected)
    for target in range(logits.shape[1]):
        assert torch.equal(margin(logits, torch.full((len(rows),), target)), expected[:, target])


def test_the_logits_are_left_as_they_were():
    logits = torch.tensor([[1.0, 5.0, 2.0]])
    every_margin(logits), margin(logits, torch.tensor([0]))
    assert logits.tolist() == [[1.0, 5.0, 2.0]]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 1, 2, 0], 3.0),  # margins of 1, 3, 4 and -2: the last one is taken for another
        ([1, 0, 0, 0], 2.0),  # none is right: 1, 3, 4 and 2 as they are taken, of the two in the middle the smaller
    ],
)
def test_the_unit_is_the_median_of_images_that_are_taken_for_what_they_are(labels, expected):
    logits = torch.tensor([[1.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 1.0, 5.0], [1.0, 3.0, 0.0]])
    assert benign_margin(lambda part: part, logits, torch.tensor(labels), tiny_backend()) == expected


def test_a_network_that_knows_no_class_from_another_still_gives_a_unit_to_divide_by():
    assert benign_margin(torch.zeros_like, torch.rand(4, 3), torch.arange(3).repeat(2)[:4], tiny_backend()) > 0
