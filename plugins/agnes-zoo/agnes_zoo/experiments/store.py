"""What experiments share: trained networks and what was measured of them, each kept under what it depends on."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agnes.registry import Registry
from agnes.reports.folder import write_bytes, write_text
from agnes.reports.json import plain
from agnes_zoo.dealing import deal
from agnes_zoo.making import Plan, make
from agnes_zoo.training import Watch
from agnes_zoo.writing import export_onnx

_LENGTH = 20  # characters of a digest that make a name


@dataclass(frozen=True)
class Answer:
    """What one probe found of one network."""

    values: Mapping[str, float | None]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)  # for plots
    failed: str = ""  # why there are none
    seconds: float = 0.0


@dataclass(frozen=True)
class Store:
    """A folder of networks and answers."""

    folder: Path

    def network(self, plan: Plan, watch: Watch | None = None) -> tuple[Path, dict[str, Any]]:
        """The file of a network and the truth about it; trained now if it was not before."""
        models = self.folder / "models"
        models.mkdir(parents=True, exist_ok=True)
        name = plan.digest[:_LENGTH]
        file, record = models / f"{name}.onnx", models / f"{name}.json"
        if file.exists() and record.exists():
            return file, json.loads(record.read_text(encoding="utf-8"))
        started = time.process_time()
        made = make(plan, work=self.folder / "training" / name, watch=watch)
        export_onnx(made.module, file, deal(plan.data).shape)
        truth = {**made.truth, "processor_seconds": round(time.process_time() - started, 1)}
        write_text(record, json.dumps(plain(truth), indent=1) + "\n")
        return file, truth

    def answer(self, key: str) -> Answer | None:
        """What was found before, unless it failed then."""
        place = self._place(key)
        try:
            said = json.loads(place.read_text(encoding="utf-8"))
            arrays = {}
            if said.pop("arrays"):
                with np.load(place.with_suffix(".npz"), allow_pickle=False) as kept:
                    arrays = {name: kept[name] for name in kept.files}
        except (OSError, ValueError, KeyError):
            return None
        return None if said["failed"] else Answer(**said, arrays=arrays)

    def keep(self, key: str, answer: Answer) -> None:
        """For another time."""
        place = self._place(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        if answer.arrays:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **answer.arrays)  # type: ignore[arg-type]
            write_bytes(place.with_suffix(".npz"), buffer.getvalue())
        said = {
            "values": dict(answer.values),
            "failed": answer.failed,
            "seconds": round(answer.seconds, 2),
            "arrays": sorted(answer.arrays),
        }
        write_text(place, json.dumps(plain(said), indent=1) + "\n")

    def _place(self, key: str) -> Path:
        return self.folder / "answers" / f"{key}.json"


def key_of(plan: Plan, measure: str, settings: Mapping[str, Any]) -> str:
    """What an answer depends on: the network, the measurement, its settings and what is installed."""
    said = [plan.digest, measure, plain(dict(settings)), _installed()]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:_LENGTH]


@functools.cache
def _installed() -> list[str]:
    return sorted({f"{p.distribution} {p.version}" for p in Registry.discover().plugins})
