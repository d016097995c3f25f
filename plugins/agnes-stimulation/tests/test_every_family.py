"""Every method on every family of the load matrix, opened from ONNX: it runs, or is skipped for a reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from agnes_stimulation import nsf
from agnes_stimulation.nsf import Stimulation
from agnes_stimulation.preparing import for_scanning

from agnes import selection
from agnes.backend import Backend
from agnes.network import Network
from agnes.registry import Registry
from agnes.results import MethodRun
from agnes.samples import Samples
from agnes.stages import Stages

sys.path.append(str(Path(__file__).resolve().parents[2] / "agnes-onnx" / "tests"))
pytest.importorskip("agnes_abstraction")
families = pytest.importorskip("onnx_families")
classifiers = pytest.importorskip("onnx_classifiers")

HARD = ["vit", "vit of plain steps", "inception", "densenet", "mobilenet"]
NOT_PIECEWISE_LINEAR = {"lenet", "mobilenet", "elu", "gelu", "silu", "hardswish", "vit", "vit of plain steps"}
CHAINS = {"global average pooling", "leaky relu", "elu", "gelu", "silu", "hardswish"}
METHODS = {
    "kmeans": ["abs", "abs-exact", "abssm", "aproxsm", "variance"],
    "deepabstract": ["abssm"],
    "hdbscan": ["aproxsm"],
    "dbscan": ["aproxsm"],
}
BACKEND = Backend.choose("cpu", memory=1 << 28)
ALL = [name if name in HARD else pytest.param(name, marks=pytest.mark.slow) for name in families.FAMILIES]


def opened(name: str, folder: Path) -> tuple[Network, Samples]:
    (folder / "m.onnx").write_bytes(families.written(name, "legacy", 18))
    network = classifiers.opened(folder / "m.onnx")
    count = 2 * network.class_count
    images = torch.rand(count, *network.input_shape, generator=torch.Generator().manual_seed(0))
    return network, Samples(images, torch.arange(count) % network.class_count)


def run_all(network: Network, samples: Samples) -> tuple[dict[tuple[str, str], MethodRun], dict[str, set[str]]]:
    """How each method went beside each abstraction, and the layers of the candidates by method."""
    runs, layers = {}, {}
    for abstraction, others in METHODS.items():
        chosen = selection.select(Registry.discover(), network, [abstraction, *others], only=True)
        stages = Stages(chosen, BACKEND, None, samples)
        for candidate in stages.stimulate(network, stages.abstract(network)):
            layers.setdefault(candidate.method, set()).add(candidate.layer)
        runs.update({(abstraction, run.name): run for run in stages.runs})
    return runs, layers


@pytest.mark.parametrize("name", ALL)
def test_all_methods_run_or_are_skipped_for_a_reason(name: str, tmp_path: Path):
    network, samples = opened(name, tmp_path)
    runs, layers = run_all(network, samples)
    expected: dict[tuple[str, str], str] = {}
    if name in NOT_PIECEWISE_LINEAR:
        expected["kmeans", "abs-exact"] = "needs a piecewise-linear network"
    if name not in CHAINS:
        expected["deepabstract", "deepabstract"] = "needs layers in a row that can be merged: "
        expected["deepabstract", "abssm"] = "needs representatives from an abstraction method"
    for which, run in runs.items():
        if which in expected:
            assert run.status == "skipped", (which, run.reason)
            assert run.reason.startswith(expected[which])
        else:
            assert run.status == "ok", (which, run.reason)
    assert {"abs", "aproxsm"} <= layers.keys()
    if "vit" in name:  # channels of its tokens
        assert any(network.layer(layer).channel_dim == 1 for layer in layers["abs"])


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_the_functions_are_those_of_the_plain_way_in_small_chunks_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    network, samples = opened(name, tmp_path)
    images = samples.images[:5]
    monkeypatch.setattr(nsf, "_CACHE", 200_000)  # a chunk is a few images of a channel
    scanned = for_scanning(network)
    values = torch.tensor([0.0, 2.0])
    for layer in network.layers:
        channels = torch.tensor([0, layer.channels - 1])
        found = Stimulation(scanned, scanned.layer(layer.name), images, BACKEND).functions(channels, values)
        state = network.until(layer, images)
        for channel, logits in zip(channels.tolist(), found.logits, strict=True):
            for value, mine in zip(values, logits, strict=True):
                replaced = state.value.clone()
                replaced[layer.channel_index(channel)] = value
                expected = network.after(layer, state, replaced)
                assert float((mine - expected).abs().max()) <= 1e-5 * float(expected.abs().max()), layer.name
