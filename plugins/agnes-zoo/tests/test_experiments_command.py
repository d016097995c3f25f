"""Promises of `agnes bench TABLE` on the command line."""

from __future__ import annotations

import json

import pytest
from agnes_zoo.commands import experimenting
from agnes_zoo.experiments.scales import scale_of
from PIL import Image

from agnes.cli import invoke
from agnes.errors import UsageError


def test_no_networks_is_no_number_and_the_report_says_the_number(tmp_path, capsys):
    assert invoke(["bench", "agnes-1", "--networks", "0"]) == UsageError.exit_code
    assert "--networks takes a number from 1 on, not 0" in capsys.readouterr().err
    words = ["--networks", "2", "--jobs", "1", "-o", str(tmp_path), "--quiet"]
    assert invoke(["bench", "retraining-2", *words]) == 0
    assert "agnes bench retraining-2 --scale tiny --networks 2`" in capsys.readouterr().out
    document = json.loads((tmp_path / "retraining-2-tiny-2-each" / "results.json").read_text())
    known = [each for each in document["figures"] if each["value"] is not None]  # clean networks have no success
    assert known
    assert all(len(each["values"]) == 2 and each["interval"] for each in known)


def test_an_unknown_scale_or_table_is_told_with_its_neighbour(capsys):
    with pytest.raises(UsageError, match="did you mean 'small'"):
        scale_of("smal")
    assert invoke(["bench", "table", "agnes-22"]) == UsageError.exit_code
    assert "agnes bench list" in capsys.readouterr().err


def test_the_name_of_a_table_is_a_command(monkeypatch):
    said = []
    monkeypatch.setattr(experimenting, "reproduced", lambda *given: said.append(given) or 0)
    words = ["--scale", "small", "--data", "x.npz", "--networks", "3", "-j", "2", "--quiet"]
    assert invoke(["bench", "agnes-2", *words]) == invoke(["bench", "table", "agnes-2", *words]) == 0
    assert said == [(["agnes-2"], "small", ["x.npz"], 3, None, 2, "cpu", 0, False, True)] * 2
    assert invoke(["bench", "agnes-2000"]) != 0


def test_a_table_is_run_from_the_command_line(tmp_path, capsys):
    """Training, pruning by the true trigger and all files, at the scale `tiny`."""
    assert invoke(["bench", "koldenhof-a.2", "--jobs", "1", "-o", str(tmp_path), "--quiet"]) == 0
    text = capsys.readouterr().out
    assert "| MediumBN | " in text
    folder = tmp_path / "koldenhof-a.2-tiny"
    assert sorted(path.name for path in folder.iterdir()) == ["plot.png", "results.csv", "results.json", "table.md"]
    document = json.loads((folder / "results.json").read_text())
    figures = {each["column"]: each for each in document["figures"]}
    assert not any(each["failed"] for each in document["figures"])
    assert figures["accuracy before"]["paper"] == pytest.approx(0.943)
    assert figures["ASR before"]["value"] > 0.5
    lost = figures["ASR before"]["value"] - figures["ASR after"]["value"]
    assert figures["ASR lost"]["value"] == pytest.approx(lost)


@pytest.mark.parametrize("name", ["agnes-2", "retraining-fig-3"])
def test_a_table_of_searches_is_run_from_the_command_line(name, tmp_path, capsys):
    """Abstraction, stimulation and searches for triggers, at the scale `tiny`: every figure is there that can be."""
    assert invoke(["bench", name, "--jobs", "1", "-o", str(tmp_path), "--quiet", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    figures = {(each["row"], each["column"]): each for each in document["figures"]}
    assert not any(each["failed"] for each in figures.values())
    depend_on_what_was_found = {"of them in the top 15 of 43 classes"}
    for (row, column), each in figures.items():
        assert each["value"] is not None or column in depend_on_what_was_found, (row, column)
    with Image.open(tmp_path / f"{name}-tiny" / "plot.png") as picture:
        assert picture.size[0] > 100
