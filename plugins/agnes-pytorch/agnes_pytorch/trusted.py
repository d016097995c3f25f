"""What runs in the confined child and runs a file's own code: only where the user trusts its author."""

from __future__ import annotations

import importlib.util
import inspect
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from agnes.errors import Refused
from agnes.text import printable
from agnes_pytorch.architectures import Architecture, prefix_of
from agnes_pytorch.confined import USUAL, state_in
from agnes_pytorch.opening import noise
from agnes_pytorch.weights import filled, of_arrays

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy


def program(
    path: Path, kind: str, shape: list[int] | None, count: int, real: numpy.ndarray | None, name: str
) -> dict[str, Any]:
    """A file that is a program, as ONNX with its logits of images; or its weights where it holds only these."""
    loaded = _opened(path, kind)
    if isinstance(loaded, dict):
        modules = [value for key, value in loaded.items() if key in USUAL and isinstance(value, nn.Module)]
        if not modules:
            return state_in(loaded, path.stat().st_size, name)
        loaded = modules[0]
    batch = None
    if isinstance(loaded, torch.export.ExportedProgram):
        own, batch = _exported_shape(loaded, name)
        if shape is not None and list(shape) != own:
            raise Refused(f"refused: {name} takes images of {own}, and {list(shape)} was given")
        shape, loaded = own, loaded.module()
    elif isinstance(loaded, nn.Module):
        loaded.eval()
    else:
        raise Refused(f"refused: {name} holds an object of type {printable(type(loaded).__name__)} and no network")
    if shape is None:
        return {"needs": "input_shape"}
    return {"shape": shape, **_as_onnx(loaded, noise(batch or count, shape), real, batch is not None)}


def designed(
    file: Path,
    make: str,
    arrays: dict[str, numpy.ndarray],
    shape: list[int] | None,
    count: int,
    real: numpy.ndarray | None,
    name: str,
) -> dict[str, Any]:
    """Weights in an architecture that the user's own code makes, as ONNX with its logits of images."""
    architecture = Architecture(f"{file.name}:{make}", _maker(file, make))
    prefix = prefix_of(arrays)
    state = {key.removeprefix(prefix): value for key, value in of_arrays(arrays).items()}
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    misfit = architecture.misfit(shapes)
    if misfit is not None:
        raise Refused(f"refused: {name} does not fit architecture '{printable(architecture.name)}': {misfit}")
    module = filled(architecture, architecture.class_count(shapes) or 2, state)
    own = shape or getattr(module, "input_shape", None)
    if own is None:
        return {"needs": "input_shape"}
    return {"shape": list(own), **_as_onnx(module, noise(count, own), real, False)}


def _maker(file: Path, name: str) -> Callable[[int], Any]:
    """What makes the network for a number of classes, which the user's own function may not ask for."""
    spec = importlib.util.spec_from_file_location("agnes_architecture", file)
    assert spec is not None
    assert spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code)
    make: Any = getattr(code, name, None)
    if not callable(make):
        raise Refused(f"refused: {printable(file.name)} has no class or function '{printable(name)}'")
    first = next(iter(inspect.signature(make).parameters.values()), None)
    if first is None or first.kind is first.VAR_KEYWORD:
        return lambda _: make()
    asks = first.default is first.empty or "class" in first.name
    return make if asks else lambda _: make()


def _opened(path: Path, kind: str) -> Any:
    if kind == "TorchScript":
        return torch.jit.load(path, map_location="cpu")
    if kind == "torch.export":
        return torch.export.load(path)
    if kind == "torch.package":
        raise Refused("refused: torch.package files name no network; save the network itself as TorchScript or ONNX")
    return torch.load(path, map_location="cpu", weights_only=False)


def _exported_shape(exported: Any, name: str) -> tuple[list[int], int | None]:
    """The shape of one image of an exported program, and how many it takes at a time where that is fixed."""
    inputs = [s.arg.name for s in exported.graph_signature.input_specs if s.kind.name == "USER_INPUT"]
    values = [n.meta["val"] for n in exported.graph.nodes if n.op == "placeholder" and n.name in inputs]
    if len(values) != 1 or values[0].dim() != 4 or not all(isinstance(size, int) for size in values[0].shape[1:]):
        raise Refused(f"refused: {name} does not take one batch of images of one size")
    batch = values[0].shape[0]
    return list(values[0].shape[1:]), batch if isinstance(batch, int) else None


def _as_onnx(module: nn.Module, images: torch.Tensor, real: numpy.ndarray | None, fixed: bool) -> dict[str, Any]:
    """The module exported at these images, as a file of any batch or a fixed one, and its logits of them and more."""
    parts = [images] if real is None else [images, *_batches(torch.from_numpy(real), len(images) if fixed else None)]
    with torch.no_grad():
        logits = torch.cat([module(part) for part in parts])[: len(images) + (0 if real is None else len(real))]
    to: Any = io.BytesIO()
    torch.onnx.export(
        module,
        (images,),
        to,
        dynamo=False,
        opset_version=17,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_axes=None if fixed else {"images": {0: "batch"}, "logits": {0: "batch"}},
    )
    return {"onnx": to.getvalue(), "logits": logits.numpy()}


def _batches(images: torch.Tensor, size: int | None) -> list[torch.Tensor]:
    """Images in batches of the one size that is taken, the last filled up with its first image."""
    if size is None:
        return [images]
    missing = -len(images) % size
    return list(torch.cat([images, images[:1].expand(missing, *images.shape[1:])]).split(size))
