"""Promises of i-bau: its worst change, the gradient that moves with it, and what the network is trained on."""

from __future__ import annotations

import itertools

import pytest
import torch
from agnes_mitigation import i_bau
from agnes_mitigation.i_bau import IBau, hypergradient
from torch.nn import functional

from agnes.learning import trainable


def test_the_hypergradient_of_a_quadratic_is_the_analytic_one():
    # inner (d - A w)' (d - A w) / 2 has its minimum at d = A w; outer |d - b|^2 / 2 + c' w
    generator = torch.Generator().manual_seed(1)
    matrix, goal, slope = (torch.randn(*shape, generator=generator) for shape in ((4, 3), (4,), (3,)))
    weights = torch.randn(3, generator=generator, requires_grad=True)
    change = (matrix @ weights).detach()
    (direct,), (through,) = hypergradient(
        lambda d: (d - goal).square().sum() / 2 + slope @ weights,
        lambda d: (d - matrix @ weights).square().sum() / 2,
        [weights],
        change,
        terms=200,
        rate=0.3,
        radius=100.0,
    )
    torch.testing.assert_close(direct + through, matrix.T @ (change - goal) + slope, rtol=1e-3, atol=1e-4)


def test_the_hypergradient_at_the_bound_is_that_of_the_nearest_point_within_it():
    # inner |d - A w|^2 / 2 within |d| <= r has its minimum at d = r A w / |A w| where |A w| > r
    generator = torch.Generator().manual_seed(2)
    matrix, goal = torch.randn(4, 3, generator=generator), torch.randn(4, generator=generator)
    weights = torch.randn(3, generator=generator, requires_grad=True)
    radius = float((matrix @ weights).detach().norm()) / 2

    def nearest():
        return radius * (matrix @ weights) / (matrix @ weights).norm()

    (direct,), (through,) = hypergradient(
        lambda d: (d - goal).square().sum() / 2,
        lambda d: (d - matrix @ weights).square().sum() / 2,
        [weights],
        nearest(),
        terms=200,
        rate=0.3,
        radius=radius,
    )
    (wanted,) = torch.autograd.grad((nearest() - goal).square().sum() / 2, weights)
    assert float(wanted.norm()) > 0.1
    torch.testing.assert_close(direct + through, wanted, rtol=1e-3, atol=1e-4)


def test_the_worst_change_is_within_the_radius_and_misleads_more_than_any_of_many_at_random(planted, backend):
    method, images, labels = IBau(radius=1.5), planted.samples.images, planted.samples.labels
    wanted = functional.one_hot(labels, planted.network.class_count).float()
    change = method._worst(planted.network, itertools.repeat((images, wanted)), lambda _: None)

    def loss(change):
        return float(functional.cross_entropy(planted.network((images + change).clamp(0, 1)), labels))

    assert float(change.norm()) <= 1.5 * 1.0001
    draws = torch.randn(200, *change.shape, generator=torch.Generator().manual_seed(0))
    assert loss(change) > max(loss(1.5 * draw / draw.norm()) for draw in draws)


def test_the_network_is_trained_on_batches_of_which_a_share_is_under_the_change(planted, monkeypatch):
    seen = []

    def watched(outer, inner, parameters, change, *rest):
        seen.append(float(outer(change).detach()))
        return hypergradient(outer, inner, parameters, change, *rest)

    monkeypatch.setattr(i_bau, "hypergradient", watched)
    network = planted.network.copy()
    parameters = [parameter.requires_grad_(True) for parameter in trainable(network)]
    images, labels = planted.samples.images[:20], planted.samples.labels[:20]
    wanted = functional.one_hot(labels, network.class_count).float()
    change = torch.randn(1, *network.input_shape, generator=torch.Generator().manual_seed(0))
    IBau(share=0.3)._gradients(network, parameters, images, wanted, change)
    mixed = images.clone()
    mixed[:6] = (mixed[:6] + change).clamp(0, 1)
    assert seen == [pytest.approx(float(functional.cross_entropy(network(mixed), labels).detach()), rel=1e-5)]
