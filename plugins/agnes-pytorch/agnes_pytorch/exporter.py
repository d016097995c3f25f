"""The exporters to .safetensors files and to those of torch.save."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agnes.hookspecs import hookimpl
from agnes.method import Method

if TYPE_CHECKING:
    import torch

    from agnes.network import Network


_PICKLED = (".pt", ".pth", ".ckpt", ".bin")


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
    """Writes a network's weights as a state dict of torch.save, under the keys of the file they came from."""

    parity_images: int = 4  # how many random images the written weights are compared on
    parity_limit: float = 1e-4  # the largest relative difference of the written weights that is accepted

    @hookimpl
    def export(self, network: Network, path: Path) -> Path | None:
        """Write, read again into the architecture, compare, and only then put in place."""
        if path.suffix.lower() not in _PICKLED:
            return None
        from agnes_pytorch import writing

        above = [key for key in str(network.facts.get("nested_under") or "").split(".") if key]
        form = writing.Format("pytorch-export", partial(_save, above), partial(_read, above))
        return writing.write(network, path, form, self.parity_images, self.parity_limit)


def _save(above: Sequence[str], state: dict[str, torch.Tensor], path: Path) -> None:
    """A state dict where its file had it: by itself, or below other keys."""
    import torch

    nested: dict[str, Any] = state
    for key in reversed(above):
        nested = {key: nested}
    torch.save(nested, path)


def _read(above: Sequence[str], path: Path) -> dict[str, torch.Tensor]:
    """The weights that were just written, through the checks that every file goes through."""
    import torch

    from agnes_pytorch import archive, pickles

    size = path.stat().st_size
    found = archive.read(path, size)
    found.check_blocks(pickles.check(found.checked_pickle(size), path.name))
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    for key in above:
        loaded = loaded[key]
    return loaded
