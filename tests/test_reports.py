"""What a report looks like as JSON, as pictures, and on a terminal."""

import json
import math
from importlib import resources
from io import BytesIO
from pathlib import Path

import fakes
import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from agnes import engine
from agnes.errors import OutputError
from agnes.reports import exporting, folder, pictures, terminal
from agnes.reports.json import as_json, plain
from agnes.results import AdditiveTrigger, Evidence, MaskTrigger, Report, Verdict
from agnes.samples import Samples

SCHEMA = json.loads(resources.files("agnes.reports").joinpath("report.schema.json").read_text())


@pytest.fixture
def full(tmp_path):
    """A report with something in every part."""
    with fakes.installed(*fakes.whole_house()):
        wanted = engine.Request(
            fakes.model_file(tmp_path),
            fakes.images_file(tmp_path),
            methods=("needy", "scores"),
            output=tmp_path / "run",
        )
        return engine.run(wanted)


def test_a_report_keeps_its_published_schema(full):
    document = as_json(full)
    jsonschema.validate(document, SCHEMA)
    for part in ("candidates", "triggers", "evidence", "repairs", "methods"):
        assert document[part], f"{part} is empty, so the schema proved nothing"


def test_every_part_of_the_schema_is_described_by_the_report_and_back(full):
    assert set(as_json(full)) == set(SCHEMA["properties"])


def test_the_schema_refuses_what_is_not_a_report(full):
    document = as_json(full)
    document["verdict"]["status"] = "perhaps"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)


def test_numbers_that_json_does_not_know_become_null():
    value = {
        "a": [math.inf, -math.inf, math.nan, 1.5],
        "b": (np.float32(2), torch.tensor([1, 2])),
        3: frozenset({"z", "y"}),
    }
    assert plain(value) == {"a": [None, None, None, 1.5], "b": [2.0, [1, 2]], "3": ["y", "z"]}


def test_an_incomplete_report_keeps_the_schema_too():
    report = Report(
        {"path": "m", "name": "m", "bytes": None, "sha256": None, "loader": "l", "input_shape": [1, 2, 2], "classes": 2,
         "class_names": ["a", "b"], "parameters": 1, "layers": 1, "kinds": [], "softmax_peeled": None},
        {"source": "s", "images": 1, "shape": [1, 2, 2], "labelled": False, "inverted": False, "classes": None,
         "test_images": 0, "repair_images": 1, "accuracy": None, "accuracy_images": 0, "sha256": "0", "notes": []},
        Verdict("inconclusive", None),
        evidence=(Evidence("e", math.nan, 1.0),),
        complete=False,
    )  # fmt: skip
    jsonschema.validate(as_json(report), SCHEMA)


def additive(**where):
    delta = torch.zeros(3, 8, 8)
    delta[:, 1:3, 1:3] = 0.5
    return AdditiveTrigger(target=1, asr=0.9, held_out=10, delta=delta, method="m", **where)


def masked():
    mask = torch.zeros(1, 8, 8)
    mask[:, :2, :2] = 1
    return MaskTrigger(target=1, asr=0.9, held_out=10, mask=mask, pattern=torch.ones(3, 8, 8), method="m")


@pytest.mark.parametrize("trigger", [additive(), masked()], ids=["additive", "mask"])
def test_the_arrays_of_a_trigger_are_enough_to_apply_it(trigger):
    with np.load(BytesIO(pictures.arrays(trigger)), allow_pickle=False) as stored:
        assert str(stored["kind"]) == type(trigger).__name__
        assert int(stored["target"]) == 1
        arrays = {name: torch.from_numpy(stored[name]) for name in stored.files if name not in ("kind", "target")}
    rebuilt = type(trigger)(target=1, asr=0.9, held_out=10, **arrays)
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(rebuilt.apply(images), trigger.apply(images))


@pytest.mark.parametrize("samples", [None, Samples(torch.rand(5, 3, 8, 8), torch.tensor([0, 1, 1, 0, 0]))])
@pytest.mark.parametrize("trigger", [additive(), masked()], ids=["additive", "mask"])
def test_a_picture_shows_where_and_what(trigger, samples):
    picture = Image.open(BytesIO(pictures.picture(trigger, "stop", samples))).convert("RGB")
    strength = np.asarray(picture)[52:180, 8:136]  # 8x8 pixels, each a square of 16
    where = strength[8::16, 8::16].max(2) > 0
    assert np.array_equal(where, (trigger.change() > 0).numpy())


def test_grey_networks_get_pictures_too():
    trigger = AdditiveTrigger(target=0, asr=1.0, held_out=1, delta=torch.full((1, 8, 8), 0.25))
    assert pictures.picture(trigger, "zero", Samples(torch.rand(2, 1, 8, 8)))


def test_a_full_disk_is_one_line_and_leaves_no_half_written_file(full, tmp_path, monkeypatch):
    def full_disk(fd):
        raise OSError(28, "No space left on device")

    before = (tmp_path / "run" / "report.json").read_bytes()
    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OutputError, match="No space left on device"):
        folder.write(full, tmp_path / "run", None)
    assert (tmp_path / "run" / "report.json").read_bytes() == before
    assert not list((tmp_path / "run").rglob("*.partial"))


def test_an_exporter_that_fails_leaves_its_reason(tmp_path):
    with fakes.installed():
        path, why = exporting.export(fakes.tiny_network(), tmp_path / "repaired", ".fake", fakes.registry(), {})
    assert path is None
    assert why == "no installed exporter writes this format"


def said(report, **console):
    stream = Console(file=None, record=True, width=120, markup=False, highlight=False, **console)
    with stream.capture() as captured:
        terminal.summary(report, Path("run"), stream)
    return captured.get()


def test_the_summary_tells_verdict_trigger_and_repair(full):
    text = said(full)
    for words in (
        "BACKDOORED",
        "run/triggers/00-triggers-class-2.png",
        "target class 2",
        "00 triggers",
        "repair   silence",
        "re-scan",
    ):
        assert words in text


def test_success_on_images_that_a_trigger_was_chosen_on_is_marked(full):
    from dataclasses import replace

    assert "chosen on" not in said(full)
    first, *rest = full.triggers
    chosen = replace(full, triggers=(replace(first, unseen=False), *rest))
    assert f"{first.asr:.0%}*" in said(chosen)
    assert "* on the images it was chosen on" in said(chosen)
    assert pictures._caption(chosen.triggers[0], "two")[1].startswith(f"{first.asr:.0%} of {first.held_out} images it")
    jsonschema.validate(as_json(chosen), SCHEMA)


def test_a_trigger_that_no_image_was_there_for_has_no_success(full):
    from dataclasses import replace

    untested = replace(full, triggers=(replace(full.triggers[0], asr=0.0, held_out=0, unseen=False),))
    assert "0%*" not in said(untested)
    assert "–" in said(untested)
    assert "chosen on" not in said(untested)


def test_markup_and_escapes_in_names_stay_text(full):
    from dataclasses import replace

    names = ["[bold red]boo[/]\x1b[31m"] * 8
    text = said(replace(full, model={**full.model, "name": names[0], "class_names": names}))
    assert "[bold red]boo[/]" in text
    assert "\x1b" not in text


def test_a_failed_method_and_a_broken_plugin_are_told(full):
    from dataclasses import replace

    failed = replace(full.methods[0], status="failed", reason="no memory")
    text = said(replace(full, methods=(failed,), environment={"broken_plugins": ["plugin 'x' of y"]}, complete=False))
    assert "no memory" in text
    assert "plugin 'x' of y" in text
    assert "interrupted" in text
