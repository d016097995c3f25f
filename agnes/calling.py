"""Calling one method's hook through pluggy, so that it is given the arguments it names and no others."""

from __future__ import annotations

from typing import Any

import pluggy

from agnes import hookspecs
from agnes.errors import UsageError
from agnes.registry import BrokenPlugin


def manager_with(**plugins: Any) -> pluggy.PluginManager:
    """A plugin manager that knows the contract and these plugins."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for name, plugin in plugins.items():
        try:
            manager.register(plugin, name)
        except pluggy.PluginValidationError as error:
            reason = " ".join(str(error).split())
            raise BrokenPlugin(f"plugin '{name}' does not keep the contract of agnes.hookspecs: {reason}") from error
        except ValueError as error:
            raise UsageError(f"'{name}' listens already with the same settings; name it once") from error
    return manager


class Events:
    """All that listens to a run; a listener that fails is noted and does not end the run."""

    def __init__(self, listeners: dict[str, Any]) -> None:
        self._hooks = manager_with(**listeners).hook
        self.failures: list[str] = []

    def tell(self, event: str, **arguments: Any) -> None:
        try:
            getattr(self._hooks, event)(**arguments)
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            self.failures.append(f"a listener failed at {event}: {type(error).__name__}: {reason}")


def call(hook: str, name: str, method: Any, **arguments: Any) -> Any:
    """What one method's hook returns."""
    manager = manager_with(**{name: method})
    caller = getattr(manager.hook, hook)
    if not caller.get_hookimpls():
        raise BrokenPlugin(f"plugin '{name}' implements no hook '{hook}'; decorate its method with @agnes.hookimpl")
    absent = hookspecs.OPTIONAL & set(caller.spec.argnames)
    result = caller(**{**dict.fromkeys(absent), **arguments})
    if isinstance(result, list) and not caller.spec.opts.get("firstresult"):
        return result[0] if result else None
    return result
