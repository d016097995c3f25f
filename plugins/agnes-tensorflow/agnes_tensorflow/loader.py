"""The loaders of .keras and .h5 files, and of SavedModel folders."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from agnes import confinement
from agnes.errors import AgnesError, NothingApplicable, Refused
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.text import printable

if TYPE_CHECKING:
    from agnes.loading import LoadOptions
    from agnes.network import Network

LIBRARIES = ("tensorflow", "keras", "tf2onnx", "h5py")
PREPARE = ("agnes_tensorflow.libraries",)
ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF2ONNX_CATCH_ERRORS": "FALSE",  # else tf2onnx copies the whole graph before each of its steps
}


@dataclass(frozen=True)
class _Confined(Method):
    """What the loaders of TensorFlow's formats have in common."""

    called: ClassVar[str] = ""  # the loader's own name

    size_limit: int = 2_000_000_000  # the most bytes a file or folder may have
    value_limit: int = 1 << 27  # the most numbers one image may make on its way through the network
    work_limit: int = 60_000_000_000  # the most multiplications one image may cost
    memory: int = 4 << 30  # bytes of memory that a child process may take beyond its libraries
    cpu_seconds: int = 90  # of processor time that a child process may take
    wall_seconds: float = 55.0  # that all child processes may take together
    parity_images: int = 4  # how many random images the network is compared on with TensorFlow
    parity_limit: float = 1e-3  # the largest relative difference from TensorFlow that is accepted

    def _opened(
        self,
        path: Path,
        options: LoadOptions,
        facts: Mapping[str, Any],
        shape: Sequence[int] | None,  # of an image, as far as the file tells before it is opened
        until: float,
    ) -> Network:
        """Convert a checked file in the child, open what comes back, and believe it if it computes the same."""
        from agnes_tensorflow import handover

        kind, asked = facts["format"], _asked(options, self.parity_images)
        real = self._real_images(options, options.input_shape or shape)
        answer = self._child("conversion:converted", path, until, kind, asked, real)
        try:
            network = handover.network(answer, path, options, facts, self._limits_of_onnx(until))
        except Refused as error:
            raise Refused(re.sub(r"\bonnx\.(\w+_limit)", rf"{self.called}.\1", str(error))) from None
        relative = network.facts["parity"]["relative"]
        if not relative <= self.parity_limit:
            raise Refused(
                f"refused: the network made of {printable(path.name)} differs from TensorFlow by {relative:.2g} "
                f"relative (more than {self.parity_limit:g}){self._where(path, kind, asked, until)}; report this model"
            )
        return network

    def _real_images(self, options: LoadOptions, shape: Sequence[int] | None) -> Any:
        """A few of the user's images, as an array; None where there are none, or the file does not tell their size."""
        from agnes.loading import real_images

        if shape is None or len(shape) != 3 or math.prod(shape) > self.value_limit:
            return None
        images = real_images(options, shape)
        return None if images is None else images.numpy()

    def _where(self, path: Path, kind: str, asked: Mapping[str, Any], until: float) -> str:
        """The first layer that differs, in words; empty where that cannot be said."""
        try:
            return printable(self._child("locating:first_difference", path, until, kind, asked, self.parity_limit))
        except AgnesError:  # the search only adds to an error that is raised anyway
            return ""

    def _child(self, function: str, path: Path, until: float, *arguments: Any, prepare: Sequence[str] = PREPARE) -> Any:
        return confinement.run(
            f"agnes_tensorflow.{function}",
            path.resolve(),  # the child is elsewhere
            *arguments,
            limits=self.limits(until),
            allow_read=[path],
            prepare=prepare,
            environment=ENVIRONMENT,
            what=path.name,
        )

    def until(self) -> float:
        """When the child processes must have ended, by the clock of `time.monotonic`."""
        return time.monotonic() + self.wall_seconds

    def limits(self, until: float) -> confinement.Limits:
        """What the next child may take."""
        return confinement.Limits(self.memory, self.cpu_seconds, max(until - time.monotonic(), 0.001))

    def _limits_of_onnx(self, until: float) -> dict[str, Any]:
        names = ("size_limit", "value_limit", "work_limit", "memory", "cpu_seconds", "parity_images", "parity_limit")
        return {name: getattr(self, name) for name in names} | {"wall_seconds": self.limits(until).wall_seconds}


@dataclass(frozen=True)
class KerasLoader(_Confined):
    """Opens .keras and .h5 classifiers: checked, converted in a confined child, proven against TensorFlow."""

    called: ClassVar[str] = "keras"

    @hookimpl
    def load(self, path: Path, options: LoadOptions) -> Network | None:
        """The network in a Keras file; None where the file is of another format."""
        from agnes.loading import sha256_of
        from agnes_tensorflow import config

        kind = _kind(path)
        if kind is None:
            return None
        require_libraries(path, options.block)
        until = self.until()
        found = check(path, kind, self.limits(until), self.size_limit)
        facts = {"format": kind, "sha256": sha256_of(path)}
        return self._opened(path, options, facts, config.image_shape(found), until)


@dataclass(frozen=True)
class SavedModelLoader(_Confined):
    """Opens SavedModel folders: checked, converted in a confined child, proven against TensorFlow."""

    called: ClassVar[str] = "savedmodel"

    @hookimpl
    def load(self, path: Path, options: LoadOptions) -> Network | None:
        """The network in a SavedModel; None where the folder is none."""
        from agnes_tensorflow import savedmodel

        if not savedmodel.looks_like(path):
            return None
        require_libraries(path, options.block)
        until = self.until()
        savedmodel.check_files(path, self.size_limit)
        if savedmodel.is_large(path):
            operators, sizes = self._child("savedmodel:check_graph", path, until, prepare=())
        else:
            operators, sizes = savedmodel.check_graph(path)
        facts = {"format": "savedmodel", "tensorflow_operators": operators}
        return self._opened(path, options, facts, _image_shape(sizes, options.layout), until)


def _image_shape(sizes: Sequence[int], layout: str) -> tuple[int, int, int] | None:
    """The channels, height and width of an image in a batch of known sizes; None where they are not all known."""
    from agnes_tensorflow import conversion

    if len(sizes) != 4 or not all(size > 0 for size in sizes[1:]):
        return None
    first, second, third = sizes[1:]
    layout = layout if layout != "auto" else conversion.layout_of(sizes)
    return (first, second, third) if layout == "NCHW" else (third, first, second)


def check(path: Path, kind: str, limits: confinement.Limits, size_limit: int) -> dict[str, Any]:
    """Refuse a Keras file that is not plain data in plain containers; return its configuration.

    TensorFlow is not started for it.
    """
    from agnes_tensorflow import archive, config

    name = printable(path.name)
    if path.stat().st_size > size_limit:
        raise Refused(f"refused: {name} is larger than keras.size_limit ({size_limit} bytes)")
    described = config.check(archive.check(path), name) if kind == "keras" else None
    inside = confinement.run(
        "agnes_tensorflow.hdf5:check",
        path.resolve(),
        kind == "keras",
        limits=limits,
        allow_read=[path],
        prepare=["h5py"],
        what=path.name,
    )
    return described if described is not None else config.check(str(inside), name)


def require_libraries(path: Path, block: Iterable[str] = ()) -> None:
    """Refuse where what opens the file is not installed."""
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise Refused(
            f"refused: {printable(path.name)} needs {', '.join(missing)}, which this Python lacks; "
            "pip install agnes-tensorflow, or export the model to ONNX"
        )
    from agnes_tensorflow import handover

    if handover.onnx_plugin(block) is None:
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
