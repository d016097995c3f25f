"""Triggers of a run folder, read back from their .npz files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from agnes.errors import Refused, UsageError
from agnes.features import FeatureTrigger
from agnes.reading import arrays
from agnes.reading.arrays import Archive
from agnes.reading.parts import check_total
from agnes.results import AdditiveTrigger, MaskTrigger, Trigger
from agnes.text import printable

_LARGEST_WINDOW = 31  # of a filter, in pixels


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
        if kind == FeatureTrigger.__name__:
            return _feature(archive)
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


def _feature(archive: Archive) -> FeatureTrigger:
    """A filter: how each pixel's colours are mixed, and how strongly that changed images."""
    window, mix, changed = (_stored(archive, name) for name in ("window", "mix", "changed"))
    if window.ndim or window.dtype.kind not in "iu" or not 1 <= window <= _LARGEST_WINDOW or window % 2 == 0:
        raise Refused(f"{archive.source}: 'window' is not an odd number up to {_LARGEST_WINDOW}")
    if mix.ndim != 2 or mix.shape[0] not in (1, 3) or mix.shape[1] != 4 * mix.shape[0] + 1:
        raise Refused(f"{archive.source}: 'mix' of shape {mix.shape} mixes no image's colours")
    if mix.dtype.kind != "f" or not np.isfinite(mix := _single(mix)).all():
        raise Refused(f"{archive.source}: 'mix' holds what is no number")
    plain = changed.ndim == 2 and changed.dtype.kind == "f" and bool(changed.size)
    if not plain or not np.isfinite(changed := _single(changed)).all():
        raise Refused(f"{archive.source}: 'changed' of shape {changed.shape} is no map of an image")
    check_total(1, (int(mix.shape[0]), *changed.shape), archive.source)
    return FeatureTrigger(
        target=_target(archive),
        asr=0.0,
        held_out=0,
        mix=torch.from_numpy(mix),
        window=int(window),
        changed=torch.from_numpy(changed),
    )


def _single(stored: np.ndarray) -> np.ndarray:
    """As float32; what is too large for it becomes infinite."""
    with np.errstate(over="ignore"):
        return stored.astype(np.float32)


def _numbers(archive: Archive, name: str, least: float) -> torch.Tensor:
    """Channels x height x width of numbers between `least` and 1."""
    stored = _stored(archive, name)
    if stored.ndim != 3 or stored.dtype.kind != "f" or not stored.size:
        raise Refused(f"{archive.source}: '{name}' is {stored.dtype} of shape {stored.shape}, not an image of numbers")
    check_total(1, stored.shape, archive.source)
    values = _single(stored)
    if not (np.isfinite(values).all() and values.min() >= least and values.max() <= 1):
        raise Refused(f"{archive.source}: '{name}' has numbers outside {least:g} to 1")
    return torch.from_numpy(values)
