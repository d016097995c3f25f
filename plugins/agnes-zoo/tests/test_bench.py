"""agnes bench: scores from a file or from scans, resumed, written, and kept apart from the truth."""

import csv
import json
import shutil
from dataclasses import asdict

import pytest
from agnes_zoo import building, recipes
from agnes_zoo.bench import repaired, scans, scores, sealed
from agnes_zoo.bench.scans import Scan
from agnes_zoo.manifest import Manifest, held_out, model_file
from agnes_zoo.training import as_tensors

from agnes.calibration import Calibration, Weighing
from agnes.cli import invoke
from agnes.errors import UsageError

RECIPE = b"""
seed = 11
[training]
epochs = 1
[data.ten]
source = "signs10"
train = 60
samples = 1
test = 1
held_out = 2
[[models]]
arch = "N_SN"
data = "ten"
count = 2
[[models]]
arch = "N_SN"
data = "ten"
attack = ["patch", "blended"]
"""
NAMES = [f"model-000{number}" for number in (1, 2, 3, 4)]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "small"
    building.build(recipes.parse(RECIPE, "small.toml"), folder)
    return folder


@pytest.fixture
def detector(zoo, monkeypatch):
    """Stands in for the scan's process; counts the models it is shown. Its repair hands back the first model."""
    seen = []

    def scan(model, samples, arguments, output, hidden, threads=None, over=None):
        assert all(any(path.is_relative_to(each) for each in hidden) for path in (model, output))
        seen.append(model.stem)
        shutil.rmtree(output, ignore_errors=True)
        if model.stem == "model-0004":
            return sealed.Sealed(2, "Traceback\nagnes: the scan failed", True)
        output.mkdir(parents=True)
        guilty = model.stem != "model-0001"
        report = {
            "verdict": {"status": "backdoored" if guilty else "clean", "probability": 0.9 if guilty else 0.2},
            "timings": {"total": 2.5},
            "environment": {"peak_memory": 3 << 20},
            "repairs": [{"exported": "../repaired.onnx"}] if guilty else [],
        }
        report["verdict"] |= {"target": 3 if guilty else None, "targets": [3] if guilty else []}
        (output / "report.json").write_text(json.dumps(report))
        if guilty:
            shutil.copy(model_file(zoo, "model-0001"), output / "repaired.onnx")
        return sealed.Sealed(1 if guilty else 0, "", True)

    monkeypatch.setattr(sealed, "scan", scan)
    return seen


def detect(zoo, output, *words):
    return invoke(["bench", "detect", str(zoo), "-o", str(output), "--quiet", *words])


def test_scans_become_results_tables_and_a_plot(zoo, detector, tmp_path, capsys):
    assert detect(zoo, tmp_path / "out") == 0
    folder = tmp_path / "out" / "detect"
    assert sorted(p.name for p in folder.iterdir()) == ["plot.png", "results.csv", "results.json", "table.md"]
    assert capsys.readouterr().out.strip() == (folder / "table.md").read_text().strip()
    said = json.loads((folder / "results.json").read_text())
    assert said["kept_from_the_truth_by_the_kernel"] is True
    assert (said["clean"], said["trojaned"], said["failed"]) == (2, 2, 1)
    assert said["memory_mib"]["most"] == 3.0
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [row["model"] for row in rows] == NAMES
    assert rows[3]["reason"] == "exit code 2: agnes: the scan failed"
    manifest = Manifest.read(zoo)
    for row, name in zip(rows, NAMES, strict=True):
        assert row["trojaned"] == str(manifest.models[name]["trojaned"])


def test_what_was_scanned_is_not_scanned_again_unless_it_failed_or_settings_or_models_change(zoo, detector, tmp_path):
    assert detect(zoo, tmp_path / "out") == 0
    (tmp_path / "out" / scans.SCANS / "model-0003.json").unlink()
    assert detect(zoo, tmp_path / "out") == 0
    assert detector == [*NAMES, "model-0003", "model-0004"]  # which had failed: another try may mend that
    assert detect(zoo, tmp_path / "out", "--seed", "1") == 0
    assert detector[6:] == NAMES


