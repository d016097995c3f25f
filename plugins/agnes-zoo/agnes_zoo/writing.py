"""Writing a trained network to a file that says nothing of how it was trained."""

from __future__ import annotations

import importlib.util
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from agnes.errors import AgnesError, UsageError
from agnes.reports.folder import write_bytes

SUFFIXES = (".onnx", ".safetensors", ".pt", ".pth")


def check_suffix(path: Path) -> None:
    """An error for a file of a kind that is not written."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path.name}: networks are written as {', '.join(SUFFIXES)}; name the file so")


def _needed(library: str, suffix: str) -> None:
    """An error with its remedy where a library is not installed."""
    if importlib.util.find_spec(library) is None:
        raise AgnesError(f"writing {suffix} takes {library}, which is not installed; pip install 'agnes-zoo[train]'")


def write(module: nn.Module, path: Path, input_shape: Sequence[int]) -> Path:
    """The network in the format of the file's suffix: ONNX, or its weights alone."""
    check_suffix(path)
    if path.suffix.lower() == ".onnx":
        return export_onnx(module, path, input_shape)
    state = {key: value.detach().cpu().contiguous().clone() for key, value in module.state_dict().items()}
    if path.suffix.lower() == ".safetensors":
        _needed("safetensors", ".safetensors")
        from safetensors.torch import save

        write_bytes(path, save(state))
    else:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes(path, buffer.getvalue())
    return path


def export_onnx(module: nn.Module, path: Path, input_shape: Sequence[int] = (3, 32, 32)) -> Path:
    """Write the module in eval mode as ONNX, any number of images at once, batch normalisation kept."""
    _needed("onnx", ".onnx")
    mode = torch.onnx.TrainingMode.PRESERVE  # what else is offered folds batch normalisation away
    was_training = module.training
    module.eval()
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (torch.zeros(1, *input_shape),),
                buffer,  # type: ignore[arg-type]  # a file will do as well as a name
                dynamo=False,
                opset_version=17,
                training=mode,
                do_constant_folding=False,
                input_names=["image"],
                output_names=["logits"],
                dynamic_axes={"image": {0: "images"}, "logits": {0: "images"}},
            )
    finally:
        module.train(was_training)
    write_bytes(path, buffer.getvalue())
    return path
