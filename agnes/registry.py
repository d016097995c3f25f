"""Find plugins by entry point, block before loading, load on demand, and say what failed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from agnes.errors import AgnesError, UsageError, suggestion
from agnes.hookspecs import GROUPS, HOOK_OF
from agnes.method import is_method

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
            loaded = self._entry_point.load()
        except Exception as error:
            raise BrokenPlugin(
                f"plugin '{self.name}' of {self.distribution} {self.version} cannot be imported: "
                f"{type(error).__name__}: {error}; reinstall it or leave it out with --block {self.name}"
            ) from error
        return loaded


class Registry:
    """The plugins of this installation."""

    def __init__(self, plugins: Iterable[Plugin], blocked: Iterable[str] = ()) -> None:
        self.block = frozenset(blocked)
        found = sorted(plugins, key=lambda p: (GROUPS.index(p.stage), p.name))
        self.blocked = tuple(p for p in found if self._is_blocked(p))
        self.plugins = tuple(p for p in found if not self._is_blocked(p))
        _refuse_duplicates(self.plugins)

    @classmethod
    def discover(cls, block: Iterable[str] = ()) -> Registry:
        """Everything installed, from metadata alone; `block` and AGNES_BLOCK name plugins or distributions."""
        environment = os.environ.get("AGNES_BLOCK", "").replace(",", " ").split()
        return cls(installed_plugins(), (*block, *environment))

    def _is_blocked(self, plugin: Plugin) -> bool:
        return plugin.name in self.block or plugin.distribution in self.block

    def of_stage(self, stage: str) -> tuple[Plugin, ...]:
        """The plugins of one stage, by name."""
        return tuple(p for p in self.plugins if p.stage == stage)

    def named(self, name: str, stages: Sequence[str] = GROUPS) -> Plugin:
        """The plugin a user typed."""
        for plugin in self.plugins:
            if plugin.name == name and plugin.stage in stages:
                return plugin
        if any(p.name == name for p in self.blocked):
            raise UsageError(f"plugin '{name}' is blocked; remove it from --block, AGNES_BLOCK or the configuration")
        known = [p.name for p in self.plugins if p.stage in stages]
        raise UsageError(f"there is no plugin '{name}'{suggestion(name, known)} (agnes plugins lists them all)")

    def method(self, plugin: Plugin) -> type:
        """The class of a method's plugin, checked to be what the contract asks for."""
        loaded = plugin.load()
        owner = f"plugin '{plugin.name}' of {plugin.distribution}"
        if not is_method(loaded):
            raise BrokenPlugin(f"{owner}: {plugin.target} is not a frozen dataclass; derive it from agnes.Method")
        hook = HOOK_OF.get(plugin.stage)
        if hook is not None and not callable(getattr(loaded, hook, None)):
            raise BrokenPlugin(f"{owner}: {plugin.target} has no method '{hook}', the hook of stage {plugin.stage}")
        return loaded


def installed_plugins() -> list[Plugin]:
    """One Plugin for each entry point in a group of ours; nothing is imported."""
    groups = {f"agnes.{stage}": stage for stage in GROUPS}
    found = []
    for entry_point in metadata.entry_points():
        stage = groups.get(entry_point.group)
        if stage is None:
            continue
        distribution = entry_point.dist
        name = distribution.metadata["Name"] if distribution else "an unknown distribution"
        version = distribution.version if distribution else "0"
        found.append(Plugin(entry_point.name, stage, name, version, entry_point.value, entry_point))
    return found


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
