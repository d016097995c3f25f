"""The network as scanning wants it: the same numbers, less work."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from agnes.network import Network

Size = tuple[int, int]  # height and width

_SMALL = 9  # positions of a map up to which a matrix does less work than a 3 x 3 kernel over its margins
_LARGEST = 1 << 24  # entries of such a matrix


def for_scanning(network: Network) -> Network:
    """A copy with BatchNorm folded, matrices in place of convolutions over tiny maps, laid out for the CPU."""
    folded = network.fold_batch_norm()
    module = folded.module
    sizes = _map_sizes(folded)
    for path, (given, made) in sizes.items():
        conv = module.get_submodule(path)
        if _pays(conv, given, made):
            module.set_submodule(path, TinyMapConv2d(conv, given, made))  # type: ignore[arg-type]
    if folded.device.type == "cpu":
        module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return folded


class TinyMapConv2d(nn.Conv2d):
    """A convolution over maps of a few positions, as one matrix: the kernel's part in the padding is left out."""

    def __init__(self, conv: nn.Conv2d, given: Size, made: Size) -> None:
        nn.Module.__init__(self)
        for name, value in vars(conv).items():
            if not name.startswith("_") or name == "_reversed_padding_repeated_twice":
                setattr(self, name, value)
        self.weight, self.bias = conv.weight, conv.bias
        self.given, self.made = given, made
        self.register_buffer("matrix", _matrix(conv, given), persistent=False)
        bias = None if conv.bias is None else conv.bias.detach().repeat(made[0] * made[1])
        self.register_buffer("shift", bias, persistent=False)
        self.eval()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        rows = input.permute(0, 2, 3, 1).flatten(1)  # a view where the channels come last in memory
        made = functional.linear(rows, self.matrix, self.shift)  # type: ignore[arg-type]
        return made.view(-1, *self.made, self.out_channels).permute(0, 3, 1, 2)

    def of_channels(self, channels: torch.Tensor) -> torch.Tensor:
        """The matrix of some input channels: channels, positions, outputs (positions first, then channels)."""
        matrix: torch.Tensor = self.matrix  # type: ignore[assignment]
        return matrix.view(len(matrix), -1, self.in_channels)[:, :, channels].permute(2, 1, 0)


def _pays(conv: nn.Module, given: Size, made: Size) -> bool:
    """Whether the matrix does no more work than the kernel, and is not too large."""
    if type(conv) is not nn.Conv2d or conv.groups != 1 or conv.padding_mode != "zeros":
        return False
    inside, outside = given[0] * given[1], made[0] * made[1]
    taps = outside * conv.kernel_size[0] * conv.kernel_size[1]
    return inside <= _SMALL and inside * outside <= taps and taps * conv.weight[:, :, 0, 0].numel() <= _LARGEST


def _matrix(conv: nn.Conv2d, given: Size) -> torch.Tensor:
    """Outputs x inputs, each with the positions first and then the channels: what the kernel does to each input."""
    count = given[0] * given[1]
    weight = conv.weight.detach()
    unit = torch.eye(count, dtype=weight.dtype, device=weight.device).reshape(count, 1, *given)
    # one position at a time, all kernels over it: positions, out * in, height, width
    kernels = weight.reshape(-1, 1, *weight.shape[2:])
    seen = functional.conv2d(unit, kernels, None, conv.stride, conv.padding, conv.dilation)
    outputs, inputs = weight.shape[:2]
    seen = seen.reshape(count, outputs, inputs, -1)  # from, out, in, to
    return seen.permute(3, 1, 0, 2).reshape(-1, count * inputs).contiguous()


def _map_sizes(network: Network) -> dict[str, tuple[Size, Size]]:
    """Height and width before and after each convolution that is used once."""
    convolutions = [
        node
        for node in network.module.graph.nodes
        if node.op == "call_module" and isinstance(network.module.get_submodule(str(node.target)), nn.Conv2d)
    ]
    uses = Counter(str(node.target) for node in convolutions)
    sizes: dict[str, tuple[Size, Size]] = {}
    for node in convolutions:
        given = network.shapes.get(node.all_input_nodes[0].name, network.input_shape)
        made = network.shapes.get(node.name, ())
        if uses[str(node.target)] == 1 and len(given) == len(made) == 3:
            sizes[str(node.target)] = (given[1], given[2]), (made[1], made[2])
    return sizes
