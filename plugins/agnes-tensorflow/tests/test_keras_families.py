"""Every family of classifiers, from each of Keras's ways to write it."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from keras_families import CELLS, CHAINS, FORMATS, GRAPHS, SUFFIXES
from torch import nn

pytest.importorskip("agnes_tensorflow")

from agnes.errors import Refused
from agnes.layers import BATCH_NORMS, CONVOLUTIONS
from agnes.loading import LoadOptions, open_model
from agnes.registry import Registry

QUICK = (
    "mobilenet.functional.keras",
    "vgg-bn.sequential.h5",
    "vit.functional.savedmodel",
    "densenet.functional.keras-onnx",
    "inception.functional.tf2onnx-13",
    "lenet.sequential.tf2onnx-18",
)


UNWRITTEN = {  # what tf2onnx, and so Keras, writes as an operator that ONNX does not have
    "grouped": "StatefulPartitionedCall",
    "gelu": "Erfc",
    "vit": "Erfc",
}


def test_the_quick_cells_hold_every_format_and_both_ways():
    assert {cell.split(".")[2] for cell in QUICK} == set(FORMATS)
    assert {cell.split(".")[1] for cell in QUICK} == {"functional", "sequential"}
    assert len(CHAINS) + len(GRAPHS) >= 12


@pytest.mark.parametrize("cell", QUICK)
def test_a_family_opens_as_its_model(families, cell, monkeypatch):
    monkeypatch.chdir(families(QUICK))  # a path is understood from where the user is
    check(Path(), cell)


@pytest.mark.slow
@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell not in QUICK])
def test_every_family_opens_from_every_format(families, cell):
    name, way, _ = cell.split(".")
    folder = families(tuple(each for each in CELLS if each.startswith(f"{name}.{way}.")))
    if name in UNWRITTEN and "onnx" in cell:
        with pytest.raises(Refused, match=rf"operator {UNWRITTEN[name]} \(node \S*/\S+, opset"):
            open_model(folder / f"{cell}.onnx", LoadOptions(), Registry.discover())
    else:
        check(folder, cell)


def check(folder, cell):
    """Logits, gradients, layers, normalisations and trainable weights are those of the Keras model."""
    wanted = json.loads((folder / f"{cell}.json").read_text())
    given = np.load(folder / f"{cell}.npz")
    path = folder / f"{cell}{SUFFIXES.get(cell.rpartition('.')[2], '.onnx')}"
    network = open_model(path, LoadOptions(), Registry.discover()).network
    assert network.facts["parity"]["relative"] < 1e-4
    images = torch.from_numpy(given["images"]).requires_grad_()
    logits = network(images)
    outputs = logits.softmax(1) if network.peeled else logits
    theirs = torch.from_numpy(given["outputs"])
    assert (outputs - theirs).abs().max() / theirs.abs().max() < 1e-4
    (gradient,) = torch.autograd.grad(logits.square().sum(), images)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()
    if path.suffix == ".onnx":  # Keras and tf2onnx fold some into convolutions
        stored = Counter(node.op_type for node in onnx.load(path).graph.node)
        assert count(network.module, BATCH_NORMS) == stored["BatchNormalization"]
    else:
        assert count(network.module, BATCH_NORMS) == wanted["norms"]
    assert count(network.module, CONVOLUTIONS) == wanted["convolutions"]
    assert count(network.module, nn.Linear) >= wanted["linear"]
    assert len(network.layers) >= wanted["convolutions"] + wanted["linear"] - 1
    assert trainable(network.module) >= wanted["kernels"]


def count(module, kinds):
    return sum(isinstance(part, kinds) for part in module.modules())


def trainable(module):
    """How many numbers the kernels of convolutions and linear layers hold, as far as they can be trained."""
    kernels = [part.weight for part in module.modules() if isinstance(part, (*CONVOLUTIONS, nn.Linear))]
    return sum(kernel.numel() for kernel in kernels if isinstance(kernel, nn.Parameter))
