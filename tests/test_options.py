"""Options: typed, then configured, then the defaults."""

from pathlib import Path

import pytest

from agnes import options
from agnes.errors import UsageError
from agnes.settings import Config


def test_what_is_typed_wins_over_the_file_and_the_file_over_the_default():
    config = Config({"seed": 5, "precision": "tf32"}, {}, ("agnes.toml",))
    found = options.resolved({"seed": 7, "device": None, "plugin": []}, config)
    assert (found.seed, found.precision, found.device, found.plugin) == (7, "tf32", None, ())


def test_typed_words_are_read_by_the_type_of_the_option():
    found = options.resolved({"mean": "0.5,0.25,0", "input_shape": "3,32,32", "data": "samples"}, Config())
    assert found.mean == (0.5, 0.25, 0.0)
    assert found.input_shape == (3, 32, 32)
    assert found.data == Path("samples")


@pytest.mark.parametrize(
    ("typed", "run", "message"),
    [
        ({}, {"sed": 1}, "agnes.toml has no setting 'sed'; did you mean 'seed'?"),
        ({}, {"seed": "one"}, "agnes.toml.seed takes a whole number, not 'one'"),
        ({"layout": "NCWH"}, {}, "agnes run.layout takes one of auto, NCHW, NHWC, not NCWH"),
        ({"mean": "a,b"}, {}, "agnes run.mean takes a list of numbers separated by commas, not a,b"),
    ],
)
def test_wrong_options_name_where_they_stand(typed, run, message):
    with pytest.raises(UsageError) as caught:
        options.resolved(typed, Config(run, {}, ("somewhere/agnes.toml",)))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "expected"), [("512M", 512 << 20), ("4G", 4 << 30), ("1.5 GiB", 3 << 29), ("10kb", 10240), (2048, 2048)]
)
def test_memory_is_read_with_its_unit(text, expected):
    assert options.size(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("90", 90), (90, 90), ("1.5m", 90), ("2h", 7200), ("30s", 30)])
def test_time_is_read_with_its_unit(text, expected):
    assert options.duration(text) == expected


@pytest.mark.parametrize("text", ["", "much", "-1", "0", "5 parsecs", "1e3"])
def test_what_is_no_size_and_no_duration_is_refused(text):
    with pytest.raises(UsageError):
        options.size(text)
    with pytest.raises(UsageError):
        options.duration(text)


def test_a_run_folder_is_never_one_that_exists(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net-2").mkdir()
    assert options.free_folder(Path("models/net.onnx"), tmp_path) == tmp_path / "net-3"


def test_trust_in_model_code_never_comes_from_the_options():
    assert "trust_model_code" not in options.RunOptions.__dataclass_fields__
