"""The checkpoint of a training: a file that is there whole or not at all, and known by what it belongs to."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from agnes.errors import UsageError
from agnes.reports.folder import write_bytes


@dataclass
class Checkpoint:
    """Where a training's state is kept while it lasts."""

    path: Path
    belongs_to: str  # what the training is; a checkpoint of another one is refused
    every: float = 30.0  # seconds between two writings
    _last: float = field(default_factory=time.monotonic, repr=False)

    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() - self._last >= self.every

    def write(self, state: dict[str, Any]) -> None:
        """Replace what was kept before."""
        buffer = io.BytesIO()
        torch.save({"belongs_to": self.belongs_to, **state}, buffer)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(self.path, buffer.getvalue())
        self._last = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """What was kept, or None where nothing is."""
        if not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise UsageError(f"{self.path} is no checkpoint that can be read; remove it to train anew") from error
        if state.pop("belongs_to", None) != self.belongs_to:
            raise UsageError(
                f"{self.path} is the checkpoint of another training; remove it, or give another file with -o"
            )
        return state

    def remove(self) -> None:
        """The training is over."""
        self.path.unlink(missing_ok=True)
