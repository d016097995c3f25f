"""The loader of .safetensors files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.text import printable

if TYPE_CHECKING:
    from agnes.loading import LoadOptions
    from agnes.network import Network

_OTHERS = frozenset(
    [".onnx", ".keras", ".h5", ".hdf5", ".npz", ".npy", ".pb", ".tflite", ".zip", ".pt2", ".json", ".py"]
)


@dataclass(frozen=True)
class SafetensorsLoader(Method):
    """Opens PyTorch weights in safetensors files, into an architecture that a plugin registers."""

    header_limit: int = 10_000_000  # the most bytes a file's header may have

    @hookimpl
    def load(self, path: Path, options: LoadOptions) -> Network | None:
        """The network in a safetensors file; None where the file is of another format."""
        if not path.is_file() or not _is_safetensors(path):
            return None
        return self._open(path, options)

    def _open(self, path: Path, options: LoadOptions) -> Network:
        from agnes_pytorch import designs, header, opening, weights

        designs.check(options)
        entries = header.read(path, self.header_limit)
        shapes = {key: entry.shape for key, entry in entries.items()}
        facts = {"format": "safetensors", "number_types": sorted({entry.dtype for entry in entries.values()})}
        return opening.network(printable(path.name), shapes, lambda: weights.read(path), options, facts)


def _is_safetensors(path: Path) -> bool:
    from agnes_pytorch import header

    suffix = path.suffix.lower()
    return suffix == ".safetensors" or (suffix not in _OTHERS and header.looks_like(path))
