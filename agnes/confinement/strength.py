"""How well the child is shut in on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Strength:
    """The doors that the kernel closes, and what stays open where it cannot."""

    landlock: int = 0  # the kernel's version of Landlock; 0: files are not guarded
    seccomp: bool = False  # whether system calls are filtered
    why: tuple[str, ...] = ()  # what is missing

    @property
    def strong(self) -> bool:
        return self.landlock > 0 and self.seccomp

    def __str__(self) -> str:
        if self.strong:
            return f"strong (Landlock {self.landlock}, seccomp)"
        return f"weak ({'; '.join(self.why) or 'nothing is known of it'})"

    def as_json(self) -> dict[str, Any]:
        return {"landlock": self.landlock, "seccomp": self.seccomp, "why": list(self.why)}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Strength:
        """From what the child said before it touched the file."""
        return cls(int(told["landlock"]), bool(told["seccomp"]), tuple(str(reason) for reason in told["why"]))
