"""Opening a model file: ask every loader whose it is, and say what came of it."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agnes import hub, settings
from agnes.calling import call
from agnes.errors import AgnesError, NothingApplicable, Refused, UsageError
from agnes.method import settings_in
from agnes.registry import BrokenPlugin, Registry
from agnes.results import MethodRun
from agnes.text import printable

if TYPE_CHECKING:
    import torch

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
    images: Path | None = None  # benign ones, on which a network is compared with its file too
    block: tuple[str, ...] = ()  # plugins that a loader may not use either; set by `open_model`


@dataclass(frozen=True)
class Opened:
    """An opened model: the network, what is known of the file, and which loader opened it."""

    network: Network = field(repr=False)
    facts: Mapping[str, Any]
    run: MethodRun


def open_model(
    path: Path, options: LoadOptions, registry: Registry, assigned: settings.Assignments | None = None
) -> Opened:
    """The Network in a model file, which may lie on a hub."""
    if hub.is_address(path):
        fetched = hub.fetch(path)
        return _of_hub(open_model(fetched.path, options, registry, assigned), fetched, options)
    check_file(path)
    options = replace(options, block=tuple(plugin.name for plugin in registry.blocked))
    loaders, broken = _loaders(registry, assigned or {})
    for opener, loader in loaders:
        network = _ask(opener.name, loader, path, options)
        if network is not None:
            run = replace(opener, reason=f"opened {printable(path.name)}", notes=_unused(network, options))
            return Opened(network, _facts(path, network, run), run)
    raise NothingApplicable(_nobody(path, [run.name for run, _ in loaders], broken))


def _of_hub(opened: Opened, fetched: hub.Fetched, options: LoadOptions) -> Opened:
    """What was opened, with where it came from, and with the class names that lie beside it where they fit."""
    network, facts = opened.network, {**opened.facts, **fetched.facts}
    names = fetched.class_names
    if options.class_names is None and names is not None and len(names) == network.class_count:
        network = network.with_class_names(names)
        network.facts = {**network.facts, "class_names": list(names)}  # stronger than what the images' folders say
        facts["class_names"] = list(names)
    return replace(opened, network=network, facts=facts)


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
        **({"notes": list(opener.notes)} if opener.notes else {}),
        **network.facts,
    }


def _unused(network: Network, options: LoadOptions) -> tuple[str, ...]:
    """What the user said of the file that its loader had no use for, in words."""
    if options.arch is None or any(fact in network.facts for fact in ("architecture", "architecture_code")):
        return ()
    return (f"--arch {printable(options.arch, 60)} was not needed: the file brings its own architecture",)


def check_file(path: Path) -> None:
    """A model must be there, readable, and a file or a folder: never a device or a pipe."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise UsageError(f"there is no model file {printable(path, 500)}") from None
    except OSError as error:
        raise UsageError(f"{printable(path, 500)} cannot be read: {error.strerror}") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise Refused(f"refused: {printable(path, 500)} is neither a file nor a folder")
    if stat.S_ISREG(mode):
        try:
            with path.open("rb") as file:
                empty = not file.read(1)
        except OSError as error:
            raise UsageError(f"{printable(path, 500)} cannot be read: {error.strerror}") from error
        if empty:
            raise Refused(f"refused: {printable(path, 500)} is empty")


def real_images(options: LoadOptions, shape: Sequence[int], count: int = 4) -> torch.Tensor | None:
    """A few of the user's images in a network's size, for comparing it with its file; None where there are none."""
    from agnes.samples import read_samples

    if options.images is None:
        return None
    try:
        return read_samples(options.images, input_shape=shape, limit=count).images[:count]
    except AgnesError:  # told where the images are read for the scan
        return None


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
        reason = printable(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}", 500)
        raise Refused(f"refused: loader '{name}' cannot open {printable(path.name)}: {reason}") from error


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
    return f"no installed loader opens {printable(path.name)} ({reasons}); export the model to ONNX or safetensors"
