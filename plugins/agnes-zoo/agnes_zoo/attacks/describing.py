"""Attacks as JSON objects and back: each part says its kind and its fields, computed arrays included."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from agnes.errors import UsageError, suggestion
from agnes_zoo.attacks import (
    by_class,
    contents,
    dynamic,
    filters,
    goals,
    hijacking,
    places,
    preparing,
    triggers,
    warping,
)
from agnes_zoo.attacks.adaptive import AdaptiveLoss
from agnes_zoo.attacks.attack import Attack

_PARTS: tuple[type, ...] = (
    *(
        Attack,
        AdaptiveLoss,
        triggers.Trigger,
        by_class.ByClass,
        filters.Filter,
        warping.Warp,
        hijacking.Hijack,
        dynamic.InputAware,
    ),
    *(places.Everywhere, places.Box, places.Corner, places.RandomPlace, places.Cell, places.Shape, places.Pieces),
    *(contents.Colour, contents.RandomPixels, contents.Checks, contents.Grid, contents.Sinusoid, contents.Picture),
    *(preparing.Perturbation, preparing.Adversarial, preparing.Blend),
    *(goals.AllToOne, goals.SourceToTarget, goals.CleanLabel, goals.NextClass),
)
_KINDS = {part.__name__: part for part in _PARTS}
_ARRAY = "array"


def described(part: Any) -> Any:
    """A part as plain JSON. A network that poisoning was computed on is left out."""
    if isinstance(part, torch.Tensor):
        values = part.detach().cpu().numpy().astype("<f4")
        text = base64.b64encode(values.tobytes()).decode("ascii")
        return {"kind": _ARRAY, "shape": list(values.shape), "float32": text}
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        fields = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        return {"kind": type(part).__name__} | {
            name: described(value) for name, value in fields.items() if not isinstance(value, nn.Module)
        }
    return [described(item) for item in part] if isinstance(part, tuple) else part


def rebuilt(said: Any) -> Any:
    """The part that JSON describes."""
    if isinstance(said, list):
        return tuple(rebuilt(item) for item in said)
    if not isinstance(said, Mapping):
        return said
    kind = said.get("kind")
    if kind == _ARRAY:
        values = np.frombuffer(base64.b64decode(said["float32"]), "<f4").reshape(said["shape"])
        return torch.from_numpy(values.copy())
    if kind not in _KINDS:
        raise UsageError(f"'{kind}' is no part of an attack{suggestion(str(kind), _KINDS)}")
    part = _KINDS[kind]
    given = {name: rebuilt(value) for name, value in said.items() if name != "kind"}
    known = {field.name for field in dataclasses.fields(part)}
    for name in given:
        if name not in known:
            raise UsageError(f"{kind} has no field '{name}'{suggestion(name, known)}")
    try:
        return part(**given)
    except TypeError as error:
        raise UsageError(f"this description of a {kind} lacks something: {error}") from error
