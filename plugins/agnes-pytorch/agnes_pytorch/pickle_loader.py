"""The loader of .pt, .pth, .ckpt and .pt2 files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agnes.errors import NothingApplicable, Refused, UsageError
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.text import printable

if TYPE_CHECKING:
    from agnes.loading import LoadOptions
    from agnes.network import Network
    from agnes.registry import Plugin

_BY_NAME = (".pt", ".pth", ".pt2", ".pkl", ".pickle")
_OTHERS = frozenset(
    [".onnx", ".keras", ".h5", ".hdf5", ".npz", ".npy", ".pb", ".tflite", ".zip", ".json", ".py", ".safetensors"]
)
_EXPORTS = "torch.export.pt2_archive"  # slow to import, and for one kind of program alone
_PROGRAMS = {
    "TorchScript": "a TorchScript program",
    "torch.export": "a program of torch.export",
    "torch.package": "a torch.package, which holds Python code",
}
_IMAGES = 4  # that a program is compared on


@dataclass(frozen=True)
class PickleLoader(Method):
    """Opens files of torch.save that hold weights; programs only where the user trusts their author."""

    size_limit: int = 2_000_000_000  # the most bytes a file may have
    pickle_limit: int = 4_000_000  # the most bytes its pickle may have, beside the weights
    memory: int = 4 << 30  # bytes of memory that the child process may take to read it
    cpu_seconds: int = 90  # of processor time that the child process may take
    wall_seconds: float = 45.0  # of time that the child process may take

    @hookimpl
    def load(self, path: Path, options: LoadOptions) -> Network | None:
        """The network in a file of torch.save, torch.jit.save or torch.export.save; None where it is none of them."""
        if not path.is_file():
            return None
        if path.suffix.lower() == ".py":
            raise Refused(
                f"refused: {printable(path.name)} is Python code, and AGNES does not run code from model files;"
                " give the file of its weights, with --arch NAME"
            )
        return self._open(path, options) if _is_ours(path) else None

    def _open(self, path: Path, options: LoadOptions) -> Network:
        from agnes_pytorch import pickles

        name, path = printable(path.name), path.resolve()
        kind = _kind(path, self.size_limit)
        try:
            self._check(path, kind, name)
        except pickles.RunsCode:
            if not options.trust_model_code:
                raise
            return self._trusted(path, kind, name, options)
        answer = self._confined("weights", path, name, (path, kind == "legacy", name), ())
        return _filled(answer, kind, name, options)

    def _check(self, path: Path, kind: str, name: str) -> None:
        """Refuse what is no plain file of weights."""
        from agnes_pytorch import archive, pickles

        if kind in _PROGRAMS:
            raise pickles.RunsCode(f"refused: {name} is {_PROGRAMS[kind]}. {pickles.WAY_OUT}")
        if kind == "zip":
            found = archive.read(path, self.size_limit)
            found.check_blocks(pickles.check(found.checked_pickle(self.pickle_limit), name))
        elif kind == "legacy":
            pickles.check_legacy(path, self.pickle_limit, self.size_limit)
        else:
            pickles.check_other(path, self.pickle_limit)

    def _trusted(self, path: Path, kind: str, name: str, options: LoadOptions) -> Network:
        """What a file's own code makes, in the child: weights, or a network that comes back as ONNX."""
        shape = _own_shape(options)
        if kind == "TorchScript" and shape is None:
            raise _needs_shape(name)
        prepare = ("torch.onnx", _EXPORTS) if kind == "torch.export" else ("torch.onnx",)
        answer = self._confined("program", path, name, (path, kind, shape, _IMAGES, name), prepare)
        if isinstance(answer, dict) and "needs" in answer:
            raise _needs_shape(name)
        if isinstance(answer, dict) and "arrays" in answer:
            return _filled(answer, kind, name, options)
        return _through_onnx(answer, kind, name, options)

    def _confined(self, function: str, path: Path, name: str, arguments: tuple, prepare: tuple[str, ...]) -> Any:
        from agnes import confinement

        limits = confinement.Limits(memory=self.memory, cpu_seconds=self.cpu_seconds, wall_seconds=self.wall_seconds)
        return confinement.run(
            f"agnes_pytorch.confined:{function}",
            *arguments,
            limits=limits,
            allow_read=[path],
            prepare=prepare,
            environment={"TORCHINDUCTOR_CACHE_DIR": os.sep},  # a folder that is there, or torch would make one
            what=name,
        )


