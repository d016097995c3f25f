"""The loader of .safetensors files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agnes.errors import Refused, UsageError
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.text import printable

if TYPE_CHECKING:
    from torch import nn

    from agnes.loading import LoadOptions
    from agnes.network import Network

PICKLES = (".pt", ".pth")
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
        if path.suffix.lower() in PICKLES and path.is_file():
            raise Refused(
                f"refused: {printable(path.name)} is a Python pickle, and AGNES does not run code from model files; "
                'save its state dict with safetensors.torch.save_file(state, "model.safetensors"), or export it to ONNX'
            )
        if not path.is_file() or not _is_safetensors(path):
            return None
        return self._open(path, options)

    def _open(self, path: Path, options: LoadOptions) -> Network:
        from agnes.network import Network
        from agnes_pytorch import architectures, header, weights

        name = printable(path.name)
        entries = header.read(path, self.header_limit)
        prefix = architectures.prefix_of(entries)
        shapes = {key.removeprefix(prefix): entry.shape for key, entry in entries.items()}
        if options.arch is None:
            architecture = architectures.fitting(shapes, name)
        else:
            architecture = architectures.named(options.arch)
            misfit = architecture.misfit(shapes)
            if misfit is not None:
                raise Refused(f"refused: {name} does not fit architecture '{architecture.name}': {misfit}")
        classes = architecture.class_count(shapes) or 2
        state = {key.removeprefix(prefix): value for key, value in weights.read(path).items()}
        module = weights.filled(architecture, classes, state)
        return Network.of(
            module,
            _input_shape(module, architecture.name, options),
            class_names=options.class_names,
            mean=options.mean,
            std=options.std,
            scale=options.scale,
            layout="NHWC" if options.layout == "NHWC" else "NCHW",
            facts={
                "format": "safetensors",
                "architecture": architecture.name,
                "key_prefix": prefix,
                "number_types": sorted({entry.dtype for entry in entries.values()}),
            },
        )


def _is_safetensors(path: Path) -> bool:
    from agnes_pytorch import header

    suffix = path.suffix.lower()
    return suffix == ".safetensors" or (suffix not in _OTHERS and header.looks_like(path))


def _input_shape(module: nn.Module, name: str, options: LoadOptions) -> tuple[int, int, int]:
    """Channels, height and width: what the user says, or else the architecture."""
    shape = options.input_shape or getattr(module, "input_shape", None)
    if shape is None:
        raise UsageError(f"architecture '{name}' does not say what it takes; give --input-shape channels,height,width")
    if len(shape) != 3 or any(size < 1 for size in shape):
        raise UsageError(f"the input shape {tuple(shape)} is not channels,height,width")
    channels, height, width = shape
    return channels, height, width
