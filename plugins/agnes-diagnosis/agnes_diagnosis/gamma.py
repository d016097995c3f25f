"""A gamma distribution fitted to positive numbers by maximum likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

_STEPS = 50  # of Newton's method; it converges in about five
_LEAST_SPREAD = 1e-6  # of the logarithms; below it the numbers count as equal


@dataclass(frozen=True)
class Gamma:
    """Shape and scale."""

    shape: float
    scale: float

    @classmethod
    def fitted(cls, values: Sequence[float]) -> Gamma:
        """The likeliest gamma distribution: log k - digamma(k) is the log of the mean less the mean of the logs."""
        numbers = torch.tensor(values, dtype=torch.float64)
        if len(numbers) < 2 or not bool((numbers > 0).all()):
            raise ValueError("a gamma distribution is fitted to two or more positive numbers")
        mean = numbers.mean()
        spread = max(float(mean.log() - numbers.log().mean()), _LEAST_SPREAD)
        shape = (3 - spread + math.sqrt((spread - 3) ** 2 + 24 * spread)) / (12 * spread)
        for _ in range(_STEPS):
            k = torch.tensor(shape, dtype=torch.float64)
            error = math.log(shape) - float(torch.digamma(k)) - spread
            slope = 1 / shape - float(torch.polygamma(1, k))
            step = error / slope
            shape = max(shape - step, shape / 2)
            if abs(step) < 1e-10 * shape:
                break
        return cls(shape, float(mean) / shape)

    def above(self, value: float) -> float:
        """The probability of a number larger than this."""
        k, x = torch.tensor([self.shape, max(value, 0.0) / self.scale], dtype=torch.float64)
        return float(torch.special.gammaincc(k, x))
