"""The largest margin of each class."""

import math

import numpy as np
import pytest
import torch
from agnes_diagnosis.gamma import Gamma
from agnes_diagnosis.max_margin import MaxMargin, by_chance
from torch import nn

from agnes.backend import Backend
from agnes.errors import OutOfTime, UsageError
from agnes.margins import margin
from agnes.network import Network
from agnes.testing import DiagnosisChecks, tiny_network

BACKEND = Backend.choose("cpu")


class TestConformance(DiagnosisChecks):
    method = MaxMargin(steps=5)


def linear(weight, bias=None):
    """Classes that are weighted sums of the pixels of a 1x2x2 image."""
    layer = nn.Linear(4, len(weight))
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(weight, dtype=torch.float32))
        layer.bias.copy_(torch.zeros(len(weight)) if bias is None else torch.as_tensor(bias))
    return Network.of(nn.Sequential(nn.Flatten(), layer), (1, 2, 2))


def test_the_largest_margins_of_a_linear_network_are_found_exactly():
    """Over a box the best input of one class against one other is at a corner; all corners are tried."""
    weight = torch.randn(5, 4, generator=torch.Generator().manual_seed(3))
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)
    found = MaxMargin(steps=300).margins(linear(weight), BACKEND)
    for target in range(5):
        logits = corners @ weight.T
        at_corners = margin(logits, torch.full((16,), target)).max()
        assert found[target] >= at_corners - 1e-4
        fine = torch.cartesian_prod(*[torch.linspace(0, 1, 9)] * 4)
        assert found[target] >= margin(fine @ weight.T, torch.full((len(fine),), target)).max() - 1e-4


def test_a_class_that_one_input_drives_far_is_the_target():
    """Five classes alike but one, which a single pixel wins by a hundred."""
    weight = torch.eye(6, 4)
    weight[4:] = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    weight[2, 2] = 100.0
    evidence = MaxMargin(steps=200).diagnose(linear(weight), BACKEND)
    assert (evidence.target, evidence.exceeds) == (2, True)
    assert evidence.by_class[2] == pytest.approx(99.5, rel=0.02)
    assert len(evidence.null) == 5


def test_of_numbers_from_one_distribution_few_sets_stand_out():
    """The paper leaves the largest out of the fit, so more than `level` of them do: one in seven."""
    numbers = torch.from_numpy(np.random.default_rng(0).gamma(20.0, 10.0, (400, 43)))
    share = sum(by_chance(each) < 0.05 for each in numbers) / len(numbers)
    assert 0.05 < share < 0.2


def test_chance_is_that_of_the_largest_of_many():
    margins = torch.tensor([1.0, 1.1, 0.9, 1.0, 1.2, 0.8, 5.0])
    assert by_chance(margins) < 1e-6
    few = margins[:-1]
    alone = Gamma.fitted([1.0, 1.1, 0.9, 1.0, 0.8]).above(float(few.max()))
    assert by_chance(few) == pytest.approx(1 - (1 - alone) ** 5, rel=1e-6)
    assert 0 <= by_chance(torch.tensor([-3.0, -1.0, -2.0, -4.0, 2.0])) <= 1


def test_the_same_seed_gives_the_same_score_and_data_play_no_part():
    network = tiny_network("plain")
    first = MaxMargin(steps=10).diagnose(network, Backend.choose("cpu", seed=1))
    assert first == MaxMargin(steps=10).diagnose(network, Backend.choose("cpu", seed=1))
    assert first.by_class != MaxMargin(steps=10).diagnose(network, Backend.choose("cpu", seed=2)).by_class


def test_few_classes_cannot_be_compared():
    assert "needs 5 classes" in MaxMargin().unmet(linear(torch.eye(4)))
    assert MaxMargin().unmet(linear(torch.randn(5, 4))) is None


def test_time_is_honoured():
    with pytest.raises(OutOfTime):
        MaxMargin(steps=10_000).diagnose(tiny_network("plain"), BACKEND.within(0.2))


@pytest.mark.parametrize("settings", [{"starts": 0}, {"steps": 0}, {"level": 0.0}, {"level": 1.0}])
def test_settings_without_sense_are_refused(settings):
    with pytest.raises(UsageError, match="max-margin"):
        MaxMargin(**settings)


def test_inputs_stay_images():
    """A network that rewards what lies outside [0, 1] gains nothing: the margin is that of the corner."""
    found = MaxMargin(steps=100).margins(linear(3 * torch.eye(5, 4)), BACKEND)
    assert float(found.max()) == pytest.approx(3.0, abs=1e-4)
    assert math.isfinite(float(found.min()))
