"""The loader of .pt, .pth, .ckpt and .pt2 files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agnes.errors import Refused
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.text import printable

if TYPE_CHECKING:
    from agnes import confinement
    from agnes.loading import LoadOptions
    from agnes.network import Network

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
                " give the file of its weights, with --arch NAME of an installed architecture"
            )
        return self._open(path, options) if _is_ours(path) else None

    def _open(self, path: Path, options: LoadOptions) -> Network:
        from agnes_pytorch import designs, pickles

        designs.check(options)
        name, path = printable(path.name), path.resolve()
        kind = _kind(path, self.size_limit)
        try:
            self._check(path, kind, name)
        except pickles.RunsCode:
            if not options.trust_model_code:
                raise
            return self._trusted(path, kind, name, options)
        answer = self._confined("confined:weights", path, name, (path, kind == "legacy", name), ())
        return _filled(answer, kind, name, options, self._limits())

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
        from agnes_pytorch import programs

        shape, images = programs.own_shape(options), programs.own_images(options)
        if kind == "TorchScript" and shape is None:
            raise programs.needs_shape(name)
        prepare = ("torch.onnx", _EXPORTS) if kind == "torch.export" else ("torch.onnx",)
        answer = self._confined(
            "trusted:program", path, name, (path, kind, shape, programs.IMAGES, images, name), prepare
        )
        if isinstance(answer, dict) and "arrays" in answer:
            return _filled(answer, kind, name, options, self._limits())
        facts = {"format": "pickled module" if kind in ("zip", "legacy") else kind}
        return programs.network(answer, images, name, options, facts)

    def _confined(self, function: str, path: Path, name: str, arguments: tuple, prepare: tuple[str, ...]) -> Any:
        from agnes_pytorch import programs

        return programs.ask(function, *arguments, name=name, read=[path], limits=self._limits(), prepare=prepare)

    def _limits(self) -> confinement.Limits:
        from agnes import confinement

        return confinement.Limits(memory=self.memory, cpu_seconds=self.cpu_seconds, wall_seconds=self.wall_seconds)


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


def _filled(answer: Any, kind: str, name: str, options: LoadOptions, limits: confinement.Limits) -> Network:
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
    return opening.network(name, shapes, lambda: weights.of_arrays(arrays), options, facts, limits)


def _arrays(answer: Any, name: str) -> Mapping[str, Any]:
    """The child's arrays; it may have been taken over by its file, so that nothing is believed."""
    import numpy as np

    from agnes_pytorch import programs

    match answer:
        case {"above": list(), "kinds": list(), "arrays": dict(arrays)} if arrays:
            plain = (isinstance(a, np.ndarray) and a.dtype.isnative and a.dtype.kind in "biuf" for a in arrays.values())
            if all(isinstance(key, str) for key in arrays) and all(plain):
                return arrays
    raise programs.garbage(name)
