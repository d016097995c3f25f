"""Good files with bytes flipped or cut off: a network or a refusal, soon and in little memory, whatever the bytes."""

import resource
import time

import numpy as np
import pytest
from agnes_onnx import parity, runtime
from agnes_onnx.loader import OnnxLoader
from onnx_classifiers import NETS, exported, made

from agnes.errors import AgnesError
from agnes.loading import LoadOptions

SECONDS, BYTES = 20, 1 << 30  # the most that one damaged file may take
SOURCES = ("lenet", "residual", "shuffle", "attention")


def damaged(content, seed):
    """A file cut off, or with a few bits, bytes or runs of bytes changed."""
    rng = np.random.default_rng(seed)
    if seed % 5 == 0:
        return content[: int(rng.integers(1, len(content)))]
    changed = bytearray(content)
    near = len(content) if seed % 2 else min(len(content), 4000)  # the start holds the graph, the rest mostly weights
    for place in rng.integers(0, near, int(rng.integers(1, 6))):
        how = rng.integers(3)
        if how == 0:
            changed[place] ^= 1 << int(rng.integers(8))
        elif how == 1:
            changed[place] = int(rng.integers(256))
        else:
            changed[place : place + 4] = rng.bytes(4)
    return bytes(changed)


def survives(path, content):
    """Open what is damaged, and check how it ends."""
    path.write_bytes(content)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    said = ""
    try:
        OnnxLoader().load(path, LoadOptions())
    except AgnesError as error:
        said = str(error)
    assert "\n" not in said
    assert not said or said.isprintable()
    assert time.monotonic() - start < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < BYTES
    return bool(said)


@pytest.fixture(scope="module")
def content(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "m.onnx"
    return exported(made(request.param), NETS[request.param][1], path).read_bytes()


@pytest.mark.parametrize("content", SOURCES, indirect=True)
def test_a_damaged_file_ends_in_a_network_or_a_refusal(content, tmp_path, monkeypatch):
    """100 files in all, of which those with a seed below 3 are run by onnxruntime too."""
    whole = runtime.Reference.run
    for seed in range(25):
        monkeypatch.setattr(runtime.Reference, "run", whole if seed < 3 else lambda *_: None)
        monkeypatch.setattr(parity, "measure", parity.measure if seed < 3 else lambda *_: {})
        survives(tmp_path / "m.onnx", damaged(content, seed))


@pytest.mark.slow
@pytest.mark.parametrize("content", SOURCES, indirect=True)
@pytest.mark.parametrize("tens", range(25))
def test_a_thousand_damaged_files_end_in_networks_or_refusals(content, tens, tmp_path):
    refused = sum(survives(tmp_path / "m.onnx", damaged(content, 1000 + 10 * tens + i)) for i in range(10))
    assert refused > 0
