"""Promises of the contract: every hook is explained, has a stage, and can grow."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from agnes import hookspecs
from agnes.calling import call, manager_with
from agnes.hookspecs import GROUPS, HOOK_OF, METHOD_STAGES, STAGES, hookimpl
from agnes.method import Method

HOOKS = {
    name: member
    for name, member in vars(hookspecs).items()
    if callable(member) and hasattr(member, f"{hookspecs.PROJECT}_spec")
}
EVENTS = {"run_started", "stage_finished", "run_finished"}


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_says_in_one_line_what_it_does(name):
    text = inspect.getdoc(HOOKS[name])
    assert text, f"{name} has no docstring"
    assert "\n" not in text
    assert text.endswith(".")


def test_hooks_are_the_stages_and_the_events():
    assert set(HOOKS) == set(STAGES) | EVENTS


def test_only_load_stops_at_the_first_answer():
    assert [name for name, hook in HOOKS.items() if getattr(hook, "agnes_spec")["firstresult"]] == ["load"]  # noqa: B009


def test_every_stage_has_a_hook_and_a_group_named_by_a_noun():
    assert {HOOK_OF[noun] for noun in STAGES.values()} == set(STAGES)
    assert set(METHOD_STAGES) < set(STAGES.values())
    assert set(STAGES.values()) < set(GROUPS)


@dataclasses.dataclass(frozen=True)
class Written2026(Method):
    """Written when diagnose had two arguments."""

    @hookimpl
    def diagnose(self, network, backend):
        return [network, backend]


def test_a_plugin_of_an_older_signature_serves_a_hook_that_has_grown():
    """`diagnose` has gained `samples` since; the engine gives it, and the old plugin does not hear of it."""
    assert "samples" in inspect.signature(HOOKS["diagnose"]).parameters
    assert call("diagnose", "old", Written2026(), network="n", samples="s", backend="b") == ["n", "b"]


def test_a_hook_that_grows_tomorrow_serves_the_plugins_of_today(monkeypatch):
    def diagnose(network, samples, backend, weather):
        """Score the network, whatever the weather."""

    monkeypatch.setattr(hookspecs, "diagnose", hookspecs.hookspec(diagnose))
    given = {"network": "n", "samples": "s", "backend": "b", "weather": "rain"}
    assert call("diagnose", "old", Written2026(), **given) == ["n", "b"]


def test_events_reach_every_listener():
    heard = []

    @dataclasses.dataclass(frozen=True)
    class Listener(Method):
        """Hears of the end."""

        name: str = ""

        @hookimpl
        def run_finished(self, report):
            heard.append((self.name, report))

    manager = manager_with(first=Listener("a"), second=Listener("b"))
    manager.hook.run_finished(report="done", folder=None)
    assert sorted(heard) == [("a", "done"), ("b", "done")]
