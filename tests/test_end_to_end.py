"""Whole runs from the shell, on models that are trained here or come with the zoo; clean ones too."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
from PIL import Image

zoo_demo = pytest.importorskip("agnes_zoo.demo")

AGNES = [sys.executable, "-m", "agnes"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # tests run side by side; threads that wait for a core spin
STAGES = {"loader", "abstraction", "stimulation", "inversion", "diagnosis", "mitigation"}
SHAPES_OF_ARRAYS = [  # of an additive trigger, a mask with its pattern, a filter
    {"delta": (3, 32, 32)},
    {"mask": (1, 32, 32), "pattern": (3, 32, 32)},
    {"mix": (3, 13), "window": (), "changed": (32, 32)},
]


def shell(*arguments, cwd, **options):
    return subprocess.run(
        [*AGNES, *map(str, arguments)],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        **options,
    )


def hearing():
    """Let the process hear Ctrl-C; one started in the background of a shell is deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


demo = pytest.mark.xdist_group("demo")  # one run for all of them, where tests are run side by side


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory):
    """The demo, run once from the shell."""
    folder = tmp_path_factory.mktemp("demo")
    return shell("demo", "-o", "out", cwd=folder), folder / "out"


@demo
def test_the_demo_finds_shows_and_repairs_the_backdoor(demo_run):
    done, folder = demo_run
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((folder / "report.json").read_text())
    _, target = zoo_demo.true_attack()
    assert report["verdict"]["status"] == "backdoored"
    assert report["verdict"]["target"] == target
    assert report["verdict"]["target_name"] == "stop"
    assert report["repair"]["rescan"]["status"] == "clean"
    assert {m["stage"] for m in report["methods"]} == STAGES
    for method in report["methods"]:
        spared = method["reason"].startswith("not needed: tac-prune has repaired")
        assert method["status"] == ("skipped" if spared else "ok"), method
    assert [m["name"] for m in report["methods"] if m["stage"] == "mitigation" and m["status"] == "ok"] == ["tac-prune"]
    for words in ("BACKDOORED", "stop", "repair", "re-scan: clean", "the true trigger succeeds on"):
        assert words in done.stdout


@demo
def test_the_demos_report_keeps_the_published_schema(demo_run):
    _, folder = demo_run
    schema = json.loads(shell("schema", cwd=folder).stdout)
    jsonschema.validate(json.loads((folder / "report.json").read_text()), schema)


@demo
def test_the_demos_triggers_are_pictures_that_open_and_arrays_that_apply(demo_run):
    import numpy as np

    _, folder = demo_run
    report = json.loads((folder / "report.json").read_text())
    convicting = [t for t in report["triggers"] if t["convicts"]]
    assert convicting
    for trigger in convicting:
        with Image.open(folder / trigger["files"]["picture"]) as picture:
            picture.load()
            assert picture.width > 300
        with np.load(folder / trigger["files"]["arrays"], allow_pickle=False) as arrays:
            shapes = {name: arrays[name].shape for name in arrays if name not in ("kind", "target")}
            assert shapes in SHAPES_OF_ARRAYS


@demo
def test_the_true_trigger_no_longer_works_on_the_repaired_file(demo_run):
    import torch

    import agnes

    _, folder = demo_run
    attack, target = zoo_demo.true_attack()
    from agnes_zoo.signs import signs
    from agnes_zoo.training import as_tensors

    images, labels = as_tensors(*signs(4, 777))
    others = labels != target

    def fares(path):
        network = agnes.open_network(path)
        with torch.no_grad():
            right = (network(images).argmax(1) == labels).float().mean()
            hit = (network(attack.stamp(images[others])).argmax(1) == target).float().mean()
        return float(right), float(hit)

    accuracy_before, success_before = fares(zoo_demo.demo_files().model)
    accuracy_after, success_after = fares(folder / "repaired.onnx")
    assert success_before > 0.9
    assert success_after < 0.2
    assert accuracy_after > accuracy_before - 0.1


@demo
def test_the_same_seed_gives_the_same_report(demo_run, tmp_path):
    from agnes.reports.json import without_measurements

    _, folder = demo_run
    files = zoo_demo.demo_files()
    done = shell("run", files.model, "--data", files.samples, "--json", "-q", "-o", tmp_path / "again", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    first = json.loads((folder / "report.json").read_text())
    assert without_measurements(json.loads(done.stdout)) == without_measurements(first)


@pytest.fixture(scope="module")
def clean_model(tmp_path_factory):
    """A network like the demo's, trained on signs without any attack."""
    from agnes_zoo.architectures import n_sn_bn
    from agnes_zoo.signs import signs
    from agnes_zoo.training import as_tensors, export_onnx, initialised, train

    module = initialised(n_sn_bn, 43, seed=5)
    images, labels = as_tensors(*signs(100, 5))
    train(module, images, labels, epochs=10, seed=5)  # of a network trained for less, nothing is said with certainty
    return export_onnx(module, tmp_path_factory.mktemp("clean") / "clean.onnx")


def test_a_clean_network_is_found_clean_by_the_heart_of_it(clean_model, tmp_path):
    samples = zoo_demo.demo_files().samples
    done = shell(
        "run",
        clean_model,
        "--data",
        samples,
        "--plugin",
        "aproxsm",
        "--plugin",
        "tao-inversion",
        "-o",
        "out",
        cwd=tmp_path,
    )
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    assert report["verdict"]["status"] == "clean"
    assert report["repairs"] == []
    assert "CLEAN" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_in_mid_run_write_what_was_found_and_leave_130(tmp_path, number):
    files = zoo_demo.demo_files()
    command = [*AGNES, "run", str(files.model), "--data", str(files.samples), "-o", "out"]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    running = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, text=True, preexec_fn=hearing, **pipes)
    assert running.stderr is not None
    for line in running.stderr:  # stages are told as they end
        if line.startswith("stimulation"):
            break
    time.sleep(0.5)
    running.send_signal(number)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 130, err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["complete"] is False
    assert report["candidates"]
    assert not list(Path(tmp_path / "out").rglob("*.partial"))
