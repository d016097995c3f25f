"""The page on Keras and TensorFlow says what the plugin does."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from keras_families import CELLS
from test_keras_families import UNWRITTEN
from typer.testing import CliRunner

pytest.importorskip("agnes_tensorflow")

from agnes_tensorflow.exporter import KerasExporter
from agnes_tensorflow.loader import KerasLoader, SavedModelLoader

from agnes import cli
from agnes.method import settings_of
from agnes.reports.json import plain

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "loading-tensorflow.md").read_text(encoding="utf-8")
INSPECTING = re.findall(r"^agnes (inspect .*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("method", [KerasLoader, SavedModelLoader, KerasExporter])
def test_every_setting_is_on_the_page_with_its_default(method):
    for setting in settings_of(method):
        assert f"| `{setting.name}` | {plain(setting.default)} |" in PAGE, setting.name


def test_the_page_counts_the_files_that_the_tests_open():
    of_onnx = [cell for cell in CELLS if "onnx" in cell]
    unwritten = [cell for cell in of_onnx if cell.split(".")[0] in UNWRITTEN]
    assert f"| {len(CELLS) - len(of_onnx)} `.keras` and `.h5` files and SavedModels | all open |" in PAGE
    opening = len(of_onnx) - len(unwritten)
    assert f"| {len(of_onnx)} ONNX files of the same models | {opening} open; {len(unwritten)} hold an operator" in PAGE


@pytest.mark.slow
@pytest.mark.parametrize("command", INSPECTING)
def test_the_commands_on_the_page_work(good, command, tmp_path, monkeypatch):
    from PIL import Image

    for suffix in (".keras", ".h5"):
        shutil.copy(good / f"normalised{suffix}", tmp_path / f"model{suffix}")
    shutil.copytree(good / "normalised", tmp_path / "saved_model")
    for label in range(4):
        (tmp_path / "samples" / str(label)).mkdir(parents=True)
        Image.new("RGB", (12, 12), (60 * label, 90, 10)).save(tmp_path / "samples" / str(label) / "0.png")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, shlex.split(command))
    assert result.exit_code == 0, result.output
    told = " ".join(result.output.split())  # however the lines are folded
    assert "parity differs by" in told
    assert "isolation" in told
    assert ("and 4 of yours" in told) == ("--data" in command)
