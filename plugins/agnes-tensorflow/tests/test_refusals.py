"""Hostile Keras files: each is refused with its reason, and nothing runs."""

import io
import json
import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest

pytest.importorskip("agnes_tensorflow")
pytest.importorskip("h5py")

import h5py
from keras_refusals import layer, members, refused, zipped

BIG = 1 << 40


class Hostile:
    """Unpickled, it makes a folder."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


# .keras: the archive


def twice(path):
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as file:
        file.writestr("config.json", "{}")


def with_member(name, data=b"x"):
    return lambda path: zipped(path, {**members(path), name: data})


def without_member(name):
    return lambda path: zipped(path, {key: data for key, data in members(path).items() if key != name})


def compressed(path):
    zipped(path, {**members(path), "metadata.json": b" " * 10_000_000}, zipfile.ZIP_DEFLATED)


def bytes_changed(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


def local_name(content):
    return content.replace(b"config.json", b"confiG.json", 1)


def checksum(content):
    return content.replace(b'"keras_version"', b'"kerAs_version"', 1)


def comment(path):
    with zipfile.ZipFile(path, "a") as file:
        file.comment = b"hidden"


def in_its_header(at, value):
    """A number of two or four bytes changed in the directory's entry of the archive's first member."""

    def change(content):
        place = content.index(b"PK\x01\x02") + at
        return content[:place] + value + content[place + len(value) :]

    return bytes_changed(change)


def early_end(content):
    return content.replace(b"config.json", b"config\0json")


def second_directory(content):
    return content + content[content.rindex(b"PK\x05\x06") :]


ARCHIVES = {
    "an absolute path": (with_member("/tmp/evil"), "holds '/tmp/evil'"),
    "a name that ends early": (
        bytes_changed(lambda c: c.replace(b"config.json", b"config\0json")),
        "holds 'configjson'",
    ),
    "a member that is said to be 4 GB": (in_its_header(24, b"\xf0\xff\xff\xff"), "is compressed"),
    "a member and its size of 4 GB": (in_its_header(20, b"\xf0\xff\xff\xff" * 2), "disagree|larger than"),
    "an encrypted member": (in_its_header(8, b"\x01\x00"), "is encrypted"),
    "two members in one place": (in_its_header(42, b"\x40\x00\x00\x00"), "disagree|no sound"),
    "an unknown way to compress": (in_its_header(10, b"\x63\x00"), "compressed"),
    "two directories": (bytes_changed(second_directory), "disagree|no sound"),
    "two members of one name": (twice, "two members of one name"),
    "a vocabulary": (with_member("assets/words.txt"), "an asset, such as a vocabulary"),
    "a path that climbs": (with_member("../evil"), r"holds '\.\./evil'"),
    "an escape code": (with_member("\x1b[2Jevil"), r"holds '\[2Jevil'"),
    "a pickle inside": (with_member("data.pkl"), "holds 'data.pkl'"),
    "no weights": (without_member("model.weights.h5"), "lacks model.weights.h5"),
    "a compressed bomb": (compressed, "is compressed"),
    "another local name": (bytes_changed(local_name), "no sound .keras archive|disagree"),
    "a wrong checksum": (bytes_changed(checksum), "checksum|no sound .keras archive"),
    "bytes in front": (bytes_changed(lambda c: b"#!/bin/sh\n" + c), "disagree"),
    "bytes behind": (comment, "disagree"),
    "half of it": (bytes_changed(lambda c: c[: len(c) // 2]), "no sound .keras archive"),
    "nothing of it": (bytes_changed(lambda c: b"\0" * 64), "no sound .keras archive"),
    "weights that are no HDF5": (with_member("model.weights.h5", b"x" * 64), "are no HDF5 file"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_an_archive_that_keras_did_not_write_is_refused(good, tmp_path, case):
    change, match = ARCHIVES[case]
    path = shutil.copy(good / "softmax.keras", tmp_path / "model.keras")
    change(path)
    refused(path, match)
    assert [each.name for each in tmp_path.iterdir()] == ["model.keras"]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_pickle_is_not_run(good, tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Hostile(tmp_path / "it-ran")))
    refused(path, "no sound .keras archive|is broken")
    assert not (tmp_path / "it-ran").exists()


# .keras and .h5: the configuration


def as_layer(kind, **more):
    def change(config):
        layer(config, "Conv2D").update({"class_name": kind, **more})

    return change


def as_activation(value):
    def change(config):
        layer(config, "Conv2D")["config"]["activation"] = value

    return change


def function(module, name, **more):
    return {"module": module, "class_name": "function", "config": name, "registered_name": name, **more}


def with_config(**more):
    return lambda config: layer(config, "Conv2D")["config"].update(more)


def deep(config):
    inner = config["config"]["deep"] = {}
    for _ in range(200):
        inner["deep"] = {}
        inner = inner["deep"]


def nested(config):
    """A model that is called twice in a model that is called twice, and so on."""
    for _ in range(15):
        inner = {"module": "keras", "class_name": "Functional", "config": {**config["config"]}, "registered_name": None}
        inner["inbound_nodes"] = [{"args": [], "kwargs": {}}] * 2
        config["config"] = {"name": "outer", "layers": [inner]}


def within(config):
    """A Lambda in a model in the model."""
    code = {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "x"}, "registered_name": None}
    inner = {"module": "keras", "class_name": "Sequential", "config": {"layers": [code]}, "registered_name": None}
    config["config"]["layers"].append(inner)


def part_of(kind, module, **more):
    return {"module": module, "class_name": kind, "config": {}, "registered_name": None, **more}


CONFIGS = {
    "a lambda within": (within, "kind Lambda, which holds Python code"),
    "a lambda by its true module": (as_layer("Lambda", module="keras.src.layers.core.lambda_layer"), "kind Lambda"),
    "whole numbers as words": (as_layer("IntegerLookup"), "reads a vocabulary"),
    "text": (as_layer("TextVectorization"), "reads a vocabulary"),
    "words under another key": (with_config(idf_vocabulary_file="/etc/passwd"), "names a vocabulary"),
    "an initializer of its own": (with_config(kernel_initializer=part_of("Mine", "mine")), "'Mine' of mine"),
    "a regularizer of its own": (with_config(kernel_regularizer=part_of("Mine", None)), "'Mine'"),
    "a constraint under another name": (
        with_config(kernel_constraint=part_of("MaxNorm", "keras.constraints", registered_name="mine>MaxNorm")),
        "custom object 'mine>MaxNorm'",
    ),
    "a layer out of another module": (as_layer("Conv2D", module="os"), "'Conv2D' of os"),
    "a type out of another module": (with_config(dtype=part_of("DTypePolicy", "subprocess")), "of subprocess"),
    "a function that runs text": (as_activation(function("builtins", "eval")), "'eval' of builtins"),
    "a recurrent activation": (with_config(recurrent_activation="eval"), "activation 'eval'"),
    "a layer of torch": (as_layer("TorchModuleWrapper", module="keras.layers"), "'TorchModuleWrapper'"),
    "layers without end": (nested, "builds more than 20000 layers"),
    "a lambda": (as_layer("Lambda"), "kind Lambda, which holds Python code"),
    "a lambda of Keras's own module": (as_layer("Lambda", module="keras.layers"), "kind Lambda"),
    "a marshalled function": (as_activation({"class_name": "__lambda__", "config": {"value": "x"}}), "__lambda__"),
    "another model's files": (as_layer("TFSMLayer"), "opens another model's files"),
    "a vocabulary": (as_layer("StringLookup"), "reads a vocabulary"),
    "a path for words": (with_config(vocabulary="/etc/passwd"), "names a vocabulary"),
    "a class of its own": (as_layer("Mine", module="mine.layers"), "'Mine' of mine.layers"),
    "a registered class": (as_layer("Conv2D", registered_name="mine>Conv2D"), "custom object 'mine>Conv2D'"),
    "a wrapper": (as_layer("TimeDistributed"), "'TimeDistributed'"),
    "os.system": (as_activation(function("os", "system")), "'system' of os"),
    "a loader as activation": (as_activation(function("keras.saving", "load_model")), "'load_model' of keras.saving"),
    "a hidden function": (as_activation(function("builtins", "relu", registered_name="eval")), "custom object 'eval'"),
    "an unknown activation": (as_activation("os.system"), "activation 'os.system'"),
    "a name with escape codes": (as_layer("\x1b[2J\u202eMine\n"), r"'\[2JMine'"),
    "a class that is a list": (as_layer(["Conv2D"]), "no name"),
    "an object tensor": (
        with_config(x={"class_name": "__numpy__", "config": {"value": [], "dtype": "object"}}),
        "tensor of type 'object'",
    ),
    "an absurd size": (with_config(filters=BIG), "holds the number"),
    "an endless size": (with_config(filters=float("inf")), "holds the number"),
    "a compiled model inside": (with_config(compile_config={"optimizer": "x"}), "was compiled"),
    "depth": (deep, "nested deeper"),
    "a class as the model": (lambda config: config.update(class_name="Mine"), "not a Sequential or functional model"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_that_names_more_than_layers_is_refused(good, tmp_path, case):
    change, match = CONFIGS[case]
    content = members(good / "softmax.keras")
    config = json.loads(content["config.json"])
    change(config)
    refused(zipped(tmp_path / "model.keras", {**content, "config.json": json.dumps(config)}), match)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"class_name": "Sequential", "class_name": "Mine"}', "[" * 100_000])
def test_a_configuration_that_is_no_plain_json_is_refused(good, tmp_path, text):
    content = {**members(good / "softmax.keras"), "config.json": text}
    refused(zipped(tmp_path / "model.keras", content), "is no JSON|not a Sequential")


@pytest.mark.parametrize("case", ["a lambda", "os.system", "a registered class"])
def test_an_h5_file_is_held_to_the_same_rules(good, tmp_path, case):
    change, match = CONFIGS[case]
    path = shutil.copy(good / "softmax.h5", tmp_path / "model.h5")
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config)
    refused(path, match)


# HDF5


def dataset_with(make):
    def change(file, folder):
        make(file.get("model_weights", file), folder)

    return change


def external_storage(group, folder):
    group.create_dataset("evil", (16,), "u1", external=[("/etc/hostname", 0, 16)])


def virtual(group, folder):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (4,))
    group.create_virtual_dataset("evil", layout)


def link_to(link):
    return dataset_with(lambda group, folder: group.__setitem__("evil", link))


def kept(name, **how):
    return dataset_with(lambda group, folder: group.create_dataset(name, **how))


def circle(group, folder):
    group["evil"] = group


def deep_groups(group, folder):
    for _ in range(50):
        group = group.create_group("deeper")


def as_configuration(value):
    return lambda file, folder: file.attrs.__setitem__("model_config", value)


HDF5 = {
    "a soft link within": (link_to(h5py.SoftLink("/model_weights")), "has a link at 'evil'"),
    "a pointer": (kept("evil", data=h5py.Empty("f4"), dtype=h5py.ref_dtype), "no array of plain numbers"),
    "a shuffled weight": (kept("evil", data=np.ones((4, 4)), shuffle=True), "compressed or filtered"),
    "a rounded weight": (kept("evil", data=np.ones(64, "i4"), scaleoffset=3), "compressed or filtered"),
    "escape codes": (kept("\x1b[2J\u202eevil", data=np.array([np.inf], "f4")), r"weight '[^']*\[2Jevil'"),
    "groups without end": (dataset_with(deep_groups), "nested deeper"),
    "a configuration of numbers": (as_configuration(np.zeros(4)), "without their model"),
    "no configuration": (as_configuration(h5py.Empty("S1")), "without their model"),
    "a link to a file": (link_to(h5py.ExternalLink("/etc/passwd", "/x")), "has a link at 'evil'"),
    "a soft link": (link_to(h5py.SoftLink("/nowhere")), "has a link at 'evil'"),
    "storage in another file": (dataset_with(external_storage), "in another file"),
    "a virtual data set": (dataset_with(virtual), "from other files"),
    "a compressed bomb": (kept("evil", data=np.zeros(1_000_000, "f4"), compression="gzip"), "compressed or filtered"),
    "a size with no data": (
        kept("evil", shape=(1 << 40,), dtype="f4", chunks=(1024,)),
        "more numbers .* than it stores",
    ),
    "a contiguous size with no data": (kept("evil", shape=(1 << 34,), dtype="f4"), "more numbers .* than it stores"),
    "not a number": (kept("evil", data=np.array([np.nan], "f4")), "not finite"),
    "text": (kept("evil", data=["a", "b"]), "no array of plain numbers"),
    "records": (kept("evil", data=np.zeros(2, "i4,f4")), "no array of plain numbers"),
    "a circle": (dataset_with(circle), "in two ways"),
    "a type": (dataset_with(lambda group, folder: group.__setitem__("evil", np.dtype("f4"))), "no known kind"),
    "an attribute that points": (
        dataset_with(lambda group, folder: group.attrs.create("evil", group.ref, dtype=h5py.ref_dtype)),
        "neither text nor numbers",
    ),
}


@pytest.mark.parametrize("case", HDF5)
def test_hdf5_that_is_not_plain_is_refused(good, tmp_path, case):
    change, match = HDF5[case]
    path = shutil.copy(good / "softmax.h5", tmp_path / "model.h5")
    with h5py.File(path, "r+") as file:
        change(file, tmp_path)
    refused(path, match)


@pytest.mark.parametrize("case", ["a link to a file", "not a number"])
def test_the_weights_in_a_keras_archive_are_held_to_the_same_rules(good, tmp_path, case):
    change, match = HDF5[case]
    content = members(good / "softmax.keras")
    weights = io.BytesIO(content["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        change(file, tmp_path)
    refused(zipped(tmp_path / "model.keras", {**content, "model.weights.h5": weights.getvalue()}), match)


def test_weights_without_a_model_are_refused_with_the_way_out(tmp_path):
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["kernel"] = np.zeros(3, "f4")
    refused(tmp_path / "weights.h5", "holds weights without their model; save the whole model")
