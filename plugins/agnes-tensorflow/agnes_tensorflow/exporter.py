"""The exporter to .keras and .h5 files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agnes import confinement
from agnes.errors import AgnesError, OutputError
from agnes.hookspecs import hookimpl
from agnes.method import Method

if TYPE_CHECKING:
    from agnes.network import Network

_SUFFIXES = {".keras": "keras", ".h5": "h5", ".hdf5": "h5"}


@dataclass(frozen=True)
class KerasExporter(Method):
    """Writes a repaired network into the Keras model that it was opened from: same layers, new weights."""

    memory: int = 4 << 30  # bytes of memory that the child process may take beyond its libraries
    cpu_seconds: int = 90  # of processor time that the child process may take
    wall_seconds: float = 50.0  # that the child process may take
    parity_images: int = 4  # how many random images the written file is compared on
    parity_limit: float = 1e-4  # the largest relative difference of the written file that is accepted

    @hookimpl
    def export(self, network: Network, path: Path) -> Path | None:
        """Write in the child, read again there, compare, and only then put in place."""
        if path.suffix.lower() not in _SUFFIXES:
            return None
        source = _source(network, path)
        network = network.to("cpu")
        try:
            with tempfile.TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent) as folder:
                draft = Path(folder) / f"draft{path.suffix.lower()}"
                self._write(network, source, draft, path.name)
                os.replace(draft, path)
                path.chmod(0o644)
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}; choose another place") from error
        return path

    def _write(self, network: Network, source: Path, draft: Path, name: str) -> None:
        import torch

        from agnes_tensorflow import handover, loader

        images = torch.rand(self.parity_images, *network.input_shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            ours = handover.as_in_file(network, network(images))
            taken = images if network.preprocess is None else network.preprocess(images)
        limits = confinement.Limits(memory=self.memory, cpu_seconds=self.cpu_seconds, wall_seconds=self.wall_seconds)
        try:
            loader.check(source, str(network.facts["format"]), limits, 1 << 40)
            outputs = confinement.run(
                "agnes_tensorflow.rewriting:rewritten",
                source.resolve(),
                draft.resolve(),
                _weights(network, name),
                taken.contiguous().numpy(),
                limits=limits,
                allow_read=[source],
                allow_write=[draft.parent],
                prepare=loader.PREPARE,
                environment=loader.ENVIRONMENT,
                what=name,
            )
        except OutputError:
            raise
        except AgnesError as error:
            raise OutputError(
                f"{name}: the repaired weights cannot be written as Keras: {error}; write .onnx"
            ) from error
        theirs = torch.from_numpy(outputs).flatten(1)
        relative = handover.difference(ours, theirs)[1] if theirs.shape == ours.shape else float("inf")
        if not relative <= self.parity_limit:
            raise OutputError(
                f"{name}: the written file differs from the network by {relative:.2g} relative, more than "
                f"keras-export.parity_limit ({self.parity_limit:g}): its layers do not map one to one; write .onnx"
            )


def _source(network: Network, path: Path) -> Path:
    """The file that the network was opened from, unchanged since."""
    from agnes.loading import sha256_of

    if network.facts.get("format") not in _SUFFIXES.values():
        raise OutputError(f"{path.name}: this network was not opened from a Keras file; write it as .onnx")
    source = Path(str(network.facts["path"]))
    if not source.is_file() or sha256_of(source) != network.facts["sha256"]:
        raise OutputError(f"{path.name}: the original file {source.name} is gone or has changed; write .onnx")
    return source


def _weights(network: Network, name: str) -> dict[int, Any]:
    """The file's weights by their number, in torch's order of dimensions."""
    state = network.without_preprocessing().state_dict()
    pairs: Mapping[str, Any] = network.facts["weights"]
    lost = [key for key in pairs if key not in state]
    if lost:
        raise OutputError(f"{name}: the network has no '{lost[0]}' any more, as the Keras file has; write .onnx")
    return {int(index): state[key].detach().numpy() for key, (index, _) in pairs.items()}
