"""The papers' small networks."""

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch import nn

from agnes.network import Network

# Strategic retraining, table 1, and Koldenhof, table 5.1
PARAMETERS = {
    "N_SN": 30_203,
    "N_SN_BN": 30_347,
    "N_MN": 130_091,
    "N_MN_BN": 130_411,
    "N_LN": 516_139,
    "N_LN_BN": 516_779,
}
PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OFFERED = PROJECT["entry-points"]["agnes.architecture"]


def build(name, classes=43):
    return EntryPoint(name, OFFERED[name], "agnes.architecture").load()(classes)


def test_every_architecture_of_the_tables_is_offered():
    assert OFFERED.keys() == PARAMETERS.keys()


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameter_counts_are_the_papers(name, count):
    assert sum(p.numel() for p in build(name).parameters() if p.requires_grad) == count


@pytest.mark.parametrize("name", PARAMETERS)
def test_any_number_of_classes_is_served(name):
    module = build(name, 10).eval()
    assert module.input_shape == (3, 32, 32)
    assert module(torch.zeros(2, *module.input_shape)).shape == (2, 10)


@pytest.mark.parametrize("name", PARAMETERS)
def test_normalisation_follows_each_convolution_where_the_name_says_so(name):
    modules = list(build(name).modules())
    convolutions = sum(isinstance(m, nn.Conv2d) for m in modules)
    assert convolutions == (4 if "SN" in name else 5)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in modules) == (convolutions if name.endswith("BN") else 0)


@pytest.mark.parametrize("name", ["N_SN", "N_MN_BN"])
def test_the_engine_sees_every_convolution_as_a_layer(name):
    network = Network.of(build(name).eval(), input_shape=(3, 32, 32))
    assert [layer.kind for layer in network.layers] == ["conv"] * (4 if name == "N_SN" else 5)
