"""Every family of classifiers, from each of torch's exporters, at every opset."""

from collections import Counter

import onnx
import pytest
import torch
from onnx_classifiers import opened
from onnx_families import FAMILIES, NEWEST, OPSETS, NoSuchFile, family, written
from torch import nn

from agnes.layers import BATCH_NORMS
from agnes.network import Network

WAYS = [(exporter, opset) for exporter, opsets in OPSETS.items() for opset in opsets]
MATRIX = [(name, exporter, opset) for name in FAMILIES for exporter, opset in WAYS]
DIAGONAL = [
    ("lenet", "legacy", 13), ("alexnet", "legacy", 20), ("vgg-bn", "dynamo", 17), ("resnet-18", "legacy", 18),
    ("pre-activation resnet", "legacy", NEWEST), ("densenet", "legacy", 13), ("mobilenet", "legacy", 17),
    ("squeezenet", "legacy", 18), ("inception", "legacy", 20), ("global max pooling", "legacy", NEWEST),
    ("global average pooling", "legacy", 17), ("written as calls", "legacy", 13), ("leaky relu", "legacy", 13),
    ("elu", "legacy", 18), ("gelu", "dynamo", 20), ("silu", "dynamo", NEWEST), ("hardswish", "legacy", 17),
    ("vit", "dynamo", 18), ("vit of plain steps", "legacy", 20),
]  # fmt: skip


def test_the_diagonal_holds_every_family_and_every_opset_of_both_exporters():
    assert sorted(name for name, _, _ in DIAGONAL) == sorted(FAMILIES)
    assert {(exporter, opset) for _, exporter, opset in DIAGONAL} == set(WAYS)


@pytest.mark.parametrize(("name", "exporter", "opset"), DIAGONAL)
def test_a_family_opens_as_its_module(name, exporter, opset, tmp_path):
    check(written(name, exporter, opset), name, exporter, opset, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exporter", "opset"), [cell for cell in MATRIX if cell not in DIAGONAL])
def test_every_family_opens_from_both_exporters_at_every_opset(name, exporter, opset, tmp_path):
    try:
        content = written(name, exporter, opset)
    except NoSuchFile as error:
        pytest.skip(str(error))
    check(content, name, exporter, opset, tmp_path)


def check(content, name, exporter, opset, folder):
    """Logits, gradients, layers, normalisations and trainable weights are those of the module."""
    (folder / "m.onnx").write_bytes(content)
    network, module = opened(folder / "m.onnx"), family(name)
    assert network.facts["opset"] == opset
    assert network.facts["parity"]["relative"] < 1e-4
    images = torch.rand(3, *FAMILIES[name][1], requires_grad=True)
    logits = network(images)
    assert torch.allclose(logits, module(images), rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(logits.square().sum(), images)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()
    same = Network.of(module, FAMILIES[name][1])
    if "vit" not in name:
        assert [(layer.kind, layer.shape) for layer in network.layers] == [(x.kind, x.shape) for x in same.layers]
    assert len(network.layers) >= len(same.layers)
    stored = Counter(node.op_type for node in onnx.load_model_from_string(content).graph.node)
    assert count(network.module, BATCH_NORMS) == stored["BatchNormalization"]
    if exporter == "legacy":
        assert count(network.module, BATCH_NORMS) == count(module, BATCH_NORMS)
    assert trainable(network.module, nn.Conv2d) == trainable(module, nn.Conv2d)
    assert trainable(network.module, nn.Linear) == trainable(module, (nn.Linear, nn.MultiheadAttention))


def count(module, kinds):
    return sum(isinstance(part, kinds) for part in module.modules())


def trainable(module, kinds):
    """How many numbers the weights of some kinds of module hold."""
    weights = {
        id(weight): weight.numel()
        for part in module.modules()
        if isinstance(part, kinds)
        for weight in (getattr(part, "weight", None), getattr(part, "in_proj_weight", None))
        if isinstance(weight, nn.Parameter)
    }
    return sum(weights.values())
