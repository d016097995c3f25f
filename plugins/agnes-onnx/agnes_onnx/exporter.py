"""The exporter to .onnx files."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agnes.errors import OutputError, Refused
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.text import printable

if TYPE_CHECKING:
    from torch import nn

    from agnes.network import Network


@dataclass(frozen=True)
class OnnxExporter(Method):
    """Writes a network as ONNX, as its file was: without what AGNES put in front, softmax put back, BatchNorm kept."""

    opset: int = 17  # the version of ONNX's operators to write; torch 2.13 writes 7 to 23
    parity_images: int = 4  # how many random images the written file is compared on
    parity_limit: float = 1e-4  # the largest relative difference of the written file that is accepted

    @hookimpl
    def export(self, network: Network, path: Path) -> Path | None:
        """Write, read again, compare, and only then put in place."""
        if path.suffix.lower() != ".onnx":
            return None
        network = network.to("cpu")
        try:
            with _in_its_place(path) as draft:
                self._write(network, draft, path.name)
                self._compare(network, draft, path.name)
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}; choose another place") from error
        return path

    def _write(self, network: Network, draft: Path, name: str) -> None:
        import torch

        from agnes_onnx.parity import as_file_takes

        example = as_file_takes(network, torch.zeros(1, *network.input_shape))
        source = str(network.facts.get("input_name") or "input")
        target = str(network.facts.get("output_name") or ("probabilities" if network.peeled else "logits"))
        try:
            with _quiet():
                torch.onnx.export(
                    _with_softmax(network),
                    (example,),
                    draft,
                    dynamo=False,
                    opset_version=self.opset,
                    input_names=[source],
                    output_names=[target],
                    dynamic_axes={source: {0: "batch"}, target: {0: "batch"}},
                    training=torch.onnx.TrainingMode.PRESERVE,  # else BatchNorm is folded away
                    do_constant_folding=False,
                )
        except OSError:
            raise
        except Exception as error:
            reason = printable(str(error).strip().partition("\n")[0])
            raise OutputError(
                f"{name}: torch cannot write this network as ONNX opset {self.opset}: {reason}"
            ) from error

    def _compare(self, network: Network, draft: Path, name: str) -> None:
        import torch

        from agnes_onnx import parity
        from agnes_onnx.runtime import Reference

        images = parity.random_images(network.input_shape, self.parity_images)
        with torch.no_grad():
            ours = parity.as_in_file(network, network(images))
        try:
            answer = Reference(what=name).run(draft.read_bytes(), parity.as_file_takes(network, images))
        except Refused as error:
            raise OutputError(f"{name}: the written file does not run: {error}") from error
        _, relative = parity.differences(answer.logits, ours)
        if not relative <= self.parity_limit:
            raise OutputError(
                f"{name}: the written file differs from the network by {relative:.2g} relative, "
                f"more than onnx-export.parity_limit ({self.parity_limit:g}); nothing was kept"
            )


def _with_softmax(network: Network) -> nn.Module:
    """The file's own network, its softmax back at the end."""
    from torch import nn

    from agnes.graphs import output_value

    module = network.without_preprocessing().eval()
    if network.peeled:
        module.add_submodule("agnes_softmax", nn.LogSoftmax(1) if network.peeled == "log_softmax" else nn.Softmax(1))
        logits = output_value(module)
        with module.graph.inserting_after(logits):
            call = module.graph.call_module("agnes_softmax", (logits,))
        logits.replace_all_uses_with(call, delete_user_cb=lambda user: user.op == "output")
        module.recompile()
    return module


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch warns of the exporter's age and of constants it meets, and prints the graph of what it cannot write."""
    import torch

    logger = logging.getLogger("torch.onnx")
    level, log = logger.level, torch._C._jit_onnx_log
    logger.setLevel(logging.ERROR)
    torch._C._jit_onnx_log = lambda *parts: None  # torch 2.13 means to ask first whether it may print, and does not
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        torch._C._jit_onnx_log = log


@contextlib.contextmanager
def _in_its_place(path: Path) -> Iterator[Path]:
    """A draft beside a file, which takes the file's place when all went well and is gone when not."""
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o644)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
