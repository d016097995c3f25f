"""The manifest of a zoo: the only place, beside truth/, that says which of its models are trojaned."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agnes.errors import UsageError
from agnes.reports.folder import write_text
from agnes.reports.json import plain
from agnes.text import printable

SCHEMA_VERSION = "1.0"
MANIFEST, MODELS, SAMPLES, TRUTH = "manifest.json", "models", "samples", "truth"


@dataclass
class Manifest:
    """What is in a zoo."""

    recipe: dict[str, Any]  # name, seed and digest
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)  # by name
    failed: dict[str, dict[str, Any]] = field(default_factory=dict)  # that reached no bar in any attempt
    versions: dict[str, str] = field(default_factory=dict)
    complete: bool = False
    schema_version: str = SCHEMA_VERSION

    def write(self, folder: Path) -> None:
        """In one step, whole or not at all."""
        document = {
            "schema_version": self.schema_version,
            "complete": self.complete,
            "recipe": self.recipe,
            "versions": self.versions,
            "data": self.data,
            "models": [{"name": name, **self.models[name]} for name in sorted(self.models)],
            "failed": [{"name": name, **self.failed[name]} for name in sorted(self.failed)],
        }
        write_text(folder / MANIFEST, json.dumps(plain(document), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Of a zoo that is there."""
        path = folder / MANIFEST
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UsageError(f"{printable(folder)} holds no zoo: no {MANIFEST}; agnes zoo build makes one") from None
        except (OSError, ValueError) as error:
            raise UsageError(f"{printable(path)} cannot be read: {error}") from error
        version = str(said.get("schema_version", "")) if isinstance(said, Mapping) else ""
        if version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
            raise UsageError(
                f"{printable(path)} has schema version '{printable(version, 20)}'; agnes-zoo reads {SCHEMA_VERSION}"
            )
        try:
            models, failed = ({m.pop("name"): m for m in said[key]} for key in ("models", "failed"))
            return cls(said["recipe"], said["data"], models, failed, said["versions"], said["complete"], version)
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{printable(path)} is no manifest of a zoo: {error}") from error


def model_file(folder: Path, name: str) -> Path:
    """Where a model lies; its name says nothing but a number."""
    return folder / MODELS / f"{name}.onnx"


def samples_folder(folder: Path, data: str) -> Path:
    """Benign images of one of the zoo's data."""
    return folder / SAMPLES / data


def held_out_file(folder: Path, data: str) -> Path:
    """The images that truth is measured on."""
    return folder / TRUTH / f"{data}.npz"


def held_out(folder: Path, data: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 N, H, W, C and labels that no training, scan or repair has seen."""
    with np.load(held_out_file(folder, data), allow_pickle=False) as arrays:
        return arrays["images"], arrays["labels"]


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
