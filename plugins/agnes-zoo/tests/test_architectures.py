"""The papers' networks."""

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch import nn

from agnes.network import Network
from agnes.registry import Registry

# Trainable parameters at 43 classes. Strategic retraining, table 1; Koldenhof, table 5.1; the others counted by hand:
# for a convolution (inputs x side x side + 1) x outputs, for a dense layer (inputs + 1) x outputs
PARAMETERS = {
    "N_SN": 30_203,
    "N_SN_BN": 30_347,
    "N_MN": 130_091,
    "N_MN_BN": 130_411,
    "N_LN": 516_139,
    "N_LN_BN": 516_779,
    "FC1": 3073 * 864 + 865 * 400 + 401 * 160 + 161 * 43,
    "FC2": 3073 * 864 + 865 * 864 + 865 * 512 + 513 * 256 + 257 * 43,
    "FC3": 3073 * 864 + 2 * 865 * 864 + 865 * 512 + 513 * 512 + 513 * 43,
    "NN1": 148 * 8 + 73 * 16 + 145 * 32 + 289 * 16 + 145 * 8 + 1569 * 43,
    "LeNet": 364 * 6 + 151 * 16 + 145 * 400 + 401 * 120 + 121 * 80 + 81 * 43,
    "AlexNet": 28 * 9 + 82 * 32 + 289 * 48 + 433 * 64 + 577 * 96 + 865 * 864 + 865 * 400 + 401 * 160 + 161 * 43,
    "VGG": 76 * 16 + 145 * 32 + 289 * 64 + 577 * 64 + 577 * 128 + 1153 * 64 + 577 * 1024 + 1025 * 1024 + 1025 * 43,
    "ABS_LeNet": 571_723,  # ABS, table 1
    "NiN": 966_986 + 33 * 193,  # ABS, table 1, counts 10 classes also for GTSRB
    "ResNet8": 80_331,
    "ResNet32": 467_946 + 33 * 65,
    "ResNet110": 1_734_666 + 33 * 65,
    "MNIST_2CONV": 26 * 16 + 401 * 32 + 513 * 43,
    "GTSRB_5CONV": 28 * 32 + 289 * 64 + 577 * 128 + 1153 * 128 + 1153 * 256 + 257 * 43,
    "MobileNet_S": 41_419,
}
IN_THOUSANDS = {"FC1": 3072, "FC2": 3987, "FC3": 4877, "NN1": 80, "LeNet": 123, "AlexNet": 1264, "VGG": 1893}
WITH_STATISTICS = {  # ABS, table 1: Keras counts the running means and variances of normalisation too
    ("NiN", 10): 966_986,
    ("ResNet32", 10): 470_218,
    ("ResNet110", 10): 1_742_762,
    ("ResNet110", 43): 1_744_907,
    ("ABS_LeNet", 43): 571_723,
}
DEPTHS = {"N_SN": 4, "N_MN_BN": 5, "FC1": 3, "FC3": 5, "NN1": 5, "LeNet": 5, "AlexNet": 8, "VGG": 8, "NiN": 9}
DEPTHS |= {"ABS_LeNet": 7, "MNIST_2CONV": 2, "GTSRB_5CONV": 5, "ResNet8": 9, "MobileNet_S": 11}
PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OFFERED = PROJECT["entry-points"]["agnes.architecture"]
MEDIUM = [name for name in PARAMETERS if name.startswith("N_")]


def build(name, classes=43):
    return EntryPoint(name, OFFERED[name], "agnes.architecture").load()(classes)


def trainable(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def test_every_architecture_of_the_papers_is_offered():
    assert OFFERED.keys() == PARAMETERS.keys()


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameter_counts_are_the_papers(name, count):
    assert trainable(build(name)) == count


@pytest.mark.parametrize(("name", "thousands"), IN_THOUSANDS.items())
def test_the_thousands_of_parameters_are_those_that_agnes_prints(name, thousands):
    assert trainable(build(name)) // 1000 == thousands


@pytest.mark.parametrize(("named", "count"), WITH_STATISTICS.items())
def test_parameters_and_statistics_together_are_those_that_abs_prints(named, count):
    module = build(*named)
    statistics = sum(buffer.numel() for name, buffer in module.named_buffers() if "running" in name)
    assert trainable(module) + statistics == count


@pytest.mark.parametrize("name", PARAMETERS)
def test_any_number_of_classes_is_served(name):
    module = build(name, 10).eval()
    assert module.input_shape == ((1, 28, 28) if name == "MNIST_2CONV" else (3, 32, 32))
    assert module(torch.zeros(2, *module.input_shape)).shape == (2, 10)


@pytest.mark.parametrize("name", MEDIUM)
def test_normalisation_follows_each_convolution_where_the_name_says_so(name):
    modules = list(build(name).modules())
    convolutions = sum(isinstance(m, nn.Conv2d) for m in modules)
    assert convolutions == (4 if "SN" in name else 5)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in modules) == (convolutions if name.endswith("BN") else 0)


@pytest.mark.parametrize(("name", "depth"), DEPTHS.items())
def test_the_engine_sees_every_weighted_operation_but_the_last_as_a_layer(name, depth):
    module = build(name).eval()
    network = Network.of(module, input_shape=module.input_shape)
    assert len(network.layers) == depth
    images = torch.rand(2, *module.input_shape, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(network(images), module(images), atol=1e-5)


def test_the_residual_network_normalises_and_activates_before_it_convolves():
    block = build("ResNet8").group1[0]
    maps = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    block.eval()
    with torch.no_grad():
        for convolution in (block.conv1, block.conv2):
            convolution.weight.zero_()
            convolution.bias.zero_()
        assert torch.equal(block(maps), maps)  # nothing is done to what the shortcut carries


def test_no_two_architectures_have_the_same_weights_so_a_file_tells_which_it_is():
    seen = {}
    for name in PARAMETERS:
        shapes = tuple((key, tuple(value.shape)) for key, value in build(name).state_dict().items())
        assert shapes not in seen.values(), name
        seen[name] = shapes


@pytest.mark.parametrize(("name", "count"), [("resnet18", 11_198_571), ("vgg11_bn", 128_948_011)])
def test_the_large_networks_of_koldenhof_are_found_by_name(name, count):
    plugins = {plugin.name: plugin for plugin in Registry.discover().of_stage("architecture")}
    if name not in plugins:
        pytest.skip("agnes-pytorch is not installed")
    with torch.device("meta"):
        assert trainable(plugins[name].load()(43)) == count


def test_all_are_found_by_name_once_the_plugin_is_installed():
    assert OFFERED.keys() <= {plugin.name for plugin in Registry.discover().of_stage("architecture")}


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_docs_name_every_architecture_with_its_parameters(name):
    page = (Path(__file__).parents[3] / "docs" / "zoo-architectures.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith("|") and f"`{name}`" in line.split("|")[1]]
    assert f"{PARAMETERS[name]:,}" in row
