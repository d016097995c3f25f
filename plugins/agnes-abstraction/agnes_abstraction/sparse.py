"""A fully connected layer most of whose weights are zero, as a convolution turned into one is."""

from __future__ import annotations

import torch
from torch import nn


class SparseLinear(nn.Module):
    """x W^T + b, where only the weights that are not zero are kept."""

    agnes_kind = "linear"

    def __init__(self, index: torch.Tensor, values: torch.Tensor, bias: torch.Tensor, width: int) -> None:
        super().__init__()
        self.in_features = width
        self.out_features = len(bias)
        self.index: torch.Tensor
        self.register_buffer("index", index)  # 2, weights: row and column, sorted by both
        self.values = nn.Parameter(values, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    @property
    def weight(self) -> torch.Tensor:
        """All weights, the zeros with them."""
        return self._matrix().to_dense()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        with torch.autocast(rows.device.type, enabled=False):  # there is no sparse product in lower precision
            product = torch.sparse.mm(self._matrix(), rows.float().T).T
        return (product + self.bias).to(rows.dtype)

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}, {self.values.numel()} weights"

    def _matrix(self) -> torch.Tensor:
        size = (self.out_features, self.in_features)
        return torch.sparse_coo_tensor(self.index, self.values, size, is_coalesced=True, check_invariants=False)
