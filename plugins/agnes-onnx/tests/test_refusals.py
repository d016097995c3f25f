import os
import time

import onnx
import pytest
from agnes_onnx.loader import OnnxLoader
from onnx_classifiers import exported, made, opened
from onnx_hostile import HOSTILE, classifier

from agnes.errors import AgnesError, Refused
from agnes.loading import LoadOptions


@pytest.fixture
def surroundings(tmp_path):
    """A folder with what hostile files point at."""
    inside = tmp_path / "model"
    inside.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(432))
    (inside / "data.bin").write_bytes(bytes(432))
    (inside / "short.bin").write_bytes(bytes(431))
    (inside / "folder").mkdir()
    (inside / "link.bin").symlink_to(tmp_path / "secret.bin")
    (inside / "linked").symlink_to(tmp_path)
    os.mkfifo(inside / "pipe")
    return inside


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_or_broken_file_is_refused_in_one_plain_line(case, surroundings):
    model, words = HOSTILE[case]
    path = surroundings / "m.onnx"
    path.write_bytes(model.SerializeToString())
    before = sorted(os.listdir(surroundings))
    start = time.monotonic()
    with pytest.raises(AgnesError, match=words) as refusal:
        OnnxLoader().load(path, LoadOptions())
    text = str(refusal.value)
    assert text.isprintable()
    assert "\n" not in text
    assert isinstance(refusal.value, Refused)
    assert time.monotonic() - start < 20
    assert sorted(os.listdir(surroundings)) == before


def test_the_good_file_that_the_hostile_ones_are_made_of_is_opened(tmp_path):
    (tmp_path / "m.onnx").write_bytes(classifier().SerializeToString())
    assert opened(tmp_path / "m.onnx").class_count == 5


def test_external_data_beside_the_model_is_read(tmp_path):
    path = exported(made("residual"), (3, 16, 16), tmp_path / "whole.onnx")
    whole = opened(path)
    (tmp_path / "apart").mkdir()
    onnx.save(
        onnx.load(path), tmp_path / "apart" / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    apart = opened(tmp_path / "apart" / "m.onnx")
    ours, theirs = apart.module.state_dict(), whole.module.state_dict()
    assert all((value == theirs[name]).all() for name, value in ours.items())


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(share, tmp_path):
    content = exported(made("residual"), (3, 16, 16), tmp_path / "m.onnx").read_bytes()
    (tmp_path / "m.onnx").write_bytes(content[: int(share * len(content))] or b"\x08")
    with pytest.raises(Refused):
        opened(tmp_path / "m.onnx")
