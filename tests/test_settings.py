"""Promises of settings: three places in one precedence, typed, and refused by name, owner and remedy."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agnes.errors import UsageError
from agnes.method import Method
from agnes.settings import (
    Text,
    as_text,
    as_toml,
    build,
    convert,
    describe,
    merged,
    parse_assignments,
    read_config,
    typed,
)


@dataclass(frozen=True)
class Mine(Method):
    """Has settings."""

    clustering_rate: float = 0.2  # a share
    rounds: int = 5  # how often
    fast: bool = False  # less exact
    mode: Literal["mean", "max", 3] = "mean"  # how
    layers: tuple[str, ...] = ()  # which
    sizes: tuple[int, ...] = (1, 2)  # how many
    pair: tuple[int, str] = (1, "a")  # both
    steps: Sequence[float] = (0.5,)  # each
    limit: int | None = None  # at most
    weights: Path | None = None  # a file
    label: str = "x"  # a name

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError("rounds is 1 or more")


# --- from text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("clustering_rate", "0.5", 0.5),
        ("clustering_rate", "1", 1.0),
        ("clustering_rate", "1e-3", 0.001),
        ("clustering_rate", "inf", math.inf),
        ("rounds", "7", 7),
        ("rounds", " 7 ", 7),
        ("fast", "true", True),
        ("fast", "Yes", True),
        ("fast", "on", True),
        ("fast", "1", True),
        ("fast", "false", False),
        ("fast", "No", False),
        ("fast", "off", False),
        ("fast", "0", False),
        ("mode", "max", "max"),
        ("mode", "3", 3),
        ("layers", "a,b", ("a", "b")),
        ("layers", " a , b ,", ("a", "b")),
        ("layers", "", ()),
        ("sizes", "3", (3,)),
        ("pair", "4,b", (4, "b")),
        ("steps", "1,2.5", (1.0, 2.5)),
        ("limit", "3", 3),
        ("limit", "none", None),
        ("limit", "None", None),
        ("weights", "a/b.pt", Path("a/b.pt")),
        ("label", "a=b, c", "a=b, c"),
        ("label", "3", "3"),
    ],
)
def test_text_becomes_the_type_of_its_field(name, text, value):
    method = build(Mine, "mine", parse_assignments([f"mine.{name}={text}"])["mine"])
    assert getattr(method, name) == value
    assert type(getattr(method, name)) is type(value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("clustering_rate", "much", "mine.clustering_rate takes a number, not much"),
        ("clustering_rate", "nan", "mine.clustering_rate takes a number, not nan"),
        ("rounds", "2.5", "mine.rounds takes a whole number, not 2.5"),
        ("rounds", "", "mine.rounds takes a whole number, not "),
        ("fast", "maybe", "mine.fast takes true or false, not maybe"),
        ("mode", "median", "mine.mode takes one of mean, max, 3, not median"),
        ("sizes", "1,b", "mine.sizes takes a list of whole numbers separated by commas, not 1,b"),
        ("pair", "1", "mine.pair takes 2 values separated by commas: a whole number, text, not 1"),
        ("pair", "1,a,b", "mine.pair takes 2 values"),
        ("pair", "a,1", "mine.pair takes 2 values"),
        ("limit", "few", "mine.limit takes a whole number or none, not few"),
    ],
)
def test_text_of_a_wrong_type_is_refused_with_owner_name_and_type(name, value, said):
    with pytest.raises(UsageError) as caught:
        typed(Mine, "mine", {name: Text(value)})
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rounds", 2.0),
        ("rounds", "2"),
        ("rounds", True),
        ("clustering_rate", True),
        ("clustering_rate", "0.5"),
        ("clustering_rate", math.nan),
        ("fast", 1),
        ("fast", "true"),
        ("mode", True),
        ("mode", 3.0),
        ("layers", [1]),
        ("sizes", ["a"]),
        ("sizes", {"a": 1}),
        ("pair", [1, 2]),
        ("limit", "few"),
        ("weights", 3),
        ("label", 3),
        ("label", None),
    ],
)
def test_a_toml_value_of_a_wrong_type_is_refused(name, value):
    with pytest.raises(UsageError, match=f"^mine.{name} takes .*, not "):
        typed(Mine, "mine", {name: value})


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("clustering_rate", 1, 1.0),
        ("layers", ["a"], ("a",)),
        ("layers", "a", ("a",)),
        ("pair", [1, "b"], (1, "b")),
        ("limit", "none", None),
        ("weights", "a.pt", Path("a.pt")),
        ("weights", Path("a.pt"), Path("a.pt")),
        ("mode", 3, 3),
    ],
)
def test_a_toml_value_becomes_the_type_of_its_field(name, value, wanted):
    (found,) = typed(Mine, "mine", {name: value}).values()
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize("word", ["rounds=5", "mine.rounds", "mine=5", ".rounds=5", "mine.=5", "", "="])
def test_what_is_no_assignment_is_refused_with_an_example(word):
    with pytest.raises(UsageError, match=r"is not a setting; write --set NAME.SETTING=VALUE"):
        parse_assignments([word])


def test_of_two_assignments_the_last_counts():
    parsed = parse_assignments(["mine.rounds=1", "mine.fast=yes", "mine.rounds=2"])
    assert parsed == {"mine": {"rounds": Text("2"), "fast": Text("yes")}}


def test_an_unknown_name_is_refused_with_owner_and_nearest():
    with pytest.raises(UsageError, match=r"^mine has no setting 'rate'; did you mean 'clustering_rate'\?$"):
        build(Mine, "mine", {"rate": 0.5})


def test_what_the_method_itself_refuses_is_a_usage_error():
    with pytest.raises(UsageError, match=r"^mine refuses its settings: rounds is 1 or more$"):
        build(Mine, "mine", {"rounds": 0})


# --- there and back --------------------------------------------------------------------------------------------------

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
PLAIN = WORDS.filter(lambda word: word == word.strip() and word.lower() not in ("none", "null", "") and "," not in word)
FLOATS = st.floats(allow_nan=False)
VALUES = [
    (int, st.integers()),
    (float, FLOATS),
    (bool, st.booleans()),
    (str, WORDS),
    (Path, PLAIN.map(Path)),
    (int | None, st.none() | st.integers()),
    (str | None, st.none() | PLAIN),
    (float | bool, FLOATS),
    (tuple[int, ...], st.lists(st.integers()).map(tuple)),
    (tuple[str, ...], st.lists(PLAIN).map(tuple)),
    (tuple[float, bool], st.tuples(FLOATS, st.booleans())),
    (Sequence[float], st.lists(FLOATS).map(tuple)),
    (Literal["a", "b", 1, True], st.sampled_from(["a", "b", 1])),
    (tuple[int, ...] | None, st.none() | st.lists(st.integers(), min_size=1).map(tuple)),
]


def same(one, other) -> bool:
    return one == other and type(one) is type(other)


@given(st.one_of(*(st.tuples(st.just(wanted), values) for wanted, values in VALUES)))
def test_every_value_survives_the_command_line(case):
    wanted, value = case
    if not (isinstance(value, str) and value != value.strip()):  # the shell's words come without spaces at their ends
        assert same(convert(Text(as_text(value)), wanted), value)


@given(st.one_of(*(st.tuples(st.just(wanted), values) for wanted, values in VALUES)))
def test_every_value_survives_a_configuration_file(case):
    wanted, value = case
    read = tomllib.loads(f"value = {as_toml(value)}")["value"]
    assert same(convert(read, wanted), value)


@given(st.text(max_size=30), st.sampled_from([wanted for wanted, _ in VALUES]))
def test_any_text_is_a_value_of_its_type_or_refused(text, wanted):
    try:
        value = convert(Text(text), wanted)
    except ValueError:
        return
    assert same(convert(Text(as_text(value)), wanted), value) or isinstance(value, (str, tuple, Path))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (int, "a whole number"),
        (float | None, "a number or none"),
        (Path, "a path"),
        (tuple[bool, ...], "a list of values, each true or false, separated by commas"),
        (tuple[Literal["a", "b"], ...], "a list of values, each one of a, b, separated by commas"),
        (tuple[int, int], "2 values separated by commas: a whole number, a whole number"),
        (Sequence[str], "a list of texts separated by commas"),
    ],
)
def test_types_are_told_in_words(wanted, said):
    assert describe(wanted) == said


# --- files -----------------------------------------------------------------------------------------------------------


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_command_line_wins_over_agnes_toml_and_that_over_pyproject(tmp_path):
    write(
        tmp_path,
        "pyproject.toml",
        "[tool.agnes]\nseed = 1\ndevice = 'cpu'\n[tool.agnes.mine]\nrounds = 1\nlabel = 'p'\nlimit = 1\n",
    )
    write(tmp_path, "agnes.toml", "seed = 2\n[mine]\nrounds = 2\nlabel = 'a'\n")
    config = read_config(directory=tmp_path)
    assert config.run == {"seed": 2, "device": "cpu"}
    assert [Path(source).name for source in config.sources] == ["pyproject.toml", "agnes.toml"]
    typed_by_user = parse_assignments(["mine.rounds=3"])
    method = build(Mine, "mine", merged(config.plugins, typed_by_user)["mine"])
    assert (method.rounds, method.label, method.limit) == (3, "a", 1)


def test_a_file_that_is_named_stands_in_for_agnes_toml(tmp_path):
    write(tmp_path, "pyproject.toml", "[tool.agnes.mine]\nrounds = 1\nlimit = 4\n")
    write(tmp_path, "agnes.toml", "[mine]\nrounds = 2\n")
    other = write(tmp_path, "other.toml", "[mine]\nrounds = 3\n")
    assert read_config(other, tmp_path).plugins == {"mine": {"rounds": 3, "limit": 4}}


def test_without_files_nothing_is_configured(tmp_path):
    config = read_config(directory=tmp_path)
    assert (config.run, config.plugins, config.sources) == ({}, {}, ())


@pytest.mark.parametrize("text", ["", "[tool.other]\nx = 1\n", "tool = 3\n", "[project]\nname = 'agnes'\n"])
def test_a_pyproject_of_others_is_left_alone(tmp_path, text):
    write(tmp_path, "pyproject.toml", text)
    assert read_config(directory=tmp_path).sources == ()


def test_the_working_directory_is_where_files_are_looked_for(tmp_path, monkeypatch):
    write(tmp_path, "agnes.toml", "seed = 9\n")
    monkeypatch.chdir(tmp_path)
    assert read_config().run == {"seed": 9}


def test_a_named_file_must_be_there(tmp_path):
    with pytest.raises(UsageError, match=r"there is no configuration file .*absent\.toml"):
        read_config(tmp_path / "absent.toml", tmp_path)


@pytest.mark.parametrize(("content", "said"), [(b"a = = 1", "is not TOML"), (b"\xff\xfe", "cannot be read")])
def test_a_file_that_is_no_toml_is_refused_by_name(tmp_path, content, said):
    (tmp_path / "agnes.toml").write_bytes(content)
    with pytest.raises(UsageError, match=rf"agnes\.toml {said}"):
        read_config(directory=tmp_path)


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "agnes.toml").mkdir()
    with pytest.raises(UsageError, match=r"agnes\.toml cannot be read"):
        read_config(directory=tmp_path)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("agnes.toml", "trust_model_code = true\n"),
        ("agnes.toml", "trust-model-code = true\n"),
        ("agnes.toml", "trust_model_code = false\n"),
        ("agnes.toml", "[torchscript]\ntrust_model_code = true\n"),
        ("pyproject.toml", "[tool.agnes]\ntrust_model_code = true\n"),
        ("pyproject.toml", "[tool.agnes.torchscript]\nTrust_Model_Code = true\n"),
    ],
)
def test_no_file_can_say_that_a_models_code_is_trusted(tmp_path, file, text):
    write(tmp_path, file, text)
    with pytest.raises(UsageError, match="is never read from a file; give --trust-model-code on the command line"):
        read_config(directory=tmp_path)
