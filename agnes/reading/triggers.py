"""Triggers of a run folder, read back from their .npz files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from agnes.errors import Refused, UsageError
from agnes.reading import arrays
from agnes.reading.arrays import Archive
from agnes.reading.parts import check_total
from agnes.results import AdditiveTrigger, MaskTrigger, Trigger
from agnes.text import printable


def read_trigger(path: Path | str) -> Trigger:
    """The trigger in an .npz of a run folder, ready to be applied; what it did to its network is in the report."""
    with arrays.opened(Path(path)) as archive:
        kind = _word(archive, "kind")
        if kind == AdditiveTrigger.__name__:
            delta = _numbers(archive, "delta", -1)
            return AdditiveTrigger(target=_target(archive), asr=0.0, held_out=0, delta=delta)
        if kind == MaskTrigger.__name__:
            mask, pattern = _numbers(archive, "mask", 0), _numbers(archive, "pattern", 0)
            if mask.shape != (1, *pattern.shape[1:]):
                raise Refused(
                    f"{archive.source}: a mask of {tuple(mask.shape)} for a pattern of {tuple(pattern.shape)}"
                )
            return MaskTrigger(target=_target(archive), asr=0.0, held_out=0, mask=mask, pattern=pattern)
        raise UsageError(f"{archive.source}: '{printable(kind, 40)}' is no trigger that AGNES can apply by itself")


def _stored(archive: Archive, name: str) -> np.ndarray:
    if name not in archive.members:
        raise UsageError(
            f"{archive.source}: no trigger, '{name}' is missing; give a .npz from a run's triggers/ folder"
        )
    return archive.array(name)


def _word(archive: Archive, name: str) -> str:
    stored = _stored(archive, name)
    if stored.ndim or stored.dtype.kind != "U":
        raise Refused(f"{archive.source}: '{name}' is not a word")
    return str(stored)


def _target(archive: Archive) -> int:
    stored = _stored(archive, "target")
    if stored.ndim or stored.dtype.kind not in "iu" or stored < 0:
        raise Refused(f"{archive.source}: 'target' is not the number of a class")
    return int(stored)


def _numbers(archive: Archive, name: str, least: float) -> torch.Tensor:
    """Channels x height x width of numbers between `least` and 1."""
    stored = _stored(archive, name)
    if stored.ndim != 3 or stored.dtype.kind != "f" or not stored.size:
        raise Refused(f"{archive.source}: '{name}' is {stored.dtype} of shape {stored.shape}, not an image of numbers")
    check_total(1, stored.shape, archive.source)
    values = stored.astype(np.float32)
    if not (np.isfinite(values).all() and values.min() >= least and values.max() <= 1):
        raise Refused(f"{archive.source}: '{name}' has numbers outside {least:g} to 1")
    return torch.from_numpy(values)
