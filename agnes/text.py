"""Text that strangers wrote, made fit for a terminal or a report."""

from __future__ import annotations

import unicodedata

# control, format (bidi, zero width), surrogate, private use, line and paragraph separators
_STRIPPED = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def printable(text: object, limit: int = 200) -> str:
    """The text without control and bidi characters, its middle left out beyond `limit` characters."""
    raw = str(text)
    if len(raw) > 8 * limit:  # what follows need not read a megabyte of name
        raw = raw[: 4 * limit] + raw[-4 * limit :]
    clean = "".join(c for c in raw if unicodedata.category(c) not in _STRIPPED)
    if len(clean) <= limit:
        return clean
    head = (limit - 1) // 2
    return f"{clean[:head]}…{clean[len(clean) - (limit - 1 - head) :]}"


def counted(number: int, noun: str) -> str:
    """'1 image', '2 images'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
