"""Words of the command line as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agnes.errors import UsageError
from agnes.text import printable


def assignments(words: Sequence[str]) -> dict[str, Any]:
    """`size=4`, `place=27,2` and `labels=next` as values; what is no number stays text."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"'{printable(word)}' is not an option of an attack; write --set NAME=VALUE")
        parts = [_value(part.strip()) for part in value.split(",")]
        found[name.strip()] = parts[0] if len(parts) == 1 else tuple(part for part in parts if part != "")
    return found


def fitted(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The same, a single value as a list of one where the default is a list."""
    return {
        name: (value,) if isinstance(defaults.get(name), tuple) and not isinstance(value, tuple) else value
        for name, value in given.items()
    }


def _value(text: str) -> Any:
    if text.lower() == "none":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
