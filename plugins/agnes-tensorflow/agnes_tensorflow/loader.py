"""The loaders of .keras and .h5 files, and of SavedModel folders."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agnes import confinement
from agnes.errors import NothingApplicable, Refused
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.text import printable

if TYPE_CHECKING:
    from agnes.loading import LoadOptions
    from agnes.network import Network

LIBRARIES = ("tensorflow", "keras", "tf2onnx", "h5py")
ENVIRONMENT = {"KERAS_BACKEND": "tensorflow", "TF_ENABLE_ONEDNN_OPTS": "0"}


@dataclass(frozen=True)
class _Confined(Method):
    """What the loaders of TensorFlow's formats have in common."""

    size_limit: int = 2_000_000_000  # the most bytes a file or folder may have
    memory: int = 4 << 30  # bytes of memory that the child process may take beyond its libraries
    cpu_seconds: int = 90  # of processor time that the child process may take
    wall_seconds: float = 50.0  # that the child process may take
    parity_images: int = 4  # how many random images the network is compared on with TensorFlow
    parity_limit: float = 1e-4  # the largest relative difference from TensorFlow that is accepted

    @property
    def limits(self) -> confinement.Limits:
        return confinement.Limits(memory=self.memory, cpu_seconds=self.cpu_seconds, wall_seconds=self.wall_seconds)

    def _opened(self, function: str, path: Path, options: LoadOptions, facts: Mapping[str, Any]) -> Network:
        """Convert a checked file in the child, and open what comes back."""
        answer = confinement.run(
            f"agnes_tensorflow.conversion:{function}",
            path,
            _asked(options, self.parity_images),
            limits=self.limits,
            allow_read=[path],
            prepare=LIBRARIES,
            environment=ENVIRONMENT,
            what=path.name,
        )
        from agnes_tensorflow import handover

        return handover.network(answer, path, options, facts, self.parity_limit)


@dataclass(frozen=True)
class KerasLoader(_Confined):
    """Opens .keras and .h5 classifiers: checked, converted in a confined child, proven against TensorFlow."""

    @hookimpl
    def load(self, path: Path, options: LoadOptions) -> Network | None:
        """The network in a Keras file; None where the file is of another format."""
        from agnes.loading import sha256_of

        kind = _kind(path)
        if kind is None:
            return None
        require_libraries(path)
        check(path, kind, self.limits, self.size_limit)
        return self._opened("from_keras", path, options, {"format": kind, "sha256": sha256_of(path)})


@dataclass(frozen=True)
class SavedModelLoader(_Confined):
    """Opens SavedModel folders: checked, converted in a confined child, proven against TensorFlow."""

    @hookimpl
    def load(self, path: Path, options: LoadOptions) -> Network | None:
        """The network in a SavedModel; None where the folder is none."""
        from agnes_tensorflow import savedmodel

        if not savedmodel.looks_like(path):
            return None
        require_libraries(path)
        operators = savedmodel.check(path, self.size_limit)
        return self._opened(
            "from_savedmodel", path, options, {"format": "savedmodel", "tensorflow_operators": operators}
        )


def check(path: Path, kind: str, limits: confinement.Limits, size_limit: int) -> None:
    """Refuse a Keras file that is not plain data in plain containers; TensorFlow is not started for it."""
    from agnes_tensorflow import archive, config

    name = printable(path.name)
    if path.stat().st_size > size_limit:
        raise Refused(f"refused: {name} is larger than keras.size_limit ({size_limit} bytes)")
    if kind == "keras":
        config.check(archive.check(path), name)
    inside = confinement.run(
        "agnes_tensorflow.hdf5:check",
        path,
        kind == "keras",
        limits=limits,
        allow_read=[path],
        prepare=["h5py"],
        what=path.name,
    )
    if kind == "h5":
        config.check(str(inside), name)


def require_libraries(path: Path) -> None:
    """Refuse where what opens the file is not installed."""
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise Refused(
            f"refused: {printable(path.name)} needs {', '.join(missing)}, which this Python lacks; "
            "pip install agnes-tensorflow, or export the model to ONNX"
        )
    from agnes_tensorflow import handover

    if handover.onnx_plugin() is None:
        raise NothingApplicable(
            f"{printable(path.name)} is opened by way of ONNX, and agnes-onnx is not installed or is blocked; "
            "pip install agnes-onnx"
        )


def _kind(path: Path) -> str | None:
    from agnes_tensorflow import archive, hdf5

    if not path.is_file():
        return None
    suffix = path.suffix.lower()
    if suffix in (".h5", ".hdf5") or hdf5.looks_like(path):
        return "h5"
    return "keras" if suffix == ".keras" or archive.looks_like(path) else None


def _asked(options: LoadOptions, images: int) -> dict[str, Any]:
    return {
        "input_shape": options.input_shape,
        "mean": options.mean,
        "std": options.std,
        "scale": options.scale,
        "layout": options.layout,
        "images": images,
    }
