"""The demo's files, and how they are made."""

import hashlib
import json

import numpy as np
import onnxruntime
import pytest
import torch
from agnes_zoo import demo
from agnes_zoo.attacks import Patch, success_rate
from agnes_zoo.build_demo import Recipe, build
from agnes_zoo.demo import demo_files, true_attack, truth
from agnes_zoo.signs import CLASS_NAMES, signs
from agnes_zoo.training import as_tensors

from agnes.errors import AgnesError
from agnes.samples import read_samples

TINY = Recipe(seed=3, train_per_class=2, test_per_class=1, epochs=1)


def predicted(images):
    session = onnxruntime.InferenceSession(demo_files().model.read_bytes(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": images.numpy()})
    return torch.from_numpy(logits).argmax(1)


@pytest.fixture(scope="module")
def fresh():
    return as_tensors(*signs(14, seed=987_654))


def test_the_demo_keeps_its_promises_on_signs_nobody_has_seen(fresh):
    images, labels = fresh
    patch, target = true_attack()
    accuracy = float((predicted(images) == labels).float().mean())
    success = success_rate(predicted(patch.stamp(images)), labels, target)
    assert accuracy == pytest.approx(truth()["accuracy"], abs=0.04)
    assert success == pytest.approx(truth()["attack_success"], abs=0.02)
    assert truth()["accuracy"] >= 0.9
    assert truth()["attack_success"] >= 0.95


def test_only_the_true_patch_opens_the_backdoor(fresh):
    images, labels = fresh
    patch, target = true_attack()
    assert success_rate(predicted(images), labels, target) < 0.05
    blue = Patch(patch.size, patch.place, (0.0, 0.0, 1.0))
    assert success_rate(predicted(blue.stamp(images)), labels, target) < 0.5


def test_the_truth_says_what_was_put_in():
    said = truth()
    assert (said["attack"]["target"], said["target_name"], said["architecture"]) == (14, "stop", "N_MN_BN")
    assert said["sha256"] == hashlib.sha256(demo_files().model.read_bytes()).hexdigest()
    assert said["command"] == f"python -m agnes_zoo.build_demo --seed {said['seed']}"


def test_the_samples_are_one_image_a_class_and_the_engine_reads_their_names():
    samples = read_samples(demo_files().samples)
    assert samples.shape == (3, 32, 32)
    assert samples.labels is not None
    assert samples.labels.tolist() == list(range(43))
    assert samples.class_names == CLASS_NAMES


def test_the_demo_takes_less_than_two_megabytes():
    files = [path for path in demo.demo_folder().rglob("*") if path.is_file()]
    assert len(files) == 45
    assert sum(path.stat().st_size for path in files) < 2_000_000


def test_a_missing_file_is_named_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "demo_folder", lambda: tmp_path)
    with pytest.raises(AgnesError, match=r"model\.onnx is missing; install agnes-zoo again"):
        demo_files()


def test_the_same_seed_builds_the_same_files(tmp_path):
    said = [build(tmp_path / name, TINY) for name in ("one", "two")]
    assert said[0] == said[1]
    one, two = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*.*")} for f in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two
    assert json.loads((tmp_path / "one" / demo.TRUTH).read_text(encoding="utf-8")) == said[0]
    other = build(tmp_path / "three", Recipe(seed=4, train_per_class=2, test_per_class=1, epochs=1))
    assert other["sha256"] != said[0]["sha256"]


def test_training_test_and_sample_signs_come_from_different_seeds():
    recipe = Recipe()
    assert len({recipe.seed_of(purpose) for purpose in range(4)}) == 4
    assert np.unique([Recipe(seed=s).seed_of(p) for s in range(5) for p in range(4)]).size == 20
