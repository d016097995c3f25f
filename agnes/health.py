"""Whether this installation can do its work."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import agnes
from agnes.confinement import strength
from agnes.errors import AgnesError
from agnes.hookspecs import HOOK_OF
from agnes.registry import Registry
from agnes.reports.environment import versions

_ONE_OF = ("onnxruntime", "onnxruntime-gpu")  # install the same folder: the last one wins


@dataclass(frozen=True)
class Health:
    """What was found, and what is wrong with it."""

    versions: dict[str, str]
    device: dict[str, Any]
    plugins: int
    problems: tuple[str, ...]

    @property
    def sound(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        return {
            "versions": self.versions,
            "device": self.device,
            "plugins": self.plugins,
            "problems": list(self.problems),
        }


def examine(block: Sequence[str] = ()) -> Health:
    """Import every plugin, ask for the device, compare what is installed."""
    problems: list[str] = []
    device: dict[str, Any] = {}
    known = {"agnes": agnes.__version__, "python": platform.python_version(), **versions()}
    plugins = 0
    try:
        registry = Registry.discover(block)
        plugins = len(registry.plugins)
        problems += _broken(registry)
    except AgnesError as error:
        problems.append(str(error))
    try:
        from agnes.backend import Backend

        device = Backend.choose().describe()
    except Exception as error:
        problems.append(f"no device: {type(error).__name__}: {error}")
    try:
        device["isolation"] = str(strength())
    except AgnesError as error:
        problems.append(str(error))
    return Health(known, device, plugins, (*problems, *_clashes()))


def _broken(registry: Registry) -> list[str]:
    problems = []
    for plugin in registry.plugins:
        try:
            if plugin.stage in HOOK_OF:
                registry.method(plugin)
            else:
                plugin.load()
        except AgnesError as error:
            problems.append(str(error))
    return problems


def _clashes() -> list[str]:
    found = []
    for name in _ONE_OF:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    if len(found) < 2:
        return []
    return [
        f"{' and '.join(found)} are both installed and share one folder; pip uninstall one, then reinstall the other"
    ]
