"""How sure a share is that was counted on a few images."""

from __future__ import annotations

_Z = 1.959963984540054  # the normal distribution's 97.5 % quantile


def wilson(share: float, count: int) -> tuple[float, float] | None:
    """The 95 % interval of a share counted on `count` things (Wilson's score interval); None where nothing was."""
    if count < 1:
        return None
    right = round(share * count)
    shrink = 1 + _Z**2 / count
    middle = (right / count + _Z**2 / (2 * count)) / shrink
    half = _Z / shrink * (right * (count - right) / count**3 + _Z**2 / (4 * count**2)) ** 0.5
    low = 0.0 if right == 0 else max(0.0, middle - half)
    return low, 1.0 if right == count else min(1.0, middle + half)
