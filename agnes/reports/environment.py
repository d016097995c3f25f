"""What a report says of the data and of where it was made."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

import agnes
from agnes.memory import process_peak

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.dealing import Dealt
    from agnes.registry import Registry
    from agnes.selection import Selection

_TOLD = ("torch", "numpy", "pluggy", "pillow", "onnx", "onnxruntime", "onnxruntime-gpu", "onnx2torch", "safetensors")


def of_images(dealt: Dealt) -> dict[str, Any]:
    """The images of a run: those of the scan, and how many others there were."""
    samples = dealt.scan
    labels, test = samples.labels, dealt.measure.test
    return {
        "source": samples.source,
        "images": len(samples),
        "shape": list(samples.shape),
        "labelled": samples.labelled,
        "inverted": samples.inverted,
        "classes": None if labels is None else len(labels.unique()),
        "test_images": 0 if test is None else len(test),
        "repair_images": len(dealt.repair),
        "sha256": samples.sha256,
        "notes": [*samples.notes, *dealt.notes],
    }


def describe(backend: Backend, registry: Registry, chosen: Selection) -> dict[str, Any]:
    """The machine, the versions, and the plugins that could not take part."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "agnes": agnes.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": versions(),
        "blocked": sorted(p.name for p in registry.blocked),
        "broken_plugins": list(chosen.broken),
        **backend.describe(),
    }


def versions() -> dict[str, str]:
    """The installed versions of the libraries that results depend on."""
    found = {}
    for name in _TOLD:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def with_peak(described: Mapping[str, Any], backend: Backend, known: int = 0) -> dict[str, Any]:
    """With the most memory that the process has held so far, in bytes; `known`: a peak that was reset since."""
    return {
        **described,
        "peak_memory": max(process_peak() or 0, known) or None,
        "peak_device_memory": _device_peak(backend),
    }


def _device_peak(backend: Backend) -> int | None:
    """What the allocator holds: measuring chunks resets its own peaks, and it gives nothing back in between."""
    if backend.device.type != "cuda":
        return None
    import torch

    return torch.cuda.memory_reserved(backend.device)