def test_a_saved_scan_is_judged_by_the_calibration_of_today(zoo, monkeypatch, tmp_path):
    evidence = {
        "method": "look",
        "name": "score",
        "score": 2.0,
        "threshold": 9.0,
        "exceeds": False,
        "by_class": [],
        "target": 3,
    }
    report = {
        "model": {"input_shape": [3, 32, 32], "class_names": [f"class {number}" for number in range(10)]},
        "data": {"accuracy": 0.9, "accuracy_images": 100},
        "methods": [{"name": "look", "stage": "diagnosis", "status": "ok", "settings": {}, "reason": ""}],
        "triggers": [],
        "evidence": [evidence],
        "verdict": {"status": "clean", "probability": 0.1, "target": None, "targets": []},
        "timings": {"total": 1.0},
        "environment": {},
    }

    def scan(model, samples, arguments, output, *rest):
        output.mkdir(parents=True)
        (output / "report.json").write_text(json.dumps(report))
        return sealed.Sealed(0, "", True)

    monkeypatch.setattr(sealed, "scan", scan)
    output = tmp_path / "out"
    assert detect(zoo, output) == 0
    assert {row["verdict"] for row in rows(output)} == {"clean"}
    for mean, verdict, probability in ((0.0, "backdoored", 0.9), (5.0, "clean", 0.5)):
        weighing = Weighing({"look: score": (mean, 1.0)}, 0.0, 2.0, 0.8, 0.6)
        calibration = Calibration({frozenset({"look: score"}): weighing}, {"look": {}})
        monkeypatch.setattr("agnes.judging.shipped", lambda found=calibration: found)
        assert detect(zoo, output) == 0
        assert {row["verdict"] for row in rows(output)} == {verdict}
        assert {round(float(row["probability"]), 1) for row in rows(output)} == {probability}
        assert {row["named"] for row in rows(output)} == ({"3"} if verdict == "backdoored" else {""})


def rows(output):
    return list(csv.DictReader((output / "detect" / "results.csv").read_text().splitlines()))


def test_options_of_a_scan_are_handed_on(zoo, monkeypatch, tmp_path):
    handed = []

    def scan(model, samples, arguments, *rest):
        handed.append(list(arguments))
        return sealed.Sealed(2, "no", False)

    monkeypatch.setattr(sealed, "scan", scan)
    words = ["--plugin", "a", "--plugin", "b", "--set", "a.x=1", "--block", "c", "--only", "--device", "cpu"]
    assert detect(zoo, tmp_path / "out", *words, "--time-budget", "5m", "--memory", "1G", "--jobs", "2") == 0
    wanted = ["--plugin", "a", "--plugin", "b", "--set", "a.x=1", "--block", "c", "--device", "cpu", "--memory", "1G"]
    assert handed == [[*wanted, "--time-budget", "5m", "--only", "--seed", "0"]] * 4


def test_an_interrupted_bench_ends_what_runs_and_goes_on_later(zoo, detector, tmp_path, monkeypatch, capsys):
    works = sealed.scan

    def interrupted(model, *rest):
        if model.stem == "model-0003":
            raise KeyboardInterrupt
        return works(model, *rest)

    monkeypatch.setattr(sealed, "scan", interrupted)
    assert detect(zoo, tmp_path / "out") == 130
    assert "the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(sealed, "scan", works)
    assert detect(zoo, tmp_path / "out") == 0
    assert detector[:2] == NAMES[:2]
    assert set(detector[2:]) >= {"model-0003"}
    assert not {"model-0001", "model-0002"} & set(detector[2:])


