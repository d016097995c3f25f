"""`agnes bench agnes-2` for `agnes bench table agnes-2`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

ALL = "all"


class WithTables(TyperGroup):
    """A group of commands in which the name of a table is one, too."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first word names, or the one that runs the table of that name."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            from agnes_zoo.experiments.catalogue import TABLES

            if args[0] in TABLES or args[0] == ALL:
                args = ["table", *args]
        return super().resolve_command(ctx, args)
