"""agnes inspect: what it tells of a file, and how that reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import fakes
import pytest

from agnes import cli
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.reports import inspection


@pytest.fixture
def agnes(tmp_path, monkeypatch, capsys):
    """Call the command in a folder with a model and images; returns code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    fakes.model_file(tmp_path)
    fakes.images_file(tmp_path)

    def call(*arguments):
        code = cli.invoke(["inspect", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    with fakes.installed(*fakes.whole_house()):
        yield call


def told(**more):
    """What inspection finds, with the facts of a loader."""
    return {
        "path": "/somewhere/m.onnx", "name": "m.onnx", "bytes": 1234567, "sha256": "ab" * 32, "loader": "onnx",
        "format": "onnx", "input_shape": [3, 8, 8], "classes": 2, "class_names": ["class 0", "class 1"],
        "parameters": 12345, "kinds": ["conv", "relu"], "softmax_peeled": None, "piecewise_linear": True,
        "layers": [], "methods": [], **more,
    }  # fmt: skip


def row(text, label):
    """What stands behind a label."""
    return next(line for line in text.splitlines() if line.startswith(f"  {label} ")).removeprefix(f"  {label}").strip()


def test_a_file_is_told_in_lines_that_read():
    text = inspection.text(told(opset=17, input_name="pixels"))
    assert text.splitlines()[0] == "m.onnx: onnx, opened by onnx"
    assert row(text, "size") == "1,234,567 bytes"
    assert row(text, "input") == "3x8x8 (channels, height, width), pixels in 0 to 1"
    assert row(text, "kinds") == "conv, relu"
    assert row(text, "piecewise linear") == "yes"
    assert row(text, "opset") == "17"
    assert row(text, "input name") == "pixels"


def test_nothing_is_told_of_what_is_not_there():
    text = inspection.text(told(bytes=None, sha256=None, producer="", nested_under="", number_types=[], empty={}))
    for word in ("None", "[]", "{}", "peeled", "size", "sha256", "producer", "nested", "number", "empty", "layer"):
        assert word not in text


def test_no_value_reads_as_python():
    text = inspection.text(
        told(softmax_peeled="softmax", number_types=["F16", "F32"], trusted=True, operators={"Conv": 2}, share=1 / 3)
    )
    assert row(text, "peeled off") == "softmax"
    assert row(text, "number types") == "F16, F32"
    assert row(text, "trusted") == "yes"
    assert row(text, "operators") == "Conv 2"
    assert row(text, "share") == "0.333"
    assert not set("[]{}'\"") & set(text)


@pytest.mark.parametrize(
    ("real", "words"),
    [(0, "on 4 random images"), (3, "on 1 random image and 3 of yours"), (None, "on 4 random images")],
)
def test_the_proof_says_how_far_from_what_and_on_what(real, words):
    parity = {"reference": "onnxruntime 1.2", "images": 4, "absolute": 1e-6, "relative": 3.3e-7}
    text = inspection.text(told(parity=parity if real is None else {**parity, "real_images": real}))
    assert row(text, "parity") == f"differs by 3e-07 relative from onnxruntime 1.2, {words}"
    same = inspection.text(told(parity={**parity, "relative": 0.0}))
    assert row(same, "parity") == "the same as onnxruntime 1.2, on 4 random images"


def test_classes_that_have_names_are_named_in_part():
    names = [f"sign {i}" for i in range(9)]
    text = inspection.text(told(classes=9, class_names=names))
    assert row(text, "classes") == "9: sign 0, sign 1, sign 2, sign 3, sign 4, sign 5 and 3 more"


def test_long_values_are_wrapped_under_themselves():
    text = inspection.text(told(operators={f"Operator{i}": i for i in range(60)}))
    assert max(len(line) for line in text.splitlines()) <= 110
    start = next(line for line in text.splitlines() if "Operator0" in line).index("Operator0")
    assert any(line.startswith(" " * start + "Operator") for line in text.splitlines())


def test_what_strangers_wrote_cannot_move_the_cursor():
    evil = "\x1b[2J\r\n\u202eevil"
    layer = {"name": evil, "kind": "conv", "shape": [4], "norm": None, "norm_first": True, "activation": None}
    found = told(name=evil, producer=evil, class_names=[evil, "b"], layers=[layer], **{evil: {evil: [evil]}})
    text = inspection.text(found)
    assert all(line.isprintable() for line in text.split("\n"))
    assert text.count("evil") >= 5


def test_layers_say_what_follows_them(agnes):
    code, out, _ = agnes("model.fake")
    assert code == 0
    assert "\n1 layer\n  0  conv  4x8x8  batch_norm, relu\n" in out


def test_a_norm_behind_the_activation_stands_behind_it():
    layer = {"name": "c", "kind": "conv", "shape": [4], "norm": "n", "norm_first": False, "activation": "relu"}
    assert "c  conv  4  relu, batch_norm" in inspection.text(told(layers=[layer]))


def test_methods_say_whether_they_apply_and_why_not(agnes):
    _, out, _ = agnes("model.fake")
    lines = [line.split(maxsplit=3) for line in out.partition("\nmethods\n")[2].splitlines()]
    assert ["suspects", "stimulation", "applies", "always"] in lines
    assert all(line[2] in ("applies", "no") for line in lines)


def test_json_holds_the_same_as_values(agnes):
    code, out, err = agnes("model.fake", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["softmax_peeled"] is None
    assert found["layers"] == [
        {"name": "0", "kind": "conv", "shape": [4, 8, 8], "norm": "1", "norm_first": True, "activation": "relu"}
    ]


def test_a_loaders_setting_can_be_lifted_here_too(agnes):
    assert agnes("model.fake", "--set", "fake.strict=true")[0] == 3
    assert agnes("model.fake", "--set", "fake.strict=false")[0] == 0
    code, _, err = agnes("model.fake", "--set", "fakes.strict=true")
    assert code == 4
    assert "there is no plugin 'fakes' to set anything of; did you mean 'fake'?" in err
    code, _, err = agnes("model.fake", "--set", "suspects.targe=1")
    assert code == 4
    assert "did you mean 'target'?" in err


GIVEN = []


@dataclass(frozen=True)
class Watching(Method):
    """Opens everything, and remembers what it was told."""

    @hookimpl
    def load(self, path, options):
        GIVEN.append(options.images)
        return fakes.tiny_network()


def test_the_users_images_are_handed_to_the_loader(agnes):
    GIVEN.clear()
    with fakes.installed(fakes.plugin("watching", "loader", Watching)):
        agnes("model.fake")
        agnes("model.fake", "--data", "images.npz")
        cli.invoke(["run", "model.fake", "--data", "images.npz", "--quiet"])
    assert [None, Path("images.npz"), Path("images.npz")] == GIVEN
