"""The exporter to .safetensors files."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agnes.errors import AgnesError, OutputError
from agnes.hookspecs import hookimpl
from agnes.method import Method

if TYPE_CHECKING:
    import torch

    from agnes.network import Network


@dataclass(frozen=True)
class SafetensorsExporter(Method):
    """Writes a network's weights under the keys of the file they came from."""

    parity_images: int = 4  # how many random images the written weights are compared on
    parity_limit: float = 1e-4  # the largest relative difference of the written weights that is accepted

    @hookimpl
    def export(self, network: Network, path: Path) -> Path | None:
        """Write, read again into the architecture, compare, and only then put in place."""
        if path.suffix.lower() != ".safetensors":
            return None
        if not network.facts.get("architecture"):
            raise OutputError(f"{path.name}: this network is of no registered architecture; write it as .onnx")
        network = network.to("cpu")
        try:
            handle, draft = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=".tmp", dir=path.parent)
            os.close(handle)
            try:
                self._write(network, Path(draft), path)
                Path(draft).chmod(0o644)
                os.replace(draft, path)
            finally:
                Path(draft).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}; choose another place") from error
        return path

    def _write(self, network: Network, draft: Path, path: Path) -> None:
        from safetensors.torch import save_file

        from agnes_pytorch import architectures

        prefix = str(network.facts.get("key_prefix", ""))
        state = _state(network)
        try:
            misfit = architectures.named(network.facts["architecture"]).misfit(
                {k: tuple(v.shape) for k, v in state.items()}
            )
        except AgnesError as error:
            raise OutputError(f"{path.name}: {error}") from error
        if misfit is not None:
            raise OutputError(
                f"{path.name}: the network is no longer '{network.facts['architecture']}': {misfit}; write .onnx"
            )
        save_file({prefix + key: value.contiguous().clone() for key, value in state.items()}, draft)
        self._compare(network, draft, path.name, prefix)

    def _compare(self, network: Network, draft: Path, name: str, prefix: str) -> None:
        import torch

        from agnes_pytorch import architectures, weights

        state = {key.removeprefix(prefix): value for key, value in weights.read(draft).items()}
        module = weights.filled(architectures.named(network.facts["architecture"]), network.class_count, state)
        images = torch.rand(self.parity_images, *network.input_shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            ours = network(images)
            taken = images if network.preprocess is None else network.preprocess(images)
            theirs = module(taken)
            if network.peeled:
                ours = ours.log_softmax(1) if network.peeled == "log_softmax" else ours.softmax(1)
        difference = float((theirs.flatten(1) - ours).abs().max()) / max(float(ours.abs().max()), 1e-12)
        if not difference <= self.parity_limit:
            raise OutputError(
                f"{name}: the written weights differ from the network by {difference:.2g} relative, more than "
                f"safetensors-export.parity_limit ({self.parity_limit:g}); nothing was kept, write it as .onnx"
            )


def _state(network: Network) -> dict[str, torch.Tensor]:
    """The weights under the architecture's own keys, without what AGNES put in front."""
    return dict(network.without_preprocessing().state_dict())
