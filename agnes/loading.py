"""Opening a model file: ask every loader whose it is, and say what came of it."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agnes import settings
from agnes.calling import call
from agnes.errors import AgnesError, NothingApplicable, Refused, UsageError
from agnes.method import settings_in
from agnes.registry import BrokenPlugin, Registry
from agnes.results import MethodRun
from agnes.text import printable

if TYPE_CHECKING:
    from agnes.network import Network


@dataclass(frozen=True)
class LoadOptions:
    """What a user may say about a model file that the file does not say itself."""

    arch: str | None = None  # the architecture of a file that holds weights only
    mean: tuple[float, ...] = (0.0,)  # subtracted from scale x pixel, one or one a channel
    std: tuple[float, ...] = (1.0,)  # divided by, after that
    scale: float = 1.0  # 255 for a network that takes 0..255
    layout: Literal["auto", "NCHW", "NHWC"] = "auto"  # of the file's own input
    input_shape: tuple[int, ...] | None = None  # channels,height,width where the file does not say
    class_names: tuple[str, ...] | None = None
    trust_model_code: bool = False  # from the command line or Python only


@dataclass(frozen=True)
class Opened:
    """An opened model: the network, what is known of the file, and which loader opened it."""

    network: Network = field(repr=False)
    facts: Mapping[str, Any]
    run: MethodRun


def open_model(
    path: Path, options: LoadOptions, registry: Registry, assigned: settings.Assignments | None = None
) -> Opened:
    """The Network in a model file."""
    check_file(path)
    loaders, broken = _loaders(registry, assigned or {})
    for opener, loader in loaders:
        network = _ask(opener.name, loader, path, options)
        if network is not None:
            return Opened(network, _facts(path, network, opener), replace(opener, reason=f"opened {path.name}"))
    raise NothingApplicable(_nobody(path, [run.name for run, _ in loaders], broken))


def _facts(path: Path, network: Network, opener: MethodRun) -> dict[str, Any]:
    return {
        "path": printable(path, 4096),
        "name": printable(path.name, 255),
        "bytes": path.stat().st_size if path.is_file() else None,
        "sha256": sha256_of(path) if path.is_file() else None,
        "loader": opener.name,
        "input_shape": list(network.input_shape),
        "classes": network.class_count,
        "class_names": list(network.class_names),
        "parameters": network.parameter_count,
        "layers": len(network.layers),
        "kinds": sorted(network.kinds),
        "softmax_peeled": network.peeled,
        **network.facts,
    }


def check_file(path: Path) -> None:
    """A model must be there, readable, and a file or a folder: never a device or a pipe."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise UsageError(f"there is no model file {path}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise Refused(f"refused: {path} is neither a file nor a folder")
    if stat.S_ISREG(mode):
        try:
            with path.open("rb") as file:
                empty = not file.read(1)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error
        if empty:
            raise Refused(f"refused: {path} is empty")


def sha256_of(path: Path) -> str:
    """The hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ask(name: str, loader: Any, path: Path, options: LoadOptions) -> Network | None:
    try:
        return call("load", name, loader, path=path, options=options)
    except AgnesError:
        raise
    except (Exception, SystemExit) as error:
        reason = str(error).strip().partition("\n")[0]
        raise Refused(f"refused: loader '{name}' cannot open {path.name}: {type(error).__name__}: {reason}") from error


def _loaders(registry: Registry, assigned: settings.Assignments) -> tuple[list[tuple[MethodRun, Any]], list[str]]:
    loaders, broken = [], []
    for plugin in registry.of_stage("loader"):
        try:
            method = settings.build(registry.method(plugin), plugin.name, assigned.get(plugin.name, {}))
        except BrokenPlugin as error:
            broken.append(str(error))
            continue
        run = MethodRun(plugin.name, "loader", plugin.distribution, plugin.version, settings_in(method), "ok")
        loaders.append((run, method))
    return loaders, broken


def _nobody(path: Path, asked: list[str], broken: list[str]) -> str:
    if not asked and not broken:
        return "no loader is installed; install agnes-onnx or agnes-pytorch"
    reasons = "; ".join([f"asked: {', '.join(asked) or 'none'}", *broken])
    return f"no installed loader opens {path.name} ({reasons}); export the model to ONNX or safetensors"
