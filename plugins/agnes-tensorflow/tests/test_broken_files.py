"""Keras files and SavedModels with bytes changed, or larger than memory: opened whole or refused."""

import json
import random
import shutil

import pytest

pytest.importorskip("agnes_tensorflow")
pytest.importorskip("h5py")

from agnes_tensorflow import archive, savedmodel
from agnes_tensorflow.loader import KerasLoader
from keras_refusals import answer, layer, members, opens_or_refuses, refused, zipped

from agnes.errors import AgnesError
from agnes.loading import LoadOptions


def broken(content, rng):
    """The content with a few bytes changed, or its end gone."""
    if rng.random() < 0.2:
        return content[: rng.randrange(1, len(content))]
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 4, 32))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize("seed", range(40))
def test_a_broken_archive_is_refused_or_sound(good, tmp_path, seed):
    path = tmp_path / "model.keras"
    path.write_bytes(broken((good / "softmax.keras").read_bytes(), random.Random(seed)))
    text = answer(archive.check, path)
    if isinstance(text, AgnesError):
        assert str(text).isprintable()
    else:
        assert text == members(good / "softmax.keras")["config.json"].decode()


@pytest.mark.parametrize("seed", range(40))
def test_a_broken_graph_is_refused_or_plain(good, tmp_path, seed):
    path = shutil.copytree(good / "softmax", tmp_path / "model")
    file = path / "saved_model.pb"
    file.write_bytes(broken(file.read_bytes(), random.Random(seed)))
    assert str(answer(savedmodel.check_graph, path)).isprintable()


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(s, marks=pytest.mark.slow) for s in range(4, 240))])
def test_a_broken_h5_file_is_opened_or_refused(good, tmp_path, seed):
    path = tmp_path / "model.h5"
    path.write_bytes(broken((good / "softmax.h5").read_bytes(), random.Random(seed)))
    opens_or_refuses(path, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(240))
def test_a_broken_keras_file_with_a_sound_archive_is_opened_or_refused(good, tmp_path, seed):
    rng = random.Random(seed)
    content = members(good / "softmax.keras")
    name = rng.choice(["config.json", "model.weights.h5"])
    opens_or_refuses(zipped(tmp_path / "model.keras", {**content, name: broken(content[name], rng)}), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(240))
def test_a_broken_savedmodel_is_opened_or_refused(good, tmp_path, seed):
    rng = random.Random(seed)
    path = shutil.copytree(good / "softmax", tmp_path / "model")
    file = rng.choice([each for each in sorted(path.rglob("*")) if each.is_file()])
    file.write_bytes(broken(file.read_bytes(), rng))
    opens_or_refuses(path, tmp_path)


@pytest.mark.slow
def test_names_in_a_file_that_is_opened_steer_no_terminal(good, tmp_path):
    content = members(good / "softmax-sequential.keras")
    config = json.loads(content["config.json"])
    layer(config, "Conv2D")["config"]["name"] = "\x1b[2J\u202ename"
    path = zipped(tmp_path / "model\x1b[2J.keras", {**content, "config.json": json.dumps(config)})
    network = answer(KerasLoader().load, path, LoadOptions())
    if isinstance(network, AgnesError):
        assert str(network).isprintable()
    else:
        told = [*(each.name for each in network.layers), network.facts["path"], *network.facts["weights"]]
        assert all(text.isprintable() for text in (*told, *(where for _, where in network.facts["weights"].values())))


# Bombs


def wide(config):
    layer(config, "Conv2D")["config"]["filters"] = 1 << 30


def padded(config):
    size = {"padding": [[40_000, 40_000], [40_000, 40_000]], "name": "bomb"}
    bomb = {"module": "keras.layers", "class_name": "ZeroPadding2D", "config": size, "registered_name": None}
    config["config"]["layers"].insert(1, bomb)


@pytest.mark.slow
@pytest.mark.parametrize("change", [wide, padded])
def test_a_layer_larger_than_memory_is_refused(good, tmp_path, change):
    content = members(good / "softmax-sequential.keras")
    config = json.loads(content["config.json"])
    change(config)
    path = zipped(tmp_path / "model.keras", {**content, "config.json": json.dumps(config)})
    refused(path, "memory|cannot be opened|crashed")


@pytest.mark.slow
def test_a_graph_larger_than_memory_is_refused(hostile):
    refused(hostile / "fills", "memory|cannot be opened|crashed")


@pytest.mark.slow
def test_a_large_graph_is_read_in_the_child(good, tmp_path):
    path = shutil.copytree(good / "softmax", tmp_path / "model")
    file = path / "saved_model.pb"
    file.write_bytes(file.read_bytes() + b"\x08\x01" * (1 << 22))
    assert savedmodel.is_large(path)
    opens_or_refuses(path, tmp_path)
