"""Whether a loaded network computes what its file says, measured against onnxruntime."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from agnes.errors import Refused
from agnes.loading import real_images
from agnes.text import printable

if TYPE_CHECKING:
    from agnes.loading import LoadOptions
    from agnes.network import Network
    from agnes_onnx.graph import Imported
    from agnes_onnx.runtime import Answer, Reference


def measure(
    network: Network,
    model: Any,
    imported: Imported,
    images: torch.Tensor,
    answer: Answer,
    reference: Reference,
    most: float,
) -> dict[str, Any]:
    """The largest differences from onnxruntime's answer; Refused above a relative difference of `most`."""
    with torch.no_grad():
        ours = as_in_file(network, network(images))
    theirs = answer.logits
    if ours.shape != theirs.shape or not torch.isfinite(theirs).all():
        raise Refused(
            "refused: onnxruntime's output for random images is not finite, or not one row of logits an image"
        )
    absolute, relative = differences(ours, theirs)
    if not relative <= most:
        where = _first_difference(network, model, imported, images, reference, most)
        raise Refused(
            f"refused: the loaded network differs from onnxruntime by {relative:.2g} relative (more than {most:g})"
            f"{where}; report this model"
        )
    return {"reference": answer.version, "images": len(images), "absolute": absolute, "relative": relative}


def differences(ours: torch.Tensor, theirs: torch.Tensor) -> tuple[float, float]:
    """The largest absolute difference, and that over the reference's largest value."""
    absolute = float((ours - theirs).abs().max())
    return absolute, absolute / max(float(theirs.abs().max()), 1e-12)


def images(shape: Sequence[int], count: int, options: LoadOptions) -> tuple[torch.Tensor, int]:
    """Images to compare a network on: random ones, then a few of the user's; and how many those are."""
    real = real_images(options, shape)
    noise = random_images(shape, count)
    return (noise, 0) if real is None else (torch.cat([noise, real]), len(real))


def random_images(shape: Sequence[int], count: int) -> torch.Tensor:
    """Pixels at random, the same ones each time."""
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


def as_file_takes(network: Network, images: torch.Tensor) -> torch.Tensor:
    """Pixels as the file's own input takes them."""
    preprocess = network.preprocess
    with torch.no_grad():
        taken = images if preprocess is None else preprocess(images)
    return taken.flatten(1) if network.facts.get("flat") else taken


def as_in_file(network: Network, logits: torch.Tensor) -> torch.Tensor:
    """Logits with the softmax that the file ends in."""
    if network.peeled == "log_softmax":
        return logits.log_softmax(1)
    return logits.softmax(1) if network.peeled else logits


class _Keeping(fx.Interpreter):
    """Runs a graph and keeps what each node gave."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.values[n.name] = super().run_node(n)
        return self.values[n.name]


def _first_difference(
    network: Network, model: Any, imported: Imported, images: torch.Tensor, reference: Reference, most: float
) -> str:
    """Where the two part, in words; empty where that cannot be said."""
    from onnx import ValueInfoProto

    inner = copy.deepcopy(model)
    names = [n for node in model.graph.node for n in node.output if n in imported.nodes]
    del inner.graph.output[:]
    inner.graph.output.extend(ValueInfoProto(name=name) for name in names)
    keeping = _Keeping(network.module)
    try:
        with torch.no_grad():
            keeping.run(images)
        theirs = reference.run(inner.SerializeToString(), as_file_takes(network, images)).outputs
    except Exception:  # the search only adds to an error that is raised anyway
        return ""
    for name, value in zip(names, theirs, strict=True):
        own = keeping.values.get(imported.nodes[name])
        if isinstance(own, torch.Tensor) and own.shape == value.shape and differences(own, value)[1] > most:
            node = next(n for n in model.graph.node if name in n.output)
            return f", first at {printable(node.name or name)} ({node.op_type})"
    return ""