def test_a_model_that_is_not_the_manifests_is_not_scored(zoo, detector, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(zoo, copy)
    model_file(copy, "model-0002").write_bytes(b"other")
    assert detect(copy, tmp_path / "out") == 4
    assert "is not the model of the manifest" in capsys.readouterr().err


def test_a_repair_is_measured_on_images_held_out_with_the_true_trigger(zoo, detector, tmp_path, capsys):
    assert invoke(["bench", "repair", str(zoo), "-o", str(tmp_path / "out"), "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["repaired"] == 2
    text = (tmp_path / "out" / "repair" / "results.csv").read_text()
    rows = {row["model"]: row for row in csv.DictReader(text.splitlines())}
    manifest = Manifest.read(zoo)
    images, labels = as_tensors(*held_out(zoo, "ten"))
    for name in NAMES[1:3]:
        record = manifest.models[name]
        accuracy, success = repaired.measure(model_file(zoo, "model-0001"), record, images, labels)
        assert float(rows[name]["accuracy_after"]) == pytest.approx(accuracy)
        assert rows[name]["asr_after"] == ("" if success is None else str(success))
    for name in ("model-0001", "model-0004"):
        assert rows[name]["repaired"] == "False"
        assert rows[name]["accuracy_after"] == rows[name]["accuracy_before"]


@pytest.mark.parametrize("attack", ["label-specific", "input-aware"])
def test_true_triggers_that_differ_from_class_to_class_or_image_to_image_are_stamped_from_the_manifest(
    attack, tmp_path
):
    said = RECIPE.decode().replace("count = 2", f'attack = "{attack}"').replace('"patch", "blended"', '"patch"')
    building.build(recipes.parse(said.encode(), "one.toml"), tmp_path / "one")
    manifest = Manifest.read(tmp_path / "one")
    (name,) = (name for name, record in manifest.models.items() if record["attack"] == attack)
    record, held = manifest.models[name], as_tensors(*held_out(tmp_path / "one", "ten"))
    found = repaired.measure(model_file(tmp_path / "one", name), record, *held)
    assert found == (pytest.approx(record["accuracy"]), pytest.approx(record["asr"]))
    assert 0 < record["asr"] < 1 or attack == "input-aware"
    if attack == "label-specific":
        assert len(record["true_attack"]["trigger"]["triggers"]) == 10
        assert record["targets"] == list(range(10))


def test_a_repaired_file_that_cannot_be_opened_is_no_repair(zoo, tmp_path):
    manifest, scan = Manifest.read(zoo), Scan("model-0002", "backdoored", 0.9, repaired="repaired.onnx")
    place = tmp_path / scans.SCANS / "model-0002"
    place.mkdir(parents=True)
    (place / "repaired.onnx").write_bytes(b"no model")
    (row,) = repaired.rows(zoo, manifest, tmp_path, [scan])
    assert not row.repaired
    assert row.reason.startswith("the repaired network cannot be measured")
    assert row.accuracy_after == row.accuracy_before


CSV = "model,probability,target,seconds\n1,0.1,,2\nmodels/model-0002.onnx,0.9,3,\nmodel-0003, 0.4,1,5\n4.onnx,1,,\n"


def from_csv(text, tmp_path):
    (tmp_path / "scores.csv").write_text(text)
    return scores.read(tmp_path / "scores.csv", NAMES)


def test_scores_of_another_detector_are_read_by_name_number_or_file(tmp_path):
    found = from_csv(CSV, tmp_path)
    assert [(s.name, s.probability, s.targets, s.seconds, s.status) for s in found] == [
        ("model-0001", 0.1, (), 2.0, "clean"),
        ("model-0002", 0.9, (3,), None, "backdoored"),
        ("model-0003", 0.4, (1,), 5.0, "clean"),
        ("model-0004", 1.0, (), None, "backdoored"),
    ]


def test_scores_are_taken_from_a_file_and_nothing_is_scanned(zoo, detector, tmp_path, capsys):
    (tmp_path / "scores.csv").write_text(CSV)
    assert detect(zoo, tmp_path / "out", "--scores", str(tmp_path / "scores.csv"), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["kept_from_the_truth_by_the_kernel"] is None
    assert said["measures"]["auc"]["value"] is not None
    assert not detector


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("probability", "p", "has no column 'probability'"),
        ("0.9", "1.5", "line 3: a probability lies between 0 and 1, not 1.5"),
        ("0.9", "", "line 3: a probability lies between 0 and 1, not nothing"),
        ("0.9", "nan", "line 3: probability takes a number, not 'nan'"),
        ("0.9,3", "0.9,stop", "line 3: target takes a number"),
        ("0.9,3", "0.9,3.5", "line 3: a target is the number of a class"),
        ("4.onnx,1", "3,1", "line 5: model-0003 has a score already"),
        ("4.onnx,1", "9,1", "the zoo has no model '9'"),
        ("4.onnx,1,,\n", "", "no score of model-0004 \\(1 missing\\)"),
    ],
)
def test_what_a_file_of_scores_gets_wrong_is_named_by_line(old, new, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        from_csv(CSV.replace(old, new), tmp_path)


def test_a_scan_says_the_same_when_it_is_read_again(tmp_path):
    scan = Scan("model-0001", "backdoored", 0.9, (3, 4), 2.0, 5, "", "repaired.onnx", True)
    (tmp_path / "card.json").write_text(json.dumps({"key": "k", **asdict(scan)}))
    assert scans._read(tmp_path / "card.json", "k") == scan
    assert scans._read(tmp_path / "card.json", "other") is None


def test_a_folder_without_a_zoo_is_refused(tmp_path, capsys):
    assert detect(tmp_path, tmp_path / "out") == 4
    assert "holds no zoo" in capsys.readouterr().err
