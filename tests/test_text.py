"""Promises of text: what strangers wrote cannot steer a terminal, and stays short."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agnes.text import counted, printable


@given(st.text())
def test_nothing_that_steers_a_terminal_is_left(text):
    assert not {unicodedata.category(c) for c in printable(text)} & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=200))
def test_ordinary_text_is_left_as_it_is(text):
    assert printable(text) == text


@given(st.text(alphabet="abcdef", min_size=1, max_size=500), st.integers(1, 60))
def test_both_ends_of_a_long_text_stay(text, limit):
    short = printable(text, limit)
    assert len(short) <= limit
    if len(text) > limit:
        head, tail = short.split("…")
        assert text.startswith(head)
        assert text.endswith(tail)
        assert len(tail) - len(head) in (0, 1)


def test_a_megabyte_of_name_is_cut_before_it_is_read():
    assert printable("a" * 10_000_000 + "end", 20).endswith("end")


def test_what_is_no_text_is_shown_as_text():
    assert printable(3.5) == "3.5"


@pytest.mark.parametrize(("number", "said"), [(0, "0 images"), (1, "1 image"), (2, "2 images")])
def test_things_are_counted_in_the_right_number(number, said):
    assert counted(number, "image") == said
