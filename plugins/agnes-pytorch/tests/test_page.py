"""The page on loading says what the code does."""

import re
import shlex
from pathlib import Path

import hostile
import pytest
import torch
from agnes_pytorch import architectures, resnet
from agnes_pytorch.exporter import SafetensorsExporter, StateDictExporter
from agnes_pytorch.loader import SafetensorsLoader
from agnes_pytorch.pickle_loader import PickleLoader

from agnes import cli
from agnes.method import settings_of

PAGE = Path(__file__).parents[3] / "docs" / "loading-pytorch.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the docs are not here")


OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(144, classes)

    def forward(self, x):
        return self.head(self.features(x).flatten(1))
"""


def text():
    return PAGE.read_text(encoding="utf-8")


@pytest.mark.usefixtures("unconfined")
def test_the_commands_do_what_the_page_says(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    hostile.saved(resnet.resnet18(5).state_dict(), tmp_path / "resnet18.pt")
    hostile.script(tmp_path / "program.pt")
    hostile.saved(made("small").state_dict(), tmp_path / "own.pt")
    (tmp_path / "net.py").write_text(OWN)
    blocks = re.findall(r"```sh\n(.*?)```", text(), re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) >= 8
    for line in commands:
        command, _, comment = line.partition("#")
        expected = int(re.findall(r"leaves with (\d)", comment)[0]) if comment else 0
        assert cli.invoke(shlex.split(command)[1:]) == expected, (line, capsys.readouterr().err)


def test_the_architectures_have_the_parameters_of_the_page():
    rows = re.findall(r"\| `(\w+)` \| ([\d,]+) \| ([\d,]+) \|", text())
    assert len(rows) == 7
    for name, many, few in rows:
        for classes, told in ((1000, many), (43, few)):
            blank = architectures.named(name).blank(classes)
            assert f"{sum(p.numel() for p in blank.parameters()):,}" == told, name


def test_every_setting_is_on_the_page_with_its_default():
    for setting in settings_of(PickleLoader):
        assert f"| `{setting.name}` | {setting.default} |" in text()
    for method in (SafetensorsLoader, SafetensorsExporter, StateDictExporter):
        for setting in settings_of(method):
            assert re.search(rf"`{setting.name}`[ ,(]+{setting.default}\b", text()), setting.name


def test_the_format_is_said_by_inspect(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hostile.saved({"state_dict": resnet.resnet18(5).state_dict()}, tmp_path / "m.pt")
    assert cli.invoke(["inspect", "m.pt", "--input-shape", "3,32,32"]) == 0
    said = capsys.readouterr().out
    for words in ("pytorch, opened by pytorch", "resnet18", "state_dict", "isolation", "parity"):
        assert words in said
