"""Building a zoo: what is written, what is resumed, what is listed as failed."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from agnes_zoo import building, recipes, workers
from agnes_zoo.attacks import from_description, success
from agnes_zoo.making import Plan
from agnes_zoo.manifest import Manifest, held_out, model_file, samples_folder, sha256_of
from agnes_zoo.training import Stopped, as_tensors

from agnes.api import open_network
from agnes.errors import UsageError
from agnes.samples import read_samples

RECIPE = """
name = "mini"
seed = 9
[training]
epochs = 1
batch = 32
[data.ten]
source = "signs10"
train = 120
samples = 1
test = 2
held_out = 3
[[models]]
arch = "N_SN_BN"
data = "ten"
[[models]]
arch = "N_SN_BN"
data = "ten"
attack = "patch"
[[models]]
arch = "N_SN_BN"
data = "ten"
attack = "hijack"
options = { steps = 4 }
"""


def mini(old="", new=""):
    return recipes.parse(RECIPE.replace(old, new).encode(), "mini.toml")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo") / "mini"
    told = []
    manifest = building.build(mini(), folder, tell=lambda name, record, done: told.append(name))
    return folder, manifest, told


def files(folder):
    return {str(p.relative_to(folder)): sha256_of(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def without_times(folder):
    """The manifest less what is not the same in every build."""
    said = json.loads((folder / "manifest.json").read_text())
    for model in (*said["models"], *said["failed"]):
        model.pop("seconds", None)
        for attempt in model.get("attempts", ()):
            attempt.pop("seconds")
    return said


def test_the_manifest_holds_the_truth_and_all_that_it_depends_on(zoo):
    folder, manifest, told = zoo
    said = Manifest.read(folder)
    assert said == manifest
    assert said.complete
    assert told == sorted(said.models) == ["model-0001", "model-0002", "model-0003"]
    assert said.recipe["name"] == "mini"
    assert "torch" in said.versions
    for entry in mini().entries:
        model = said.models[entry.name]
        assert model["sha256"] == sha256_of(model_file(folder, entry.name))
        assert model["arch"] == "N_SN_BN"
        assert model["training"]["seed"] == entry.plan.seed
        assert model["trojaned"] == (model["attack"] is not None)
        assert len(model["targets"]) == model["trojaned"]
        assert model["data_digest"] == said.data["ten"]["digest"]
        assert (model["asr"] is None) == (not model["trojaned"])
        assert model["plan"] == entry.plan.digest


def test_the_measured_truth_can_be_measured_again_from_the_files_alone(zoo):
    folder, manifest, _ = zoo
    images, labels = as_tensors(*held_out(folder, "ten"))
    assert len(images) == 30
    for name, model in manifest.models.items():
        network = open_network(model_file(folder, name))
        with torch.no_grad():
            assert float((network(images).argmax(1) == labels).float().mean()) == pytest.approx(model["accuracy"])
            if model["trojaned"]:
                attack = from_description(model["true_attack"])
                found = success(network(attack.stamp(images)).argmax(1), labels, attack)
                assert found == pytest.approx(model["asr"])


def test_nothing_but_the_manifest_and_the_folder_truth_tells_a_trojaned_model(zoo):
    folder, _, _ = zoo
    names = sorted(files(folder))
    samples = [name for name in names if name.startswith("samples/ten/")]
    others = [name for name in names if name not in samples]
    assert others == ["manifest.json", *(f"models/model-000{n}.onnx" for n in (1, 2, 3)), "truth/ten.npz"]
    assert len(samples) == 30
    for name in others[1:4]:
        content = (folder / name).read_bytes().lower()
        assert not any(word in content for word in (b"patch", b"hijack", b"clean", b"troj", b"attack", b"agnes"))


def test_the_networks_of_one_architecture_differ_in_their_weights_alone(zoo):
    seen = []
    for name in zoo[1].models:
        model = onnx.load(model_file(zoo[0], name))
        for weight in model.graph.initializer:
            if weight.data_type == onnx.TensorProto.FLOAT:
                weight.ClearField("raw_data")
        seen.append(model.SerializeToString())
    assert len(seen) == 3
    assert len(set(seen)) == 1
    assert len({model_file(zoo[0], name).stat().st_size for name in zoo[1].models}) == 1


def test_samples_have_one_image_a_class_and_a_labelled_test_part(zoo):
    found = read_samples(samples_folder(zoo[0], "ten"))
    assert np.bincount(found.labels.numpy()).tolist() == [1] * 10
    assert np.bincount(found.test.labels.numpy()).tolist() == [2] * 10
    kept = {image.tobytes() for image in held_out(zoo[0], "ten")[0]}
    for part in (found, found.test):
        shown = (part.images.permute(0, 2, 3, 1) * 255).round().byte().numpy()
        assert kept.isdisjoint(image.tobytes() for image in shown)


def test_the_same_recipe_builds_the_same_files_whatever_the_number_of_processes(zoo, tmp_path):
    building.build(mini(), tmp_path / "mini", jobs=2)
    first, second = files(zoo[0]), files(tmp_path / "mini")
    assert first.pop("manifest.json")
    assert second.pop("manifest.json")
    assert first == second
    assert without_times(zoo[0]) == without_times(tmp_path / "mini")


def stopped_after(folder, steps, monkeypatch):
    """A build that is stopped after so many steps."""
    original, done = building.Watch, []

    def watch(**_):
        return original(step=lambda *_: done.append(1), stop=lambda: len(done) >= steps)

    with monkeypatch.context() as patch:
        patch.setattr(building, "Watch", watch)
        with pytest.raises(KeyboardInterrupt):
            building.build(mini(), folder)


@pytest.mark.parametrize(("steps", "left"), [(6, 3), (10, 2)])  # the first model takes 8: it needs a clean one first
def test_a_build_that_was_stopped_goes_on_to_the_same_zoo(zoo, steps, left, tmp_path, monkeypatch):
    folder = tmp_path / "mini"
    stopped_after(folder, steps, monkeypatch)
    assert not Manifest.read(folder).complete
    assert list((folder / building.WORK).rglob("*.checkpoint"))
    made = []
    building.build(mini(), folder, tell=lambda name, record, done: made.append(name))
    assert len(made) == left
    assert without_times(folder) == without_times(zoo[0])
    assert {k: v for k, v in files(folder).items() if k != "manifest.json"} == {
        k: v for k, v in files(zoo[0]).items() if k != "manifest.json"
    }


def test_a_finished_build_trains_nothing_and_a_damaged_model_is_made_again(zoo, tmp_path, monkeypatch):
    folder, before = zoo[0], files(zoo[0])
    monkeypatch.setattr(building, "make", lambda *a, **k: pytest.fail("nothing was missing"))
    building.build(mini(), folder)
    monkeypatch.undo()
    model_file(folder, "model-0002").write_bytes(b"broken")
    made = []
    building.build(mini(), folder, tell=lambda name, record, done: made.append(name))
    assert made == ["model-0002"]
    assert {k: v for k, v in files(folder).items() if k != "manifest.json"} == {
        k: v for k, v in before.items() if k != "manifest.json"
    }


def test_another_recipe_or_a_folder_of_other_things_is_refused(zoo, tmp_path):
    with pytest.raises(UsageError, match="zoo of another recipe \\('mini'\\)"):
        building.build(mini("epochs = 1", "epochs = 2"), zoo[0])
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(UsageError, match="something else than a zoo"):
        building.build(mini(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def fake(truths, seen):
    """Stands in for training: each call has the next accuracy."""

    def make(plan: Plan, *, work: Path, watch):
        seen.append(plan.seed)
        truth = {"accuracy": truths[len(seen) - 1], "asr": None, "seconds": 0.0}
        if truth["accuracy"] is None:
            raise Stopped(1)
        return building.Made(torch.nn.Conv2d(3, 2, 1), {**plan.as_json(), **truth, "trojaned": False, "targets": []})

    return make


ONE = (RECIPE.partition("[[models]]")[0] + '[bars]\naccuracy = 0.8\n[[models]]\narch = "N_SN"\ndata = "ten"\n').replace(
    "seed = 9", "seed = 9\nretries = 2"
)


def test_a_model_below_its_bar_is_trained_with_another_seed(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(building, "make", fake([0.5, 0.79, 0.8], seen))
    manifest = building.build(recipes.parse(ONE.encode(), "one"), tmp_path / "one")
    assert manifest.models["model-0001"]["attempt"] == 2
    tried = manifest.models["model-0001"]["attempts"]  # what was passed over is no secret
    assert [(each["accuracy"], bool(each["missed"])) for each in tried] == [(0.5, True), (0.79, True), (0.8, False)]
    assert manifest.models["model-0001"]["training"]["seed"] == seen[0] + 2
    assert seen == [seen[0], seen[0] + 1, seen[0] + 2]
    assert not manifest.failed


def test_a_model_that_misses_its_bar_every_time_is_listed_as_failed_and_has_no_file(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(building, "make", fake([0.5, 0.6, 0.7], seen))
    manifest = building.build(recipes.parse(ONE.encode(), "one"), tmp_path / "one")
    assert not manifest.models
    said = manifest.failed["model-0001"]
    assert said["reason"] == "accuracy 70.0%, below 80.0% after 3 attempts"
    assert [attempt["accuracy"] for attempt in said["attempts"]] == [0.5, 0.6, 0.7]
    assert not model_file(tmp_path / "one", "model-0001").exists()
    building.build(recipes.parse(ONE.encode(), "one"), tmp_path / "one")
    assert len(seen) == 3  # a failed one is not tried again


def test_attempts_that_failed_before_an_interruption_are_not_repeated(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(building, "make", fake([0.5, None, 0.9], seen))
    with pytest.raises(KeyboardInterrupt):
        building.build(recipes.parse(ONE.encode(), "one"), tmp_path / "one")
    manifest = building.build(recipes.parse(ONE.encode(), "one"), tmp_path / "one")
    assert [number - seen[0] for number in seen] == [0, 1, 1]
    assert manifest.models["model-0001"]["attempt"] == 1


def test_an_attack_below_its_bar_counts_as_missed():
    entry = mini().entries[0]
    entry = replace(entry, bars=recipes.Bars(accuracy=0.5, asr=0.9))
    assert building._short_of_bars({"accuracy": 0.6, "asr": 0.8}, entry) == "attack success 80.0%, below 90.0%"
    assert building._short_of_bars({"accuracy": 0.6, "asr": None}, entry) == ""


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "holds no zoo"), ("{", "cannot be read"), ('{"schema_version": "2.0"}', "schema version '2.0'")],
)
def test_a_manifest_that_cannot_be_used_is_refused(content, said, tmp_path):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UsageError, match=said):
        Manifest.read(tmp_path)


def test_a_process_that_is_started_to_train_is_deaf_to_ctrl_c_from_the_first():
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    before = signal.getsignal(signal.SIGINT)
    with workers.deaf_to_ctrl_c():
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "True\n"
    assert signal.getsignal(signal.SIGINT) is before


def children(process):
    """The process's workers, by number."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(each) for each in found if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_ctrl_c_while_the_workers_start_is_one_line_and_no_traceback(tmp_path):
    (tmp_path / "mini.toml").write_text(RECIPE)
    command = [sys.executable, "-m", "agnes", "zoo", "build", "mini.toml", "-o", "zoo", "--jobs", "2"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None and len(children(process.pid)) < 2:
        time.sleep(0.05)
    time.sleep(0.2)  # they are importing
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130
    assert said.strip() == "agnes: interrupted; the same command goes on where the build was"


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_build_that_was_killed_goes_on_to_the_same_zoo(zoo, how, jobs, tmp_path):
    (tmp_path / "mini.toml").write_text(RECIPE)
    command = [sys.executable, "-m", "agnes", "zoo", "build", "mini.toml", "-o", "zoo", "--jobs", jobs]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    manifest = tmp_path / "zoo" / "manifest.json"
    while process.poll() is None and not (manifest.exists() and json.loads(manifest.read_text())["models"]):
        time.sleep(0.05)
    os.kill(process.pid, how)
    process.wait()
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    ours, theirs = files(tmp_path / "zoo"), files(zoo[0])
    assert {k: v for k, v in ours.items() if k.startswith("models")} == {
        k: v for k, v in theirs.items() if k.startswith("models")
    }
