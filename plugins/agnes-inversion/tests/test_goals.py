"""Promises of the losses: each is the paper's formula, and its gradient that of finite differences."""

from __future__ import annotations

import pytest
import torch
from agnes_inversion.arms import Arm
from agnes_inversion.forms import Additive, Masked, Mixed
from agnes_inversion.goals import Maps, Neurons, ToClass
from agnes_inversion.reading import Reader
from planted_corner import backend
from tiny import assert_gradient_is_that_of_the_loss, search_with, tiny_images, tiny_network

from agnes.differentiating import logits_of
from agnes.features import identity

TARGETS = torch.tensor([0, 2])
ARMS = [Arm(0, "candidate", "0", 1), Arm(2, "candidate", "2", 3, others=(("0", 2),))]
FORMS = {
    "additive": (Additive(), (2, 3, 8, 8)),
    "masked": (Masked(largest=20.0, steepness=3.0), (4, 8, 8)),
    "mixed": (Mixed(), (3, 13)),
}


@pytest.fixture(scope="module")
def network():
    return tiny_network()


def parameters(name: str) -> torch.Tensor:
    drawn = 0.3 * torch.randn(2, *FORMS[name][1], dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return drawn + identity(3) if name == "mixed" else drawn - 0.5


def neurons(network, logit: float) -> Neurons:
    return Neurons(network, ARMS, tiny_images()[0], backend(), others=0.3, neuron=0.7, logit=logit)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("goal", ["class", "neurons", "neurons and logit"])
def test_the_gradient_is_that_of_the_loss(network, form, goal):
    made = (
        ToClass(logits_of(network), TARGETS)
        if goal == "class"
        else neurons(network, 0.5 if goal.endswith("logit") else 0.0)
    )
    search = search_with(network, FORMS[form][0], made, TARGETS)
    assert_gradient_is_that_of_the_loss(search, parameters(form))


def test_the_gradient_of_a_map_is_that_of_its_loss(network):
    arms = [Arm(0, "candidate", "0", 1), Arm(2, "candidate", "0", 3)]
    wanted = torch.randn(2, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    goal = Maps(network, arms, wanted, tiny_images()[0], backend())
    assert_gradient_is_that_of_the_loss(search_with(network, Additive(), goal, TARGETS), parameters("additive"))


def test_layers_are_read_before_their_relu_and_others_at_their_end(network):
    images, _ = tiny_images()
    module = network.module
    reader = Reader(network, network.layers, with_logits=True)
    first, second, logits = reader(images)
    convolved = module.get_submodule("0")(images)
    torch.testing.assert_close(first, convolved.flatten(2))
    torch.testing.assert_close(second, module.get_submodule("2")(convolved.relu()).tanh().flatten(2))
    torch.testing.assert_close(logits, network(images))
    assert reader.rectified == (True, False)


def test_the_neurons_loss_is_algorithm_2(network):
    images, _ = tiny_images()
    stamped = (images + 0.2).clamp(0, 1)
    goal = neurons(network, 0.0)
    loss, logits = goal(stamped, torch.tensor([0, 1, 1, 0, 1]), torch.arange(5))
    assert logits is None
    convolve = network.module.get_submodule("0")

    def values(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        before = convolve(x[None])[0]
        after = network.module.get_submodule("2")(before.relu()[None])[0].tanh()
        return before, after

    for place, arm in enumerate([0, 1, 1, 0, 1]):
        expected = 0.0
        excited = dict(ARMS[arm].neurons)
        for layer, (name, now, then) in enumerate(
            zip("02", values(stamped[place]), values(images[place]), strict=True)
        ):
            if name not in excited:
                continue
            rest = min(0.0, float(now[excited[name]].max()))
            if name == "0":
                now, then = now.relu(), then.relu()
            moved = sum(float((now[k] - then[k]).abs().sum()) for k in range(len(now)) if k != excited[name])
            activation = float(now[excited[name]].sum()) + (rest if name == "0" else 0.0)
            expected += (0.3 * moved - 0.7 * activation) / float(goal.units[layer])
        assert float(loss[place]) == pytest.approx(expected, rel=1e-9)


def test_the_maps_loss_is_the_mean_square_from_the_map_that_is_wanted(network):
    images, _ = tiny_images()
    stamped = (images + 0.2).clamp(0, 1)
    wanted = torch.linspace(-1, 2, 36, dtype=torch.float64)
    goal = Maps(network, [Arm(0, "candidate", "0", 2)], wanted[None], images, backend())
    loss, _ = goal(stamped, torch.zeros(5, dtype=torch.long), torch.arange(5))
    convolve = network.module.get_submodule("0")
    for place in range(5):
        now, then = convolve(stamped[place][None])[0, 2].flatten(), convolve(images[place][None])[0, 2].flatten()
        expected = float((now - (then + wanted)).square().mean() / wanted.square().mean())
        assert float(loss[place]) == pytest.approx(expected, rel=1e-9)
