import time

import numpy as np
import pytest
from agnes_onnx import counting, idioms, runtime
from agnes_onnx.loader import OnnxLoader
from onnx_classifiers import exported, made
from onnx_hostile import classifier, node, weights_of

from agnes.errors import Refused
from agnes.loading import LoadOptions


def varint(number):
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


GOOD = classifier().SerializeToString()
BYTES = {  # files that are no message, or that a parser would make far more of: the content, what the refusal says
    "nothing": (b"", "is not an ONNX model|no ONNX graph"),
    "noise": (np.random.default_rng(0).bytes(5000), "not an ONNX model"),
    "a zip": (b"PK\x03\x04" + bytes(100), "not an ONNX model"),
    "a pickle": (b"\x80\x04\x95" + bytes(100), "not an ONNX model"),
    "a page": (b"<!DOCTYPE html><html></html>", "not an ONNX model"),
    "a number without end": (b"\x08" + b"\xff" * 100, "not an ONNX model"),
    "a length beyond the end": (b"\x3a\xff\xff\xff\xff\x07", "not an ONNX model"),
    "a group": (GOOD + b"\x0b" * 50, "not an ONNX model"),
    "many nodes": (GOOD + field(7, b"\x0a\x00" * 210_000), "more than onnx.part_limit"),
    "many sizes": (
        GOOD + field(7, field(5, field(1, b"\x01" * 210_000))), "more than onnx.part_limit",
    ),
    "many opsets": (GOOD + b"\x42\x00" * 210_000, "more than onnx.part_limit"),
    "a name of 8 MB": (GOOD + field(2, b"n" * 8_000_000), "more than onnx.part_limit"),
}  # fmt: skip


@pytest.mark.parametrize("case", BYTES)
def test_bytes_that_are_no_model_are_refused_before_they_are_parsed(case, tmp_path):
    content, words = BYTES[case]
    (tmp_path / "m.onnx").write_bytes(content)
    start = time.monotonic()
    with pytest.raises(Refused, match=words) as refusal:
        OnnxLoader(part_limit=200_000).load(tmp_path / "m.onnx", LoadOptions())
    assert str(refusal.value).isprintable()
    assert time.monotonic() - start < 20


def test_constants_that_double_stop_at_the_limit(tmp_path):
    nodes = [node("Concat", [f"d{i}"] * 2, f"d{i + 1}", axis=0) for i in range(60)]
    (tmp_path / "m.onnx").write_bytes(classifier(*nodes, d0=np.ones(8)).SerializeToString())
    with pytest.raises(Refused, match=r"more than onnx\.value_limit|makes a constant of more"):
        OnnxLoader(value_limit=1 << 20).load(tmp_path / "m.onnx", LoadOptions())


def test_a_thicket_of_products_is_searched_for_activations_by_few_steps(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    names = ["c", *(f"m{i}" for i in range(400))]
    nodes = [node("Mul", [names[j] for j in rng.integers(i // 2, i + 1, 2)], f"m{i}") for i in range(400)]
    for number, each in enumerate(nodes):
        each.name = str(number)
    (tmp_path / "m.onnx").write_bytes(classifier(*nodes, node("Identity", ["c"], "p"), end="p").SerializeToString())
    steps, value = [], idioms._value
    monkeypatch.setattr(idioms, "_value", lambda *given: steps.append(1) or value(*given))
    OnnxLoader().load(tmp_path / "m.onnx", LoadOptions())
    assert 0 < len(steps) < 400 * 400  # half a million where every value before is tried


def test_reading_one_large_constant_again_and_again_is_work(tmp_path):
    nodes = [node("ReduceMax", ["large"], f"r{i}", axes=[0]) for i in range(300)]
    (tmp_path / "m.onnx").write_bytes(classifier(*nodes, large=np.ones(1 << 16, np.float32)).SerializeToString())
    with pytest.raises(Refused, match=r"onnx\.work_limit"):
        OnnxLoader(work_limit=300 << 18).load(tmp_path / "m.onnx", LoadOptions())


def test_the_count_of_parts_does_not_grow_with_the_weights():
    wide = weights_of(wide=np.zeros(1 << 20, dtype=np.float32))[-1]
    model = classifier()
    model.graph.initializer.append(wide)
    counting.check(model.SerializeToString(), 300)
    with pytest.raises(Refused, match=r"onnx\.part_limit"):
        counting.check(model.SerializeToString(), 30)


@pytest.mark.parametrize(
    ("work", "words", "settings"),
    [
        ("crash", r"m\.onnx crashed the child process that opened it \(SIGABRT", {}),
        ("linger", r"m\.onnx took more than 0\.5 s", {"wall_seconds": 0.5}),
        ("hoard", r"m\.onnx took more than 1 GiB of memory", {"memory": 1 << 30}),
    ],
)
def test_what_a_file_does_to_onnxruntime_stays_in_its_child(work, words, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "_WORK", f"onnx_crashing:{work}")
    (tmp_path / "m.onnx").write_bytes(GOOD)
    with pytest.raises(Refused, match=words):
        OnnxLoader(**settings).load(tmp_path / "m.onnx", LoadOptions())


def test_the_time_that_onnxruntime_may_take_is_a_setting(tmp_path):
    (tmp_path / "m.onnx").write_bytes(GOOD)
    with pytest.raises(Refused, match=r"took more than 1e-06 s; .* raise wall_seconds"):
        OnnxLoader(wall_seconds=1e-6).load(tmp_path / "m.onnx", LoadOptions())


def test_limits_are_settings(tmp_path):
    path = exported(made("residual"), (3, 16, 16), tmp_path / "m.onnx")
    for loader, words in (
        (OnnxLoader(size_limit=1000), "size_limit"),
        (OnnxLoader(node_limit=3), "node_limit"),
        (OnnxLoader(value_limit=5000), "value_limit"),
    ):
        with pytest.raises(Refused, match=words):
            loader.load(path, LoadOptions())
