"""The exporters to .safetensors, .pt and .pth files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
        from safetensors.torch import save_file

        from agnes_pytorch import weights, writing

        form = writing.Format("safetensors-export", save_file, weights.read)
        return writing.write(network, path, form, self.parity_images, self.parity_limit)


@dataclass(frozen=True)
class StateDictExporter(Method):
    """Writes a network's weights as a plain state dict of torch.save, under the keys of the file they came from."""

    parity_images: int = 4  # how many random images the written weights are compared on
    parity_limit: float = 1e-4  # the largest relative difference of the written weights that is accepted

    @hookimpl
    def export(self, network: Network, path: Path) -> Path | None:
        """Write, read again into the architecture, compare, and only then put in place."""
        if path.suffix.lower() not in (".pt", ".pth"):
            return None
        import torch

        from agnes_pytorch import writing

        form = writing.Format("pytorch-export", torch.save, _read)
        return writing.write(network, path, form, self.parity_images, self.parity_limit)


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The weights that were just written, through the checks that every file goes through."""
    import torch

    from agnes_pytorch import archive, pickles

    size = path.stat().st_size
    found = archive.read(path, size)
    found.check_blocks(pickles.check(found.checked_pickle(size), path.name))
    return torch.load(path, map_location="cpu", weights_only=True)
