"""From the child's answer to a network: the ONNX plugin opens it, and TensorFlow's own numbers prove it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agnes import settings
from agnes.calling import call
from agnes.errors import NothingApplicable, Refused
from agnes.method import settings_of
from agnes.registry import Plugin, Registry
from agnes.text import printable

if TYPE_CHECKING:
    import numpy
    import torch

    from agnes.loading import LoadOptions
    from agnes.network import Network


def onnx_plugin(block: Iterable[str] = ()) -> Plugin | None:
    """The installed loader of ONNX files, unless it is blocked."""
    return next((p for p in Registry.discover(block).of_stage("loader") if p.name == "onnx"), None)


def network(
    answer: Mapping[str, Any], path: Path, options: LoadOptions, facts: Mapping[str, Any], limits: Mapping[str, Any]
) -> Network:
    """The network that the child's ONNX file holds, with what is known of the original; `limits` are the loader's."""
    from agnes_tensorflow import weights

    versions, layout = printable(answer["versions"]), "NCHW" if answer["layout"] == "NCHW" else "NHWC"
    found = _opened(bytes(answer["onnx"]), path, replace(options, layout=layout), limits)
    pairs = weights.paired(found.module.state_dict(), [(str(p), str(d)) for p, d in answer["weights"]])
    paths = [printable(p) for p, _ in answer["weights"]]
    input_name, output_name = (printable(name) for name in answer["names"])
    found.facts = {
        **found.facts,
        **facts,
        "path": printable(path, 4096),
        "through": "onnx",
        "producer": versions,
        "input_name": input_name,
        "output_name": output_name,
        "parity_of_onnx": _in_words(found.facts.get("parity")),
        "parity": {
            "reference": versions,
            **_parity(found, answer["images"], answer["outputs"]),
            "real_images": int(answer["real_images"]),
        },
        "weights": {key: [index, paths[index]] for key, index in pairs.items()},
        "weights_unpaired": len(paths) - len(pairs),
    }
    return found


def as_in_file(network: Network, logits: torch.Tensor) -> torch.Tensor:
    """Logits with the softmax that the file ends in."""
    if network.peeled == "log_softmax":
        return logits.log_softmax(1)
    return logits.softmax(1) if network.peeled else logits


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> tuple[float, float]:
    """The largest absolute difference, and that over the reference's largest value."""
    absolute = float((ours - theirs).abs().max())
    return absolute, absolute / max(float(theirs.abs().max()), 1e-12)


def _opened(content: bytes, path: Path, options: LoadOptions, limits: Mapping[str, Any]) -> Network:
    plugin = onnx_plugin(options.block)
    if plugin is None:
        raise NothingApplicable("agnes-onnx is not installed; pip install agnes-onnx")
    method = Registry.discover().method(plugin)
    known = {setting.name for setting in settings_of(method)}
    loader = settings.build(method, plugin.name, {key: value for key, value in limits.items() if key in known})
    with tempfile.TemporaryDirectory(prefix="agnes-") as folder:
        draft = Path(folder) / "converted.onnx"
        draft.write_bytes(content)
        network = call("load", plugin.name, loader, path=draft, options=options)
    if network is None:
        raise Refused(f"refused: what {printable(path.name)} was converted to is no ONNX model; report this model")
    return network


def _in_words(parity: Any) -> str | None:
    """How far the ONNX loader found the network to be from the converted file."""
    return f"{parity['relative']:.1g} relative from {parity['reference']}" if isinstance(parity, dict) else None


def _parity(network: Network, images: numpy.ndarray, outputs: numpy.ndarray) -> dict[str, Any]:
    """The differences from what TensorFlow computed."""
    import torch

    pixels, theirs = torch.from_numpy(images), torch.from_numpy(outputs).flatten(1)
    if tuple(pixels.shape[1:]) != tuple(network.input_shape) or theirs.shape != (len(pixels), network.class_count):
        raise Refused("refused: the converted model's input or output is not the original's; report this model")
    with torch.no_grad():
        ours = as_in_file(network, network(pixels))
    absolute, relative = difference(ours, theirs)
    return {"images": len(pixels), "absolute": absolute, "relative": relative}
