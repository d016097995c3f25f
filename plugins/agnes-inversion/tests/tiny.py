"""Small networks of known weights, and a search in float64 whose gradient can be checked."""

from __future__ import annotations

import torch
from agnes_inversion.forms import Form
from agnes_inversion.goals import Goal
from agnes_inversion.search import Schedule, Search
from planted_corner import backend
from torch import nn

from agnes.differentiating import logits_of, quick
from agnes.network import Network

SCHEDULE = Schedule(
    steps=10,
    rate=0.1,
    betas=(0.5, 0.9),
    weight=1e-2,
    success=0.99,
    confidence=0.0,
    patience=5,
    raise_by=1.5,
    lower_by=2.0,
    setbacks=3,
    hopeless_after=5,
)


def tiny_network() -> Network:
    """Two convolutions, one with a ReLU behind it and one with a tanh, in float64."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Tanh(), nn.Flatten(), nn.Linear(5 * 16, 3)
    )
    fast = quick(Network.of(module.eval(), (3, 8, 8)))
    fast.module.double()
    return fast


def tiny_images() -> tuple[torch.Tensor, torch.Tensor]:
    """Images in float64 and their labels."""
    images = torch.rand(5, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return images, torch.tensor([0, 1, 2, 0, 1])


def search_with(network: Network, form: Form, goal: Goal, targets: torch.Tensor) -> Search:
    images, labels = tiny_images()
    eligible = labels[None] != targets[:, None]
    return Search(form, goal, logits_of(network), images, targets, eligible, SCHEDULE, backend(), batch=32)


def assert_gradient_is_that_of_the_loss(search: Search, parameters: torch.Tensor, places: int = 30) -> None:
    """By central differences at some of the parameters."""
    arms, chosen = torch.arange(len(parameters)), torch.ones(len(search.images), dtype=torch.bool)
    weights = torch.linspace(0.3, 0.7, len(parameters), dtype=torch.float64)
    gradient, _ = search.gradient(parameters, arms, weights, chosen)
    step, draw = 1e-6, torch.Generator().manual_seed(2)
    seen = 0.0
    for place in torch.randint(parameters.numel(), (places,), generator=draw).tolist():
        nudge = torch.zeros(parameters.numel(), dtype=torch.float64)
        nudge[place] = step
        nudge = nudge.view_as(parameters)
        up = search.loss(parameters + nudge, arms, weights, chosen).sum()
        down = search.loss(parameters - nudge, arms, weights, chosen).sum()
        expected = float(up - down) / (2 * step)
        assert abs(float(gradient.flatten()[place]) - expected) <= 1e-4 * abs(expected) + 1e-7
        seen += abs(expected)
    assert seen > 0
