"""The commands of plugins beside our own: listed from metadata, imported when called."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from agnes.errors import UsageError
from agnes.registry import Plugin, Registry


class Commands(TyperGroup):
    """A group whose commands may come from entry points of `agnes.command`; each names a typer.Typer."""

    def list_commands(self, ctx: Any) -> list[str]:
        own = list(self.commands)
        return own + [name for name in _installed() if name not in self.commands]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        plugin = _installed().get(cmd_name)
        if own is not None or plugin is None:
            return own
        return TyperCommand(cmd_name, help=f"A command of {plugin.distribution}.")  # enough for a list

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        ours = not args or args[0] in self.commands
        plugin = None if ours else _of(Registry.discover()).get(args[0])  # what is wrong there is told here
        if plugin is None:
            return super().resolve_command(ctx, args)
        command: Any = typer.main.get_command(plugin.load())
        command.name = args[0]
        return args[0], command, args[1:]


def _installed() -> dict[str, Plugin]:
    try:
        return _of(Registry.discover())
    except UsageError:  # told by the command, which knows of --block
        return {}


def _of(registry: Registry) -> dict[str, Plugin]:
    return {plugin.name: plugin for plugin in registry.of_stage("command")}
