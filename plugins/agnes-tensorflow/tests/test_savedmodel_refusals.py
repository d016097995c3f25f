"""Hostile SavedModels: each is refused with its reason, and nothing runs."""

import os
import shutil

import pytest

pytest.importorskip("agnes_tensorflow")
pytest.importorskip("h5py")

from agnes_tensorflow import protobuf
from keras_refusals import field, refused

# SavedModel

GRAPHS = {
    "prints": "operator (StringFormat|PrintV2)",
    "calls python": "operator (Eager)?PyFunc",
    "looks up": "operator (HashTableV2|InitializeTableFromTextFileV2)",
    "reads records": "operator (TensorSliceDataset|TFRecordDatasetV2?)",
    "branches": "operator (Stateless)?(If|Case)",
    "in a branch": "operator (Stateless)?If|operator WriteFile",
    "lambda.keras": "kind Lambda, which holds Python code",
    "lambda.h5": "kind Lambda, which holds Python code",
    "writes": "operator WriteFile",
    "reads": "operator ReadFile",
    "lists": "operator MatchingFiles",
    "python": "operator EagerPyFunc",
    "nested": "operator WriteFile at .* in function __inference_nested",
    "saves": "reads or writes files at .*beyond saving its own variables",
    "restores": "reads or writes files at .*beyond saving its own variables",
    "loops": "operator (Stateless)?While",
    "asset": "brings the asset 'assets/words.txt'",
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_does_more_than_compute_is_refused(hostile, name):
    refused(hostile / name, GRAPHS[name])
    assert not (hostile / "it-ran").exists()


def folder_with(name, content=b"x"):
    def change(path):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(content)

    return change


def linked(path):
    (path / "variables" / "variables.index").unlink()
    (path / "variables" / "variables.index").symlink_to("/etc/hostname")


def graph_changed(change):
    def apply(path):
        file = path / "saved_model.pb"
        file.write_bytes(change(file.read_bytes()))

    return apply


def as_text(path):
    (path / "saved_model.pb").rename(path / "saved_model.pbtxt")


def main_op(content):
    """The graph run first is one that has an input."""
    node = field(1, b"evil") + field(2, b"NoOp") + field(3, b"^other")
    run_first = field(1, b"saved_model_main_op") + field(2, field(1, field(1, b"evil")))
    return with_meta(content, field(2, field(1, node)) + field(4, run_first))


def with_meta(content, more):
    """More fields for the one MetaGraphDef."""
    meta = bytes(next(protobuf.messages(memoryview(content), 2)))
    return field(2, meta + more)


def calling(name, *others, operator="PartitionedCall"):
    """A function in a library, which calls others."""
    nodes = [field(3, field(1, b"n%d" % i) + field(2, other)) for i, other in enumerate(others)]
    return field(1, field(1, field(1, name)) + b"".join(nodes))


def with_library(*functions):
    return graph_changed(lambda c: with_meta(c, field(2, field(2, b"".join(functions)))))


def doubling(count):
    return [calling(b"f%d" % i, b"f%d" % (i + 1), b"f%d" % (i + 1)) for i in range(count)]


def by_attribute(content):
    """An operator that is harmless in itself is given a function that is not."""
    writes = field(1, field(1, field(1, b"g")) + field(3, field(1, b"n") + field(2, b"WriteFile")))
    given = field(5, field(1, b"f") + field(2, field(10, field(1, b"g"))))
    call = field(1, field(1, b"m") + field(2, b"PartitionedCall") + given)
    return with_meta(content, field(2, call + field(2, writes)))


def many_files(path):
    for number in range(1100):
        (path / "variables" / f"variables.data-{number}").touch()


FOLDERS = {
    "a function that calls itself": (with_library(calling(b"f", b"f")), "f that calls itself"),
    "functions in a circle": (with_library(calling(b"f", b"g"), calling(b"g", b"f")), "[fg] that calls itself"),
    "functions without end": (
        with_library(*doubling(30), calling(b"f30", b"NoOp")),
        "more than 500000 operations where its functions are called",
    ),
    "a function twice": (with_library(calling(b"f"), calling(b"f")), "without a name of its own"),
    "a function without a name": (with_library(calling(b"")), "without a name of its own|is broken"),
    "a function that is handed over": (graph_changed(by_attribute), "operator WriteFile at n in function g"),
    "an unknown operator in a function": (with_library(calling(b"f", b"Evil")), "operator Evil at n0 in function f"),
    "a graph of one endless number": (graph_changed(lambda c: b"\x12" + b"\xff" * 20), "is broken"),
    "thousands of files": (many_files, "more than 1000 files"),
    "a pipe": (lambda path: os.mkfifo(path / "variables" / "variables.data-1"), "no regular file"),
    "a program": (folder_with("run.sh"), "holds 'run.sh'"),
    "more assets": (folder_with("assets.extra/x"), "holds the folder 'assets.extra'"),
    "a folder in the variables": (folder_with("variables/x"), "holds 'variables/x'"),
    "a link": (linked, "is a link"),
    "a graph as text": (as_text, "holds 'saved_model.pbtxt'"),
    "half a graph": (graph_changed(lambda c: c[: len(c) // 2]), "is broken|holds 0 graphs"),
    "no graph": (graph_changed(lambda c: b"\xff" * 64), "is broken"),
    "two graphs": (graph_changed(lambda c: c + c), "holds 2 graphs"),
    "an asset that is named": (graph_changed(lambda c: with_meta(c, field(6, b"x"))), "names an asset"),
    "something to run first": (graph_changed(main_op), r"wants to run evil when it is opened \(main_op\)"),
    "an operator with escape codes": (
        graph_changed(lambda c: with_meta(c, field(2, field(1, field(1, b"n") + field(2, b"\x1b[2JEvil"))))),
        r"operator \[2JEvil",
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_savedmodel_that_holds_more_than_a_graph_is_refused(good, tmp_path, case):
    change, match = FOLDERS[case]
    path = shutil.copytree(good / "softmax", tmp_path / "model")
    change(path)
    refused(path, match)


def test_a_savedmodel_of_tensorflow_1_is_refused_by_name(good, tmp_path):
    path = shutil.copytree(good / "softmax", tmp_path / "model")
    content = memoryview((path / "saved_model.pb").read_bytes())
    meta = next(protobuf.messages(content, 2))
    kept = b"".join(field(n, bytes(v)) for n, v in protobuf.fields(meta) if n != 7 and not isinstance(v, int))
    (path / "saved_model.pb").write_bytes(field(2, kept))
    refused(path, "a SavedModel of TensorFlow 1")
