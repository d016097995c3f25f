"""The page on ONNX says what the plugin does."""

import re
import shlex
from pathlib import Path

import pytest
from agnes_onnx.exporter import OnnxExporter
from agnes_onnx.loader import OnnxLoader
from onnx_classifiers import NETS, exported, made
from typer.testing import CliRunner

from agnes import cli
from agnes.method import settings_of
from agnes.registry import Registry
from agnes.reports.json import plain

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "loading-onnx.md").read_text(encoding="utf-8")
(PICTURE,) = re.findall(r"```\n(model\.onnx: .*?)```", PAGE, re.DOTALL)
OURS = {path.name for path in Path(__file__).resolve().parents[2].iterdir()}  # distributions
INSPECTING = re.findall(r"^agnes (inspect model\.onnx.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("method", [OnnxLoader, OnnxExporter])
def test_every_setting_is_on_the_page_with_its_default(method):
    for setting in settings_of(method):
        assert f"| `{setting.name}` | {plain(setting.default)} |" in PAGE, setting.name


@pytest.mark.parametrize("command", INSPECTING)
def test_the_commands_on_the_page_work(command, tmp_path, monkeypatch):
    exported(made("residual"), NETS["residual"][1], tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, shlex.split(command))
    assert result.exit_code == 0, result.output
    assert "parity" in result.output
    assert "isolation" in result.output


@pytest.fixture
def printed(tmp_path, monkeypatch):
    exported(made("residual"), NETS["residual"][1], tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    return CliRunner().invoke(cli.app, ["inspect", "model.onnx"]).output.splitlines()


def test_the_picture_on_the_page_is_what_is_printed(printed):
    shown = PICTURE.partition("\nmethods\n")[0].splitlines()  # which methods there are depends on what is installed
    assert [line[:20] for line in shown] == [line[:20] for line in printed[: len(shown)]]
    changing = ("  size ", "  sha256 ", "  producer ", "  parity ", "  isolation ")
    assert [line for line in shown if not line.startswith(changing) and line not in printed] == []


def test_the_methods_on_the_page_are_those_that_run_by_themselves_and_those_that_cannot(printed):
    """Of those that are installed."""
    stages = {plugin.name: plugin.stage for plugin in Registry.discover().plugins if plugin.distribution in OURS}

    def of_methods(lines):
        found = [re.split(r"  +", line.strip())[:3] for line in lines if line[2:].split(" ")[0] in stages]
        return {name: applies for name, stage, applies in found if stage == stages[name]}

    by_themselves = [line for line in printed if not line.endswith("applies  when named")]
    assert of_methods(PICTURE.splitlines()) == of_methods(by_themselves)
    assert "kmeans" in of_methods(by_themselves) or "kmeans" not in stages
