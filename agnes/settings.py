"""Settings: `name.field=value`, agnes.toml and [tool.agnes] become the typed fields of methods."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from agnes.errors import UsageError, suggestion
from agnes.method import settings_of

_NAMES: Mapping[Any, tuple[str, str]] = {  # one, and many
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", ""),
    str: ("text", "texts"),
    Path: ("a path", "paths"),
    type(None): ("none", ""),
}
Assignments = Mapping[str, Mapping[str, Any]]  # owner -> field -> value
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
CONFIG_FILE = "agnes.toml"
NEVER_CONFIGURED = "trust_model_code"


@dataclasses.dataclass(frozen=True)
class Text:
    """A value as typed on the command line, to be read by the field's type."""

    text: str


@dataclasses.dataclass(frozen=True)
class Config:
    """What a configuration file says: options of the run, and settings of plugins."""

    run: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    plugins: Assignments = dataclasses.field(default_factory=dict)
    sources: tuple[str, ...] = ()


def parse_assignments(words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`aproxsm.clustering_rate=0.2` and its like, as owner -> field -> text."""
    parsed: dict[str, dict[str, Any]] = {}
    for word in words:
        left, equals, value = word.partition("=")
        owner, dot, name = left.strip().partition(".")
        if not (equals and dot and owner and name):
            raise UsageError(f"'{word}' is not a setting; write --set NAME.SETTING=VALUE, as in --set kmeans.rounds=5")
        parsed.setdefault(owner, {})[name] = Text(value.strip())
    return parsed


def read_config(explicit: Path | None = None, directory: Path | None = None) -> Config:
    """[tool.agnes] of pyproject.toml, then agnes.toml over it; `explicit` stands in for agnes.toml."""
    directory = directory or Path.cwd()
    run: dict[str, Any] = {}
    plugins: dict[str, dict[str, Any]] = {}
    sources = []
    own = explicit or directory / CONFIG_FILE
    for path, table in ((directory / "pyproject.toml", "tool.agnes"), (own, "")):
        content = _read_table(path, table, required=path is explicit)
        if content is None:
            continue
        sources.append(str(path))
        for key, value in content.items():
            if isinstance(value, dict):
                plugins.setdefault(key, {}).update(value)
            else:
                run[key] = value
    for key in (*run, *(name for fields in plugins.values() for name in fields)):
        if key.replace("-", "_").lower() == NEVER_CONFIGURED:
            raise UsageError(f"{key} is never read from a file; give --trust-model-code on the command line")
    return Config(run, plugins, tuple(sources))


def _read_table(path: Path, table: str, required: bool) -> Mapping[str, Any] | None:
    try:
        content: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise UsageError(f"there is no configuration file {path}") from None
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    for key in filter(None, table.split(".")):
        content = content.get(key)
        if not isinstance(content, dict):
            return None
    return content


def merged(*layers: Assignments) -> dict[str, dict[str, Any]]:
    """Assignments over assignments, the last the strongest."""
    result: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for owner, fields in layer.items():
            result.setdefault(owner, {}).update(fields)
    return result


def build(method: type, owner: str, assigned: Mapping[str, Any]) -> Any:
    """An instance of a method with these settings; every name and type is checked."""
    values = typed(method, owner, assigned)
    try:
        return method(**values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{owner} refuses its settings: {error}") from error


def typed(owner_class: type, owner: str, assigned: Mapping[str, Any]) -> dict[str, Any]:
    """Assigned values as the types of a dataclass's fields."""
    known = {setting.name: setting for setting in settings_of(owner_class)}
    values = {}
    for name, value in assigned.items():
        if name not in known:
            raise UsageError(f"{owner} has no setting '{name}'{suggestion(name, known)}")
        try:
            values[name] = convert(value, known[name].type)
        except ValueError:
            shown = value.text if isinstance(value, Text) else repr(value)
            raise UsageError(f"{owner}.{name} takes {describe(known[name].type)}, not {shown}") from None
    return values


def convert(value: Any, wanted: Any) -> Any:
    """A value, typed text or TOML, as the wanted type; ValueError where it is none."""
    origin = typing.get_origin(wanted)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, typing.get_args(wanted))
    if origin is Literal:
        return _convert_literal(value, typing.get_args(wanted))
    if origin in (tuple, Sequence):
        return _convert_items(value, typing.get_args(wanted))
    if isinstance(value, Text):
        return _from_text(value.text, wanted)
    if wanted is float and type(value) in (int, float):
        return _finite(float(value))
    if wanted is Path and isinstance(value, (str, Path)):
        return Path(value)
    if wanted is type(None) and value in (None, "none"):  # TOML has no null
        return None
    if type(value) is wanted:
        return value
    raise ValueError


def describe(wanted: Any) -> str:
    """A type in the words of an error message."""
    origin, args = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(arg) for arg in args)
    if origin is Literal:
        return "one of " + ", ".join(str(arg) for arg in args)
    if origin in (tuple, Sequence):
        return _describe_items(args)
    return _NAMES.get(wanted, (str(wanted), ""))[0]


def _describe_items(args: Sequence[Any]) -> str:
    if _is_fixed(args):
        return f"{len(args)} values separated by commas: {', '.join(describe(arg) for arg in args)}"
    plural = _NAMES.get(args[0], ("", ""))[1] or f"values, each {describe(args[0])},"
    return f"a list of {plural} separated by commas"


def _is_fixed(args: Sequence[Any]) -> bool:
    """Whether the arguments of a tuple's type name each item, as in tuple[int, str]."""
    return len(args) > 1 and args[1] is not Ellipsis


def _from_text(text: str, wanted: Any) -> Any:
    if wanted is bool:
        if text.lower() not in _TRUE + _FALSE:
            raise ValueError
        return text.lower() in _TRUE
    if wanted is type(None):
        if text.lower() not in ("none", "null", ""):
            raise ValueError
        return None
    if wanted is float:
        return _finite(float(text))
    if wanted in (int, str, Path):
        return wanted(text)
    raise ValueError


def _finite(number: float) -> float:
    if math.isnan(number):
        raise ValueError
    return number


def _convert_union(value: Any, options: Sequence[Any]) -> Any:
    for option in sorted(options, key=lambda option: option is not type(None)):  # "none" before any text
        try:
            return convert(value, option)
        except ValueError:
            continue
    raise ValueError


def _convert_literal(value: Any, options: Sequence[Any]) -> Any:
    for option in options:
        if isinstance(value, Text):
            try:
                chosen = _from_text(value.text, type(option)) == option
            except ValueError:
                chosen = False
        else:
            chosen = type(value) is type(option) and value == option  # True is not 1
        if chosen:
            return option
    raise ValueError


def _convert_items(value: Any, args: Sequence[Any]) -> tuple[Any, ...]:
    if isinstance(value, Text):
        items: Sequence[Any] = [Text(part.strip()) for part in value.text.split(",") if part.strip()]
    elif isinstance(value, (list, tuple)):
        items = value
    else:
        items = [value]
    wanted = list(args) if _is_fixed(args) else [args[0]] * len(items)
    if len(wanted) != len(items):
        raise ValueError
    return tuple(convert(item, one) for item, one in zip(items, wanted, strict=True))


def as_text(value: Any) -> str:
    """A setting's value as it is typed after `--set NAME.SETTING=`."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return ",".join(as_text(item) for item in value)
    return str(value)


def as_toml(value: Any) -> str:
    """A setting's value as it stands in agnes.toml."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(as_toml(item) for item in value)}]"
    if value is None or isinstance(value, (str, Path)):
        return json.dumps(as_text(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return as_text(value)
