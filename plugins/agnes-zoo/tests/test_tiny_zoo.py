"""The smallest zoo, built and scored from end to end."""

import json

import pytest
from agnes_zoo.manifest import Manifest

from agnes.cli import invoke

QUICK = ["--plugin", "tao-inversion", "--only", "--set", "tao-inversion.steps=30", "--set", "tao-inversion.warm_up=10"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    assert invoke(["zoo", "build", "tiny", "-o", str(folder), "--jobs", "1", "--quiet"]) == 0
    return folder


def test_the_tiny_zoo_reaches_its_accuracy_and_attack_success_on_images_nobody_has_seen(tiny):
    manifest = Manifest.read(tiny)
    assert sorted(str(model["attack"]) for model in manifest.models.values()) == ["None", "None", "blended", "patch"]
    for model in manifest.models.values():
        assert model["accuracy"] >= 0.8
        assert model["asr"] is None or model["asr"] >= 0.9
    assert not manifest.failed


def test_the_tiny_zoo_is_scanned_and_scored(tiny, tmp_path, capsys):
    assert invoke(["bench", "detect", str(tiny), "-o", str(tmp_path), "--quiet", "--json", *QUICK]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["models"], said["failed"], said["without_probability"]) == (4, 0, 0)
    assert 0 <= said["measures"]["auc"]["value"] <= 1
    assert said["seconds"]["median"] > 0
    assert said["memory_mib"]["median"] > 100


@pytest.mark.slow
def test_the_tiny_zoo_is_repaired_and_scored(tiny, tmp_path, capsys):
    assert invoke(["bench", "repair", str(tiny), "-o", str(tmp_path), "--quiet", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["unmeasured"] == 0
    assert said["all_trojaned"]["asr_before"]["value"] > 0.9
