"""Architectures that a user brings as Python code, made and filled in the child where the author is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agnes.errors import Refused, UsageError
from agnes.text import printable
from agnes_pytorch import architectures, programs

if TYPE_CHECKING:
    import torch

    from agnes import confinement
    from agnes.loading import LoadOptions
    from agnes.network import Network


def asked(arch: str | None) -> tuple[Path, str] | None:
    """The file and the name in FILE.py:NAME; None where an installed architecture is meant."""
    if arch is None:
        return None
    if arch.lower().endswith(".py"):
        raise UsageError(f"--arch {printable(arch)} says no class or function; write --arch {printable(arch)}:NAME")
    file, _, name = arch.rpartition(":")
    return (Path(file), name) if file.lower().endswith(".py") else None


def check(options: LoadOptions) -> None:
    """Refuse code that nobody trusts, before anything is read."""
    from agnes.loading import check_file

    if (found := asked(options.arch)) is None:
        return
    file = found[0]
    check_file(file)
    if not options.trust_model_code:
        known = ", ".join(plugin.name for plugin in architectures.plugins(options.block)) or "none"
        raise Refused(
            f"refused: {printable(file.name)} is Python code. AGNES does not run code from model files. Name an "
            f"installed architecture ({known}), ask for ONNX, or, if you trust the author, use --trust-model-code."
        )


def network(
    name: str,
    state: Mapping[str, torch.Tensor],  # under the file's own keys
    options: LoadOptions,
    facts: Mapping[str, Any],
    limits: confinement.Limits | None,
) -> Network:
    """The network of these weights in the architecture that the code makes."""
    from agnes.loading import sha256_of

    check(options)
    file, make = asked(options.arch) or (Path(), "")
    file = file.resolve()
    arrays = {key: value.numpy() for key, value in state.items()}
    images = programs.own_images(options)
    answer = programs.ask(
        "trusted:designed",
        *(file, make, arrays, programs.own_shape(options), programs.IMAGES, images, name),
        name=name,
        read=[file],
        limits=limits,
        prepare=("torch.onnx",),
    )
    code = {"architecture_code": printable(f"{file.name}:{make}"), "architecture_sha256": sha256_of(file)}
    return programs.network(answer, images, name, options, {**facts, **code})