def _is_ours(path: Path) -> bool:
    from agnes_pytorch import archive, header, pickles

    suffix = path.suffix.lower()
    if suffix in _BY_NAME:
        return not header.looks_like(path)
    return suffix not in _OTHERS and (archive.looks_like(path) or pickles.is_legacy(path))


def _kind(path: Path, size_limit: int) -> str:
    """zip, legacy, other, or the name of what makes programs."""
    from agnes_pytorch import archive, pickles

    with path.open("rb") as file:
        zipped = file.read(4) == archive.START
    if not zipped:
        return "legacy" if pickles.is_legacy(path) else "other"
    return archive.read(path, size_limit).kind


def _filled(answer: Any, kind: str, name: str, options: LoadOptions) -> Network:
    """The network of the weights that the child handed back."""
    from agnes import confinement
    from agnes_pytorch import opening, weights

    arrays = _arrays(answer, name)
    facts = {
        "format": {"zip": "pytorch", "legacy": "pytorch before 1.6"}.get(kind, kind),
        "nested_under": ".".join(printable(key) for key in answer["above"]),
        "tensors": len(arrays),
        "number_types": sorted(printable(each) for each in answer["kinds"]),
        "isolation": str(confinement.strength()),
    }
    shapes = {key: array.shape for key, array in arrays.items()}
    return opening.network(name, shapes, lambda: weights.of_arrays(arrays), options, facts)


def _arrays(answer: Any, name: str) -> Mapping[str, Any]:
    """The child's arrays; it may have been taken over by its file, so that nothing is believed."""
    import numpy as np

    match answer:
        case {"above": list(), "kinds": list(), "arrays": dict(arrays)} if arrays:
            plain = (isinstance(a, np.ndarray) and a.dtype.isnative and a.dtype.kind in "biuf" for a in arrays.values())
            if all(isinstance(key, str) for key in arrays) and all(plain):
                return arrays
    raise _garbage(name)


def _through_onnx(answer: Any, kind: str, name: str, options: LoadOptions) -> Network:
    """The network that the child wrote as ONNX, compared with what the file itself computed there."""
    import numpy as np
    import torch

    from agnes import confinement
    from agnes.loading import open_model
    from agnes.registry import Registry
    from agnes_pytorch import opening

    match answer:
        case {"onnx": bytes(model), "logits": np.ndarray() as logits, "shape": [int(), int(), int()] as shape}:
            pass
        case _:
            raise _garbage(name)
    onnx = _onnx_loader(name)
    layout = "NHWC" if options.layout == "NHWC" else "NCHW"
    with tempfile.TemporaryDirectory(prefix="agnes-") as folder:
        draft = Path(folder) / "model.onnx"
        draft.write_bytes(model)
        plain = replace(options, arch=None, layout=layout, trust_model_code=False)
        network = open_model(draft, plain, Registry([onnx])).network
    if logits.dtype != np.float32 or not 0 < len(logits) <= 1024:
        raise _garbage(name)
    images = opening.noise(len(logits), shape)
    with torch.no_grad():
        ours = network.without_preprocessing()(images)
    reference = f"torch {torch.__version__}, in the child process"
    network.facts = {
        **network.facts,
        "format": "pickled module" if kind in ("zip", "legacy") else kind,
        "by_way_of": "onnx",
        "trusted": True,
        "isolation": str(confinement.strength()),
        "parity": opening.proven(network, ours, torch.from_numpy(logits), reference),
    }
    return network


def _onnx_loader(name: str) -> Plugin:
    from agnes.registry import Registry

    for plugin in Registry.discover().of_stage("loader"):
        if plugin.name == "onnx":
            return plugin
    raise NothingApplicable(f"{name} holds a program, which AGNES reads by way of ONNX; install agnes-onnx")


def _own_shape(options: LoadOptions) -> list[int] | None:
    """The shape of one image as the file's own network takes it."""
    from agnes_pytorch import opening

    if options.input_shape is None:
        return None
    channels, height, width = opening.checked_shape(options.input_shape)
    return [height, width, channels] if options.layout == "NHWC" else [channels, height, width]


def _needs_shape(name: str) -> UsageError:
    return UsageError(f"{name} does not say what images it takes; give --input-shape channels,height,width")


def _garbage(name: str) -> Refused:
    return Refused(f"refused: {name} made the child process answer with garbage; ask for another export")
