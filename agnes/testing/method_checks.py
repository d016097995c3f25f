"""Checks that any plugin's method passes without being run: its form, its settings, its words."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import pytest

from agnes.calling import manager_with
from agnes.errors import UsageError
from agnes.hookspecs import HOOK_OF, METHOD_STAGES
from agnes.method import NEEDS, is_method, settings_in, settings_of, summary_of
from agnes.settings import Text, as_text, as_toml, build, read_config

EVENTS = ("run_started", "stage_finished", "run_finished")


class MethodChecks:
    """Inherit the class of your stage and set `method` to an instance, small enough to run in seconds."""

    method: Any = None
    stage: ClassVar[str] = ""

    @classmethod
    def hooks(cls) -> tuple[str, ...]:
        """The hooks of which the method implements at least one."""
        return (HOOK_OF[cls.stage],)

    @classmethod
    def name(cls) -> str:
        return type(cls.method).__name__

    def test_it_is_a_frozen_dataclass_derived_from_method(self) -> None:
        kind = type(self.method)
        assert is_method(kind), f"{kind.__name__}: write `@dataclass(frozen=True) class {kind.__name__}(Method)`"

    def test_it_implements_its_hook_with_known_arguments(self) -> None:
        manager = manager_with(**{self.name(): self.method})  # raises where an argument is unknown
        implemented = {caller.name for caller in manager.get_hookcallers(self.method) or ()}
        assert implemented & set(self.hooks()), f"{self.name()}: decorate one of {self.hooks()} with @agnes.hookimpl"

    def test_it_says_in_one_line_what_it_does(self) -> None:
        summary = summary_of(type(self.method))
        generated = summary.startswith(f"{self.name()}(")  # by dataclass, where there is no docstring
        assert summary, f"{self.name()} has no docstring; `agnes plugins` shows its first line"
        assert not generated, f"{self.name()} has no docstring of its own; `agnes plugins` shows its first line"

    def test_every_setting_has_a_default_and_a_comment(self) -> None:
        for setting in settings_of(type(self.method)):
            whose = f"{self.name()}.{setting.name}"
            assert setting.default is not dataclasses.MISSING, f"{whose} has no default; every setting needs one"
            assert setting.help, f"{whose} has no comment on its line; say there what it does"

    def test_settings_survive_the_command_line_and_agnes_toml(self, tmp_path: Path) -> None:
        kind, values = type(self.method), settings_in(self.method)
        typed = {name: Text(as_text(value)) for name, value in values.items()}
        assert build(kind, "method", typed) == self.method
        file = tmp_path / "agnes.toml"
        lines = ("[method]", *(f"{name} = {as_toml(value)}" for name, value in values.items()))
        file.write_text("\n".join(lines), encoding="utf-8")
        assert build(kind, "method", read_config(file, tmp_path).plugins.get("method", {})) == self.method

    def test_a_setting_unknown_or_of_a_wrong_type_is_refused(self) -> None:
        kind = type(self.method)
        for assigned in ({"no_such_setting": 1}, *({name: object()} for name in settings_in(self.method))):
            with pytest.raises(UsageError):
                build(kind, "method", assigned)

    def test_its_needs_are_known_words(self) -> None:
        unknown = self.method.needs - NEEDS.keys()
        assert not unknown, f"{self.name()} needs {sorted(unknown)}; the words are {sorted(NEEDS)}"

    def test_what_it_asks_of_other_stages_can_be_asked(self) -> None:
        for stage, fields in self.method.asks().items():
            assert stage in METHOD_STAGES, f"{self.name()} asks stage '{stage}'; the stages are {METHOD_STAGES}"
            assert all(isinstance(name, str) for name in fields), f"{self.name()} asks {stage} for what is no setting"


class ReporterChecks(MethodChecks):
    """Checks of what listens to a run."""

    stage = "reporter"

    @classmethod
    def hooks(cls) -> tuple[str, ...]:
        return EVENTS
