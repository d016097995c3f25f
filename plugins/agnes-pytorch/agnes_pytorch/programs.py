"""What the child process made of a program: a network that comes back as ONNX, and is believed for what it computes."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from agnes import confinement
from agnes.errors import NothingApplicable, Refused, UsageError
from agnes.loading import LoadOptions, open_model, real_images
from agnes.preprocess import Preprocess
from agnes.registry import Plugin, Registry
from agnes_pytorch import opening

if TYPE_CHECKING:
    from agnes.network import Network

_MOST = 1024  # images that a child may hand logits of
IMAGES = 4  # random ones that a program is compared on


def ask(
    function: str,
    *arguments: Any,
    name: str,
    read: Sequence[Path],
    limits: confinement.Limits | None,
    prepare: Sequence[str] = (),
) -> Any:
    """What a function of this plugin, "module:function", answers in the child, which may read these files."""
    return confinement.run(
        f"agnes_pytorch.{function}",
        *arguments,
        limits=limits,
        allow_read=read,
        prepare=prepare,
        environment={"TORCHINDUCTOR_CACHE_DIR": os.sep},  # a folder that is there, or torch would make one
        what=name,
    )


def network(
    answer: Any, images: np.ndarray | None, name: str, options: LoadOptions, facts: Mapping[str, Any]
) -> Network:
    """The network that the child wrote as ONNX, compared with what the program itself computed there."""
    if isinstance(answer, dict) and "needs" in answer:
        raise needs_shape(name)
    match answer:
        case {"onnx": bytes(model), "logits": np.ndarray() as logits, "shape": [int(), int(), int()] as shape}:
            pass
        case _:
            raise garbage(name)
    onnx = _onnx_loader(name, options)
    layout = "NHWC" if options.layout == "NHWC" else "NCHW"
    with tempfile.TemporaryDirectory(prefix="agnes-") as folder:
        draft = Path(folder) / "model.onnx"
        draft.write_bytes(model)
        plain = replace(options, arch=None, layout=layout, trust_model_code=False)
        found = open_model(draft, plain, Registry([onnx])).network
    real = 0 if images is None else len(images)
    if (
        logits.dtype != np.float32
        or not real < len(logits) <= _MOST
        or math.prod(shape) != math.prod(found.input_shape)
    ):
        raise garbage(name)
    taken = opening.noise(len(logits) - real, shape)
    if images is not None:
        taken = torch.cat([taken, torch.from_numpy(images)])
    with torch.no_grad():
        ours = found.without_preprocessing()(taken)
    reference = f"torch {torch.__version__}, in the child process"
    found.facts = {
        **found.facts,
        **facts,
        "by_way_of": "onnx",
        "trusted": True,
        "isolation": str(confinement.strength()),
        "parity": opening.proven(found, ours, torch.from_numpy(logits), reference, real),
    }
    return found


def own_shape(options: LoadOptions) -> list[int] | None:
    """The shape of one image as the file's own network takes it."""
    if options.input_shape is None:
        return None
    channels, height, width = opening.checked_shape(options.input_shape)
    return [height, width, channels] if options.layout == "NHWC" else [channels, height, width]


def own_images(options: LoadOptions) -> np.ndarray | None:
    """A few of the user's images as the file's own network takes them; None where there are none."""
    if options.input_shape is None or (images := real_images(options, options.input_shape)) is None:
        return None
    layout = "NHWC" if options.layout == "NHWC" else "NCHW"
    preprocess = Preprocess(options.mean, options.std, options.scale, layout)
    preprocess.check(options.input_shape[0])
    return preprocess(images).contiguous().numpy()


def needs_shape(name: str) -> UsageError:
    """A program that does not say what it takes."""
    return UsageError(f"{name} does not say what images it takes; give --input-shape channels,height,width")


def garbage(name: str) -> Refused:
    """An answer that no honest child gives."""
    return Refused(f"refused: {name} made the child process answer with garbage; ask for another export")


def _onnx_loader(name: str, options: LoadOptions) -> Plugin:
    for plugin in Registry.discover(options.block).of_stage("loader"):
        if plugin.name == "onnx":
            return plugin
    raise NothingApplicable(
        f"{name} holds a program, which AGNES reads by way of ONNX, and agnes-onnx is not installed or is blocked; "
        "pip install agnes-onnx"
    )
