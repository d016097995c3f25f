"""Promises of errors: each has an exit code, and unknown names meet the nearest known one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agnes import errors
from agnes.errors import AgnesError, OutOfTime, suggestion


def test_every_error_leaves_with_the_code_that_is_documented():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AgnesError)]
    assert {kind.__name__: kind.exit_code for kind in kinds} == {
        "AgnesError": 2,
        "Refused": 3,
        "NothingApplicable": 3,
        "UsageError": 4,
        "OutOfTime": 2,
        "OutOfMemory": 2,
        "OutputError": 2,
    }


def test_what_was_found_before_time_ran_out_travels_with_the_error():
    error = OutOfTime("too late", partial=["one"])
    assert (str(error), error.partial, OutOfTime("x").partial) == ("too late", ["one"], None)


@pytest.mark.parametrize(
    ("word", "known", "said"),
    [
        ("rate", ["clustering_rate", "seed"], "; did you mean 'clustering_rate'?"),
        ("clusterin_rate", ["clustering_rate", "seed"], "; did you mean 'clustering_rate'?"),
        ("KMEANS", ["kmeans", "abs"], "; did you mean 'kmeans'?"),
        ("aproxsm", ["AproxSM"], "; did you mean 'AproxSM'?"),
        ("zzz", ["b", "a"], "; there is a, b"),
        ("zzz", [], ""),
        ("", ["a"], "; there is a"),
        ("zzz", [f"name{i}" for i in range(13)], ""),
    ],
)
def test_an_unknown_name_meets_the_nearest_known_one(word, known, said):
    assert suggestion(word, known) == said


@given(st.text(min_size=1, max_size=12), st.lists(st.text(min_size=1, max_size=12), max_size=6))
def test_only_known_names_are_suggested(word, known):
    said = suggestion(word, known)
    assert said == "" or any(name in said for name in known)


@given(st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), min_size=1, max_size=6))
def test_a_known_name_in_capitals_is_recognised(known):
    assert suggestion(known[0].upper(), known) == f"; did you mean '{known[0]}'?"
