"""Plugins as rows and as cards; rows come from metadata alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from agnes import settings
from agnes.hookspecs import METHOD_STAGES
from agnes.method import NEEDS, is_method, settings_of, summary_of
from agnes.registry import Plugin, Registry
from agnes.text import printable

_COLUMNS = ("name", "stage", "distribution", "version")


def rows(registry: Registry) -> list[dict[str, Any]]:
    """Every plugin, the blocked ones marked."""
    shown = [_row(plugin, blocked=False) for plugin in registry.plugins]
    return shown + [_row(plugin, blocked=True) for plugin in registry.blocked]


def _row(plugin: Plugin, *, blocked: bool) -> dict[str, Any]:
    return {**{column: getattr(plugin, column) for column in _COLUMNS}, "blocked": blocked}


def table(shown: Sequence[Mapping[str, Any]]) -> str:
    """The rows in columns."""
    if not shown:
        return "no plugin is installed; install agnes-onnx, agnes-stimulation and others"
    lines = [_COLUMNS, *([printable(row[column], 40) for column in _COLUMNS] for row in shown)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
    marks = ["", *("  blocked" if row["blocked"] else "" for row in shown)]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() + mark
        for line, mark in zip(lines, marks, strict=True)
    )


def card(registry: Registry, plugin: Plugin) -> dict[str, Any]:
    """All that a plugin says of itself; imports it."""
    from agnes.reports.json import plain  # rows do without what it needs

    loaded = registry.method(plugin) if plugin.stage in METHOD_STAGES else plugin.load()
    shown = _row(plugin, blocked=False)
    if not is_method(loaded):
        return {**shown, "summary": summary_of(loaded), "paper": "", "needs": [], "settings": []}
    return {
        **shown,
        "summary": summary_of(loaded),
        "paper": getattr(loaded, "paper", ""),
        "needs": sorted(getattr(loaded, "needs", ())),
        "settings": [
            {
                "name": setting.name,
                "type": settings.describe(setting.type),
                "default": None if setting.default is dataclasses.MISSING else plain(setting.default),
                "help": setting.help,
            }
            for setting in settings_of(loaded)
        ],
    }


def card_text(shown: Mapping[str, Any]) -> str:
    """A card for the eye."""
    lines = [
        f"{shown['name']}: {shown['summary']}",
        f"  {shown['stage']}, from {shown['distribution']} {shown['version']}",
    ]
    if shown["paper"]:
        lines.append(f"  paper: {shown['paper']}")
    needs = [NEEDS.get(need, need) for need in shown["needs"]]
    lines.append(f"  needs: {', '.join(needs) or 'nothing beyond a network and images'}")
    if shown["settings"]:
        lines.append("  settings:")
    for setting in shown["settings"]:
        default = "none" if setting["default"] is None else _written(setting["default"])
        lines.append(f"    --set {shown['name']}.{setting['name']}={default}")
        lines.append(f"        {setting['type']}{'; ' + setting['help'] if setting['help'] else ''}")
    return "\n".join(lines)


def _written(value: Any) -> str:
    """A default as a user would type it."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
