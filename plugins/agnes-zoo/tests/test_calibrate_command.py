"""agnes bench calibrate: from scans of zoos to a file; of the right models, and told where they are from."""

from __future__ import annotations

import json

import pytest
from agnes_zoo.bench import sealed
from agnes_zoo.commands import calibrating
from agnes_zoo.manifest import Manifest, model_file, sha256_of

from agnes import calibration
from agnes.cli import invoke

SOURCE = "look: score"


def zoo(folder, *kinds):
    """A zoo of files that no scan opens: architecture and whether trojaned, of each model."""
    folder.mkdir(parents=True)
    (folder / "models").mkdir()
    manifest = Manifest({"name": folder.name, "seed": 1, "digest": "0"}, complete=True)
    for number, (arch, trojaned) in enumerate(kinds, 1):
        name = f"model-{number:04d}"
        model_file(folder, name).write_text(f"{folder.name} {arch} {number}")
        sha = sha256_of(model_file(folder, name))
        manifest.models[name] = {"arch": arch, "trojaned": trojaned, "data": "ten", "sha256": sha}
    manifest.write(folder)
    return folder


def report(score, **run):
    """What a scan leaves."""
    evidence = {"method": "look", "name": "score", "score": score, "threshold": 9.0, "exceeds": False, "by_class": []}
    method = {"name": "look", "stage": "diagnosis", "status": "ok", "settings": {"steps": 3}, "reason": "", **run}
    return {
        "model": {"input_shape": [3, 32, 32], "class_names": [str(number) for number in range(10)]},
        "data": {"accuracy": 0.9, "accuracy_images": 100},
        "methods": [method],
        "triggers": [],
        "evidence": [{**evidence, "target": 3}],
        "verdict": {"status": "clean", "probability": 0.1, "target": None, "targets": []},
        "timings": {"total": 1.0},
        "environment": {},
    }


@pytest.fixture
def scanned(monkeypatch):
    """Stands in for the scan's process: the score goes by the words in the model's file; the names of those it saw."""
    seen, changes = [], {}

    def scan(model, samples, arguments, output, *rest):
        place, arch, number = model.read_text().split()
        seen.append(f"{place}/{model.stem}")
        if seen[-1] in changes.get("fails", ()):
            return sealed.Sealed(2, "agnes: out of luck", True)
        output.mkdir(parents=True)
        said = report(int(number) - 5.0 * (arch == "odd"), **changes.get(seen[-1], {}))
        (output / "report.json").write_text(json.dumps(said))
        return sealed.Sealed(0, "", True)

    monkeypatch.setattr(sealed, "scan", scan)
    return seen, changes


@pytest.fixture
def zoos(tmp_path):
    plain = [("plain", number > 3) for number in range(1, 7)]
    first = zoo(tmp_path / "first", *plain, ("odd", False), ("odd", True))
    second = zoo(tmp_path / "second", ("other", False), ("other", True))
    return first, second, zoo(tmp_path / "measured", ("odd", False))


def calibrate(*words):
    return invoke(["bench", "calibrate", *map(str, words), "--quiet"])


def test_all_models_of_a_zoo_are_learnt_from(zoos, scanned, tmp_path, capsys):
    assert calibrate(zoos[0], "-o", tmp_path / "out") == 0
    text = (tmp_path / "out" / calibrating.FILE).read_text()
    said = json.loads(text)
    assert [model["name"] for model in said["models"]] == [f"first/model-{number:04d}" for number in range(1, 9)]
    assert [zoo["models"] for zoo in said["zoos"]] == [8]
    assert said["without"] == []
    read = calibration.parse(text)
    assert set(read.weighings) == {frozenset({SOURCE})}
    assert read.settings == {"look": {"steps": 3}}
    assert "look" in capsys.readouterr().out


def test_no_architecture_of_the_zoo_it_shall_be_unlike_is_scanned_or_learnt_from(zoos, scanned, tmp_path):
    seen, _ = scanned
    assert calibrate(zoos[0], zoos[1], "--unlike", zoos[2], "-o", tmp_path / "out") == 0
    said = json.loads((tmp_path / "out" / calibrating.FILE).read_text())
    expected = [f"first/model-{number:04d}" for number in range(1, 7)] + ["second/model-0001", "second/model-0002"]
    assert [model["name"] for model in said["models"]] == sorted(seen) == expected
    assert [(zoo["name"], zoo["models"]) for zoo in said["zoos"]] == [("first", 6), ("second", 2)]
    assert said["without"] == ["odd"]
    assert said["command"] == "agnes bench calibrate first second --unlike measured --seed 0"
    (weighing,) = said["weighings"]
    assert weighing["clean"][SOURCE][0] == pytest.approx(1.75)  # the mean of 1, 2, 3 and 1


def test_each_of_several_zoos_has_a_folder_for_its_scans(zoos, scanned, tmp_path):
    seen, _ = scanned
    for _ in range(2):
        assert calibrate(zoos[0], zoos[1], "-o", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [calibrating.FILE, "first", "second"]
    assert len(seen) == 10  # none of them twice
    assert calibrate(zoos[0], "-o", tmp_path / "out" / "first") == 0
    assert len(seen) == 10


def test_the_file_goes_where_it_is_said(zoos, scanned, tmp_path):
    place = tmp_path / "elsewhere" / "my.json"
    assert calibrate(zoos[0], "-o", tmp_path / "out", "--calibration", place) == 0
    assert calibration.parse(place.read_text()).weighings


def test_without_a_folder_named_results_go_where_those_of_bench_detect_do(zoos, scanned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert calibrate(zoos[0], zoos[1]) == 0
    runs = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert runs == ["bench-first", "bench-second"]
    assert (tmp_path / "runs" / "bench-first" / calibrating.FILE).exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fails": ["first/model-0002"]}, "first/model-0002 could not be scanned"),
        ({"second/model-0001": {"status": "failed", "reason": "no gradient"}}, "model-0001: look failed (no gradient)"),
        (
            {"second/model-0001": {"status": "skipped", "reason": "needs colours"}},
            "second/model-0001: look was skipped (needs colours)",
        ),
        ({"first/model-0003": {"stage": "abstraction", "status": "failed"}}, "first/model-0003: look failed"),
        ({"second/model-0002": {"settings": {"steps": 4}}}, "second/model-0002 was scanned with other methods or"),
    ],
)
def test_every_model_must_have_been_scanned_alike(change, said, zoos, scanned, tmp_path, capsys):
    scanned[1].update(change)
    assert calibrate(zoos[0], zoos[1], "-o", tmp_path / "out") == 4
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / calibrating.FILE).exists()


def test_zoos_of_one_name_are_told_apart_by_the_user(zoos, scanned, tmp_path, capsys):
    assert calibrate(zoos[0], zoo(tmp_path / "more" / "first", ("plain", False)), "-o", tmp_path / "out") == 4
    assert "two zoos are called first" in capsys.readouterr().err


def test_a_zoo_that_nothing_is_left_of_is_refused(zoos, scanned, tmp_path, capsys):
    assert calibrate(zoos[2], "--unlike", zoos[2], "-o", tmp_path / "out") == 4
    assert "no models to learn from" in capsys.readouterr().err
