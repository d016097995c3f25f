"""Opening a model file."""

import hashlib
import os
from dataclasses import dataclass

import fakes
import pytest

from agnes import loading
from agnes.errors import NothingApplicable, Refused, UsageError
from agnes.hookspecs import hookimpl
from agnes.loading import LoadOptions, open_model
from agnes.method import Method


def opened(path, *plugins, **assigned):
    return open_model(path, LoadOptions(), fakes.registry(*(plugins or fakes.whole_house())), assigned)


def test_the_report_knows_the_file_and_who_opened_it(tmp_path):
    path = fakes.model_file(tmp_path)
    found = opened(path)
    assert found.facts["sha256"] == hashlib.sha256(b"0").hexdigest()
    assert (found.facts["loader"], found.facts["classes"], found.facts["input_shape"]) == ("fake", 8, [3, 8, 8])
    assert (found.run.name, found.run.status) == ("fake", "ok")


def test_a_loaders_settings_reach_it(tmp_path):
    with pytest.raises(Refused, match="hostile"):
        opened(fakes.model_file(tmp_path), fake={"strict": True})


def test_a_file_nobody_opens_names_who_was_asked_and_the_way_out(tmp_path):
    path = tmp_path / "model.caffe"
    path.write_text("x")
    torn = fakes.plugin("torn", "loader", ImportError("gone"))
    with pytest.raises(NothingApplicable) as caught:
        opened(path, *fakes.whole_house(), torn)
    assert "asked: fake" in str(caught.value)
    assert "ImportError: gone" in str(caught.value)
    assert "export the model to ONNX" in str(caught.value)


def test_without_any_loader_it_says_which_to_install(tmp_path):
    with pytest.raises(NothingApplicable, match="install agnes-onnx"):
        open_model(fakes.model_file(tmp_path), LoadOptions(), fakes.registry())


def test_a_loader_that_breaks_on_a_file_refuses_it_in_one_line(tmp_path):
    path = tmp_path / "model.fake"
    path.write_text("broken")
    with pytest.raises(Refused) as caught:
        opened(path)
    assert str(caught.value) == "refused: loader 'fake' cannot open model.fake: ValueError: byte 3 is wrong"


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("missing", UsageError, "there is no model file"),
        ("empty", Refused, "is empty"),
        ("pipe", Refused, "neither a file nor a folder"),
        ("loop", UsageError, "cannot be read"),
    ],
)
def test_what_is_no_model_file_is_told_before_any_loader_is_asked(tmp_path, kind, error, message):
    path = tmp_path / "model.fake"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    with pytest.raises(error, match=message):
        loading.check_file(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_told(tmp_path):
    path = fakes.model_file(tmp_path)
    path.chmod(0)
    with pytest.raises(UsageError, match="cannot be read"):
        loading.check_file(path)


def test_a_blocked_plugin_is_blocked_for_loaders_too(tmp_path):
    seen = []

    @dataclass(frozen=True)
    class Curious(Method):
        @hookimpl
        def load(self, path, options):
            seen.append(options.block)

    registry = fakes.registry(fakes.plugin("curious", "loader", Curious), *fakes.whole_house(), block=("scores",))
    open_model(fakes.model_file(tmp_path), LoadOptions(), registry)
    assert seen == [("scores",)]


def test_an_architecture_that_the_file_has_no_use_for_is_told(tmp_path):
    found = open_model(fakes.model_file(tmp_path), LoadOptions(arch="N_SN"), fakes.registry(*fakes.whole_house()))
    assert found.run.notes == ("--arch N_SN was not needed: the file brings its own architecture",)
    assert found.facts["notes"] == list(found.run.notes)
    assert opened(fakes.model_file(tmp_path)).run.notes == ()
