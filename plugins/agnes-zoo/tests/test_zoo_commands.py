"""agnes zoo: train, build, list, show, samples."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from agnes_zoo import stopping
from agnes_zoo.commands import progress
from agnes_zoo.commands.arguments import assignments, fitted
from agnes_zoo.manifest import sha256_of
from PIL import Image
from rich.console import Console

from agnes.cli import invoke
from agnes.errors import UsageError
from agnes.samples import read_samples

TRAIN = ["zoo", "train", "--arch", "N_SN_BN", "--data", "signs10", "--images", "96", "--epochs", "2", "--batch", "32"]


def trained(output, *words):
    return invoke([*TRAIN, "-o", str(output), *words])


def test_a_network_and_its_truth_are_written_apart(tmp_path, capsys):
    assert trained(tmp_path / "m.onnx", "--attack", "patch", "--set", "target=3", "--set", "size=5") == 0
    said = json.loads((tmp_path / "m.truth.json").read_text())
    assert said["sha256"] == sha256_of(tmp_path / "m.onnx")
    assert (said["targets"], said["options"], said["arch"]) == ([3], {"target": 3, "size": 5}, "N_SN_BN")
    assert said["training"]["epochs"] == 2
    assert 0 <= said["accuracy"] <= 1
    assert 0 <= said["asr"] <= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.truth.json"]
    shown = capsys.readouterr()
    assert "epoch  1 of 2: loss" in shown.err
    assert "attack success" in shown.out


def test_the_same_seed_writes_the_same_file_and_another_one_another(tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert trained(tmp_path / f"{name}.onnx", "--seed", seed, "--quiet") == 0
    one, same, other = ((tmp_path / f"{name}.onnx").read_bytes() for name in "abc")
    assert one == same != other


def test_an_interrupted_training_is_gone_on_with_by_the_same_command(tmp_path, capsys, monkeypatch):
    assert trained(tmp_path / "whole.onnx", "--quiet") == 0
    asked, original = iter([False] * 4 + [True]), stopping.asked_to_stop
    from contextlib import contextmanager

    from agnes_zoo.commands import training as command

    @contextmanager
    def soon():
        yield lambda: next(asked)

    monkeypatch.setattr(command, "asked_to_stop", soon)
    assert trained(tmp_path / "m.onnx", "--quiet") == 130
    assert "interrupted in epoch 2; the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()
    monkeypatch.setattr(command, "asked_to_stop", original)
    assert trained(tmp_path / "m.onnx", "--epochs", "3", "--quiet") == 4  # another training
    assert "another training" in capsys.readouterr().err
    assert trained(tmp_path / "m.onnx", "--quiet") == 0
    assert (tmp_path / "m.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()
    assert not list(tmp_path.glob(".m.onnx*"))


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_that_the_next_run_uses(tmp_path):
    words = ["--data", "signs", "--images", "4300", "--epochs", "3"]
    command = [sys.executable, "-m", "agnes", *TRAIN, *words, "--threads", "1", "-o"]
    with subprocess.Popen([*command, "m.onnx"], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline().startswith("epoch")
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait() == 130
    assert list((tmp_path / ".m.onnx.work").glob("*.checkpoint"))
    for name in ("m.onnx", "whole.onnx"):
        subprocess.run([*command, name], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "m.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--attack", "pach"], "there is no attack 'pach'; did you mean 'patch'"),
        (["--attack", "patch", "--set", "sise=3"], "attack 'patch' has no option 'sise'; did you mean 'size'"),
        (
            ["--attack", "patch", "--set", "target=10"],
            "the data has 10, from 0 on: set target to one",
        ),
        (["--set", "size=3"], "a clean network has no options"),
        (["--data", "sings"], "there is no data set 'sings'"),
        (["--arch", "N_XX"], "there is no plugin 'N_XX'"),
        (["--arch", "MNIST_2CONV"], "MNIST_2CONV takes no images of 3x32x32"),
        (["--epochs", "0"], "at least one epoch"),
        (["--threads", "0"], "--threads takes a number from 1 on"),
    ],
)
def test_what_a_command_gets_wrong_is_one_line_and_leaves_nothing(words, said, tmp_path, capsys):
    assert trained(tmp_path / "m.onnx", *words) == 4
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("m.*"))


def test_an_unknown_format_is_refused_before_anything_is_trained(tmp_path, capsys):
    assert trained(tmp_path / "m.h5") == 4
    assert "networks are written as .onnx" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["zoo", "--help"], ["bench", "--help"], ["zoo", "train", "--help"], ["bench", "detect", "-h"]]
)
def test_help_needs_no_torch(words):
    code = f"import sys\nfrom agnes.cli import invoke\nassert invoke({words!r}) == 0\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_list_has_architectures_with_counts_attacks_data_and_recipes(capsys):
    assert invoke(["zoo", "list", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    counts = {each["name"]: each["parameters"] for each in said["architectures"]}
    assert (counts["N_MN"], counts["resnet18"]) == (130_091, 11_198_571)
    assert {"name", "says", "paper"} == set(said["attacks"][0])
    assert "signs10" in {each["name"] for each in said["data"]}
    tiny = next(each for each in said["recipes"] if each["name"] == "tiny")
    assert (tiny["clean"], tiny["trojaned"]) == (2, 2)
    assert invoke(["zoo", "list"]) == 0
    text = capsys.readouterr().out
    for kind in ("architectures", "attacks", "data", "recipes"):
        assert all(each["name"] in text for each in said[kind])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *[("patch", ["--set", "size=4"]), ("signs10", []), ("N_SN_BN", []), ("hijack", ["--set", "steps=2"])],
        *[("label-specific", []), ("all-to-all", []), ("input-aware", ["--set", "steps=2"])],
    ],
)
def test_a_sheet_is_drawn_of_anything(name, words, tmp_path, capsys, monkeypatch):
    from agnes_zoo.commands import showing

    monkeypatch.setattr(showing, "_LEARNT", (60, 1))
    assert invoke(["zoo", "show", name, "--data", "signs10", *words, "-o", str(tmp_path / "sheet.png")]) == 0
    assert capsys.readouterr().out.startswith(name)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 100
        assert len(np.unique(np.asarray(sheet.convert("L")))) > 10


def test_what_cannot_be_shown_is_refused(tmp_path, capsys):
    assert invoke(["zoo", "show", "pach"]) == 4
    assert "did you mean 'patch'" in capsys.readouterr().err
    assert invoke(["zoo", "show", "signs10", "--set", "size=3"]) == 4
    assert "only attacks take options" in capsys.readouterr().err
    assert invoke(["zoo", "show", "N_SN", "-o", str(tmp_path / "sheet.gif")]) == 4
    assert "written as .png" in capsys.readouterr().err


def test_samples_are_benign_images_the_engine_reads(tmp_path, capsys):
    assert invoke(["zoo", "samples", "--data", "signs10", "--each", "2", "-o", str(tmp_path / "a")]) == 0
    assert len(read_samples(tmp_path / "a")) == 20
    assert "20 images" in capsys.readouterr().out
    assert invoke(["zoo", "samples", "--data", "signs10", "--test", "1", "-o", str(tmp_path / "b")]) == 0
    assert len(read_samples(tmp_path / "b").test) == 10
    assert invoke(["zoo", "samples", "-o", str(tmp_path / "b")]) == 4
    assert "is not empty" in capsys.readouterr().err


def test_options_of_an_attack_are_read_as_what_they_look_like():
    found = assignments(["size=4", "opacity=0.4", "place=27,2", "labels=next", "source=none", "colour=1", "a=x,y"])
    assert found == {
        "size": 4,
        "opacity": 0.4,
        "place": (27, 2),
        "labels": "next",
        "source": None,
        "colour": 1,
        "a": ("x", "y"),
    }
    assert fitted(found, {"colour": (1.0, 1.0, 0.0)})["colour"] == (1,)
    with pytest.raises(UsageError, match="'size' is not an option"):
        assignments(["size"])


def test_the_first_ctrl_c_is_a_question_and_the_second_an_order():
    before = signal.getsignal(signal.SIGINT)
    with stopping.asked_to_stop() as asked:
        assert not asked()
        os.kill(os.getpid(), signal.SIGINT)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_building_an_unknown_recipe_or_with_no_process_is_refused(tmp_path, capsys):
    assert invoke(["zoo", "build", "tyni", "-o", str(tmp_path / "z")]) == 4
    assert "did you mean 'tiny'" in capsys.readouterr().err
    assert invoke(["zoo", "build", "tiny", "-o", str(tmp_path / "z"), "--jobs", "0"]) == 4
    assert not (tmp_path / "z").exists()


@pytest.mark.parametrize(("terminal", "quiet"), [(True, False), (False, False), (True, True)])
def test_a_bar_is_for_terminals_and_lines_are_for_all_who_want_to_know(terminal, quiet, monkeypatch):
    to = io.StringIO()
    made = Console(file=to, force_terminal=terminal, width=100, highlight=False)
    monkeypatch.setattr(progress, "console", lambda stderr: made)
    with progress.shown("N_SN", quiet) as seen:
        seen.step(3, 7)
        seen.say("epoch  1 of 2")
    assert ("3/7" in to.getvalue()) == (terminal and not quiet)
    assert ("epoch  1 of 2" in to.getvalue()) == (not quiet)
