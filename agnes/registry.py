"""Find plugins by entry point, block before loading, load on demand, and say what failed."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from agnes.errors import AgnesError, UsageError, suggestion
from agnes.hookspecs import GROUPS, HOOK_OF
from agnes.method import Setting, is_method, settings_of

_OWN_NAMESPACE = ("command", "architecture")  # names that may repeat a method's


class BrokenPlugin(AgnesError):
    """A plugin that is installed and cannot be used."""


@dataclass(frozen=True)
class Plugin:
    """One entry point, known from metadata alone."""

    name: str
    stage: str
    distribution: str
    version: str
    target: str  # module:object
    _entry_point: metadata.EntryPoint = field(compare=False, repr=False)

    def load(self) -> Any:
        """Import what the entry point names."""
        try:
            return self._entry_point.load()
        except (Exception, SystemExit) as error:
            reason = str(error).strip().partition("\n")[0]
            raise BrokenPlugin(
                f"plugin '{self.name}' of {self.distribution} {self.version} cannot be imported: "
                f"{type(error).__name__}: {reason}; reinstall it or leave it out with --block {self.name}"
            ) from error


class Registry:
    """The plugins of this installation."""

    def __init__(self, plugins: Iterable[Plugin], blocked: Iterable[str] = ()) -> None:
        self.block = frozenset(_normal(name) for name in blocked)
        found = sorted(plugins, key=lambda p: (GROUPS.index(p.stage), p.name))
        self.blocked = tuple(p for p in found if self._is_blocked(p))
        self.plugins = tuple(p for p in found if not self._is_blocked(p))
        _refuse_duplicates(self.plugins)

    @classmethod
    def discover(cls, block: Iterable[str] = ()) -> Registry:
        """Everything installed, from metadata alone; `block` and AGNES_BLOCK name plugins or distributions."""
        environment = os.environ.get("AGNES_BLOCK", "").replace(",", " ").split()
        installed, block = tuple(installed_plugins()), tuple(block)
        known = {name for plugin in installed for name in (plugin.name, plugin.distribution)}
        for names, purpose in ((block, "to block"), (environment, "to block, as AGNES_BLOCK says")):
            for name in names:
                if _normal(name) not in map(_normal, known):
                    raise UsageError(f"there is no plugin or distribution '{name}' {purpose}{suggestion(name, known)}")
        return cls(installed, (*block, *environment))

    def _is_blocked(self, plugin: Plugin) -> bool:
        return not self.block.isdisjoint((_normal(plugin.name), _normal(plugin.distribution)))

    def of_stage(self, stage: str) -> tuple[Plugin, ...]:
        """The plugins of one stage, by name."""
        return tuple(p for p in self.plugins if p.stage == stage)

    def named(self, name: str, stages: Sequence[str] = GROUPS) -> Plugin:
        """The plugin a user typed."""
        for plugin in self.plugins:
            if plugin.name == name and plugin.stage in stages:
                return plugin
        if any(p.name == name and p.stage in stages for p in self.blocked):
            raise UsageError(f"plugin '{name}' is blocked; remove it from --block, AGNES_BLOCK or the configuration")
        for plugin in self.plugins:
            if plugin.name == name:
                wanted = " or ".join(stages)
                raise UsageError(f"'{name}' of {plugin.distribution} is of stage {plugin.stage}, not {wanted}")
        known = [p.name for p in self.plugins if p.stage in stages]
        raise UsageError(f"there is no plugin '{name}'{suggestion(name, known)} (agnes plugins lists them all)")

    def method(self, plugin: Plugin) -> type:
        """The class of a method's plugin, checked to be what the contract asks for."""
        loaded = plugin.load()
        owner = f"plugin '{plugin.name}' of {plugin.distribution}"
        if not is_method(loaded):
            raise BrokenPlugin(f"{owner}: {plugin.target} is not a frozen dataclass derived from agnes.Method")
        for setting in _settings(loaded, owner):
            if setting.default is dataclasses.MISSING:
                raise BrokenPlugin(f"{owner}: setting '{setting.name}' has no default; every setting needs one")
        hook = HOOK_OF.get(plugin.stage)
        if hook is not None and not callable(getattr(loaded, hook, None)):
            raise BrokenPlugin(f"{owner}: {plugin.target} has no method '{hook}', the hook of stage {plugin.stage}")
        return loaded


def _settings(method: type, owner: str) -> Sequence[Setting]:
    try:
        return settings_of(method)
    except Exception as error:  # whatever the annotations of a stranger raise when they are evaluated
        raise BrokenPlugin(f"{owner}: the types of its settings cannot be read: {error}") from error


def _normal(name: str) -> str:
    """A name as packaging compares names: case, hyphens, underscores and dots do not matter."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_plugins() -> list[Plugin]:
    """One Plugin for each entry point in a group of ours; nothing is imported."""
    installed = metadata.entry_points()
    return [_plugin(stage, entry) for stage in GROUPS for entry in installed.select(group=f"agnes.{stage}")]


def _plugin(stage: str, entry_point: metadata.EntryPoint) -> Plugin:
    distribution = entry_point.dist
    name = distribution and distribution.metadata["Name"]
    version = distribution and distribution.version
    return Plugin(
        entry_point.name, stage, name or "an unknown distribution", version or "0", entry_point.value, entry_point
    )


def _refuse_duplicates(plugins: Sequence[Plugin]) -> None:
    first: dict[tuple[str, str], Plugin] = {}
    for plugin in plugins:
        space = plugin.stage if plugin.stage in _OWN_NAMESPACE else ""
        other = first.setdefault((space, plugin.name), plugin)
        if other is not plugin:
            raise UsageError(
                f"two plugins are called '{plugin.name}': {other.target} of {other.distribution} and "
                f"{plugin.target} of {plugin.distribution}; leave one out with --block DISTRIBUTION"
            )
