"""What training a copy of a network rests on: its weights, and gradients in chunks that fit the memory budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of images and what they are taught


def tensor_at(network: Network, path: str) -> torch.Tensor:
    """A weight by its path."""
    owner, _, name = path.rpartition(".")
    return getattr(network.module.get_submodule(owner), name)


def trainable(network: Network) -> list[torch.Tensor]:
    """All floating-point parameters, and the layers' weights that a file brought as plain tensors."""
    tensors: dict[int, torch.Tensor] = {id(p): p for p in network.module.parameters() if p.is_floating_point()}
    for layer in network.layers:
        for path in filter(None, (layer.weight, layer.bias)):
            tensor = tensor_at(network, path)
            tensors.setdefault(id(tensor), tensor)
    return list(tensors.values())


def gradients(
    loss: Loss,
    parameters: Sequence[torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    backend: Backend,
    each: float,
) -> list[torch.Tensor]:
    """The gradients of the mean loss over a batch, in chunks that fit the memory budget."""
    total = [torch.zeros_like(parameter) for parameter in parameters]

    def work(start: int, stop: int) -> None:
        part = loss(images[start:stop], labels[start:stop]) * ((stop - start) / len(images))
        found = torch.autograd.grad(part, parameters, allow_unused=True)
        for sum_, gradient in zip(total, found, strict=True):
            if gradient is not None:
                sum_ += gradient

    backend.chunked(work, len(images), each=each)
    return total


def bytes_per_image(network: Network, backend: Backend) -> float:
    """What a forward and a backward pass hold for one image, from what autograd keeps of it."""
    own = {tensor.untyped_storage().data_ptr() for tensor in network.module.state_dict().values()}
    kept = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += 0 if tensor.untyped_storage().data_ptr() in own else tensor.nbytes
        return tensor

    image = torch.zeros(1, *network.input_shape, device=backend.device, requires_grad=True)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        network(image)
    return 3.0 * (kept + image.nbytes)
