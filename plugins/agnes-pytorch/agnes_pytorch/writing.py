"""Writing weights under their original keys: a draft, read again and compared, and only then put in place."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agnes.errors import AgnesError, OutputError

if TYPE_CHECKING:
    import torch

    from agnes.network import Network

    State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Format:
    """How weights of one format are written and read."""

    exporter: str  # as in its settings
    save: Callable[[dict[str, torch.Tensor], Path], None]
    read: Callable[[Path], State]


def write(network: Network, path: Path, form: Format, images: int, most: float) -> Path:
    """The file of a network's weights; nothing is left where they are not what the network computes with."""
    if not network.facts.get("architecture"):
        raise OutputError(f"{path.name}: this network is of no registered architecture; write it as .onnx")
    network = network.to("cpu")
    try:
        handle, draft = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        try:
            form.save(_under_original_keys(network, path.name), Path(draft))
            _compare(network, form.read(Path(draft)), path.name, form, images, most)
            Path(draft).chmod(0o644)
            os.replace(draft, path)
        finally:
            Path(draft).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}; choose another place") from error
    return path


def _under_original_keys(network: Network, name: str) -> dict[str, torch.Tensor]:
    """The weights without what AGNES put in front, under the keys of the file they came from."""
    from agnes_pytorch import architectures

    state = network.without_preprocessing().state_dict()
    architecture = network.facts["architecture"]
    try:
        misfit = architectures.named(architecture).misfit({key: tuple(value.shape) for key, value in state.items()})
    except AgnesError as error:
        raise OutputError(f"{name}: {error}") from error
    if misfit is not None:
        raise OutputError(f"{name}: the network is no longer '{architecture}': {misfit}; write .onnx")
    return {_prefix(network) + key: value.detach().contiguous().clone() for key, value in state.items()}


def _compare(network: Network, written: State, name: str, form: Format, images: int, most: float) -> None:
    import torch

    from agnes_pytorch import architectures, opening, weights

    state = {key.removeprefix(_prefix(network)): value for key, value in written.items()}
    module = weights.filled(architectures.named(network.facts["architecture"]), network.class_count, state)
    pixels = opening.noise(images, network.input_shape)
    with torch.no_grad():
        theirs = module(pixels if network.preprocess is None else network.preprocess(pixels))
        _, relative = opening.differences(opening.as_in_file(network, network(pixels)), theirs.flatten(1))
    if not relative <= most:
        raise OutputError(
            f"{name}: the written weights differ from the network by {relative:.2g} relative, more than "
            f"{form.exporter}.parity_limit ({most:g}); nothing was kept, write it as .onnx"
        )


def _prefix(network: Network) -> str:
    return str(network.facts.get("key_prefix", ""))
