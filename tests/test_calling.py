"""Promises of calling: one method is given what it names, and what it does wrong is said with its name."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from agnes.calling import call, manager_with
from agnes.errors import UsageError
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.registry import BrokenPlugin

GIVEN = {"network": "network", "samples": "samples", "backend": "backend"}


@dataclass(frozen=True)
class Answers(Method):
    """Answers as it is told."""

    answer: object = None

    @hookimpl
    def diagnose(self, network):
        return self.answer

    @hookimpl
    def load(self, path):
        return self.answer


@dataclass(frozen=True)
class Wrong(Method):
    """Asks for what no hook gives."""

    @hookimpl
    def diagnose(self, network, wether):
        return network


@dataclass(frozen=True)
class Undecorated(Method):
    """Forgets to say that it implements a hook."""

    def diagnose(self, network):
        return network


@pytest.mark.parametrize("answer", ["text", ["a", "list"], ("a", "tuple"), [], 0])
def test_what_the_method_returns_comes_back_as_it_is(answer):
    assert call("diagnose", "mine", Answers(answer), **GIVEN) is answer


@pytest.mark.parametrize("hook", ["diagnose", "load"])
def test_a_method_that_returns_nothing_gives_none(hook):
    given = GIVEN if hook == "diagnose" else {"path": "p", "options": "o"}
    assert call(hook, "mine", Answers(), **given) is None


def test_a_loader_may_return_a_list_of_its_own():
    assert call("load", "mine", Answers(["network"]), path="p", options="o") == ["network"]


def test_an_unknown_argument_is_a_broken_plugin_and_named():
    with pytest.raises(BrokenPlugin, match=r"'mine' does not keep the contract.*'wether'") as caught:
        call("diagnose", "mine", Wrong(), **GIVEN)
    assert "\n" not in str(caught.value)


def test_a_hook_without_its_decorator_is_a_broken_plugin_with_the_remedy():
    with pytest.raises(BrokenPlugin, match=r"implements no hook 'diagnose'; decorate its method with @agnes.hookimpl"):
        call("diagnose", "mine", Undecorated(), **GIVEN)


def test_what_a_method_raises_comes_through():
    @dataclass(frozen=True)
    class Raises(Method):
        """Fails."""

        @hookimpl
        def diagnose(self):
            raise ZeroDivisionError("by zero")

    with pytest.raises(ZeroDivisionError, match="by zero"):
        call("diagnose", "mine", Raises(), **GIVEN)


def test_the_same_listener_twice_is_refused_by_name():
    with pytest.raises(UsageError, match="'second' listens already"):
        manager_with(first=Answers(1), second=Answers(1))


def test_what_an_older_caller_does_not_hand_over_is_none():
    @dataclass(frozen=True)
    class Asks(Method):
        """Asks for a re-scan."""

        @hookimpl
        def mitigate(self, network, rescan):
            return network, rescan

    assert call("mitigate", "asks", Asks(), network=1, samples=2, triggers=(), candidates=(), backend=3) == (1, None)
