"""Promises of a method's class: its fields are its settings, with the comments that stand beside them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from agnes.method import NEEDS, Method, is_method, settings_in, settings_of, summary_of


@dataclass(frozen=True)
class Full(Method):
    """Has a setting of every kind.

    And more to say.
    """

    # a comment of its own line is nobody's help
    rounds: int = 5  # how often
    rate: float = 0.5  # how much  # and more
    mode: Literal["fast", "exact"] = "fast"  # which way: fast or exact
    layers: tuple[str, ...] = ()  # names of layers, all if none
    limit: int | None = None  # at most; none for no limit
    file: Path = Path("a#b")  # where
    silent: bool = False
    wrapped: tuple[int, ...] = (  # several lines
        1,
        2,
    )  # are one comment
    made: list = field(default_factory=list)  # from a factory
    hidden: int = field(default=3, init=False)  # not a setting

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})  # not a setting either

    def work(self):
        rounds: int = 9  # a local of the same name says nothing
        return rounds


@dataclass(frozen=True)
class Child(Full):
    """Inherits settings and changes one."""

    rate: float = 0.9  # another comment
    more: str = "x"  # its own


HELP = {
    "rounds": "how often",
    "rate": "how much  # and more",
    "mode": "which way: fast or exact",
    "layers": "names of layers, all if none",
    "limit": "at most; none for no limit",
    "file": "where",
    "silent": "",
    "wrapped": "several lines are one comment",
    "made": "from a factory",
}


def test_the_comment_beside_a_field_is_its_help():
    assert {s.name: s.help for s in settings_of(Full)} == HELP


def test_a_child_inherits_comments_and_may_change_them():
    told = {s.name: (s.default, s.help) for s in settings_of(Child)}
    assert told["rate"] == (0.9, "another comment")
    assert told["rounds"] == (5, "how often")
    assert told["more"] == ("x", "its own")


def test_defaults_and_types_are_told():
    told = {s.name: (s.default, s.type_name) for s in settings_of(Full)}
    assert told["rounds"] == (5, "int")
    assert told["mode"] == ("fast", "Literal['fast', 'exact']")
    assert told["layers"] == ((), "tuple[str, ...]")
    assert told["limit"] == (None, "int | None")
    assert told["file"] == (Path("a#b"), "Path")
    assert told["made"] == ([], "list")


def test_a_field_without_a_default_says_so():
    @dataclass(frozen=True)
    class Bare(Method):
        """Wants a value."""

        value: int  # no default

    (setting,) = settings_of(Bare)
    assert (setting.default, setting.help) == (dataclasses.MISSING, "no default")


def test_a_class_without_source_has_settings_without_help():
    made = dataclasses.make_dataclass("Made", [("rounds", int, 3)], bases=(Method,), frozen=True)
    assert [(s.name, s.default, s.help) for s in settings_of(made)] == [("rounds", 3, "")]


def test_an_instance_tells_what_it_carries():
    values = settings_in(Child(rounds=7))
    assert (values["rounds"], values["rate"]) == (7, 0.9)
    assert "hidden" not in values
    assert "needs" not in values


def test_the_first_line_of_the_docstring_is_the_summary():
    assert summary_of(Full) == "Has a setting of every kind."


class Undecorated(Full):
    extra: int = 3


@dataclass(frozen=True)
class Stranger:
    rounds: int = 3


@pytest.mark.parametrize(
    ("candidate", "is_one"),
    [
        (Full, True),
        (Child, True),
        (Undecorated, False),
        (Stranger, False),
        (Full(), False),
        (print, False),
        (int, False),
    ],
)
def test_a_plugin_is_a_frozen_dataclass_derived_from_method(candidate, is_one):
    assert is_method(candidate) is is_one


def test_a_method_needs_and_asks_nothing_unless_it_says_so():
    plain = Method()
    assert (plain.needs, plain.asks(), plain.suits(None)) == (frozenset(), {}, None)  # type: ignore[arg-type]


def test_every_need_is_told_in_words():
    assert all(text and not text.endswith(".") for text in NEEDS.values())
    assert {
        "labels",
        "test_data",
        "batch_norm",
        "piecewise_linear",
        "conv",
        "gradients",
        "candidates",
        "triggers",
    } <= set(NEEDS)
