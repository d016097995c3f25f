"""Recipes: a zoo in one TOML file. Those in this folder are known by name."""

from __future__ import annotations

import hashlib
import itertools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from agnes import settings
from agnes.errors import UsageError, suggestion
from agnes.registry import Registry
from agnes.text import printable
from agnes_zoo.dealing import DataPlan
from agnes_zoo.making import ANY, Plan, check
from agnes_zoo.training import Regime

_SPAN = 1_000_000  # seeds that a recipe has to itself
_DATA = 900_000  # of these, from where on they are for drawing images
_ATTEMPTS = 100  # seeds that a model has to itself


@dataclass(frozen=True)
class Bars:
    """What a network must reach to be taken into the zoo."""

    accuracy: float = 0.0  # on images held out
    asr: float = 0.0  # of the true trigger, where there is one


@dataclass(frozen=True)
class Group:
    """Networks of a kind: every architecture with every data set and every attack, so many times."""

    arch: tuple[str, ...]  # names of architectures
    data: tuple[str, ...]  # names of the recipe's data
    attack: tuple[str, ...] = ()  # names of attacks; none: clean networks
    count: int = 1  # networks of each


@dataclass(frozen=True)
class Entry:
    """One network that a recipe asks for."""

    number: int  # from 1, in an order that says nothing
    plan: Plan  # with the seed of the first attempt
    data: str
    bars: Bars
    attempts: int

    @property
    def name(self) -> str:
        return f"model-{self.number:04d}"

    def attempt(self, number: int) -> Plan:
        """The plan with another seed each time."""
        return self.plan.with_seed(self.plan.seed + number)


@dataclass(frozen=True)
class Recipe:
    """A zoo to be built."""

    name: str
    seed: int
    data: Mapping[str, DataPlan]
    entries: tuple[Entry, ...] = field(repr=False)
    digest: str = field(repr=False)  # of the file

    @property
    def seeds(self) -> frozenset[int]:
        """Every seed that building may use: of networks, each attempt, and of images."""
        networks = (entry.plan.seed + n for entry in self.entries for n in range(entry.attempts))
        return frozenset(networks) | {plan.seed for plan in self.data.values()}


def names() -> tuple[str, ...]:
    """The recipes that come with agnes-zoo."""
    return tuple(sorted(path.name.removesuffix(".toml") for path in _folder() if path.name.endswith(".toml")))


def _folder() -> list[Any]:
    return list(resources.files("agnes_zoo.recipes").iterdir())


def read(name: str | Path) -> Recipe:
    """A recipe by its name or from a file."""
    if str(name) in names():
        content = resources.files("agnes_zoo.recipes").joinpath(f"{name}.toml").read_bytes()
    else:
        try:
            content = Path(name).read_bytes()
        except OSError as error:
            known = suggestion(str(name), names())
            raise UsageError(f"there is no recipe '{printable(name)}', by name or as a file{known}") from error
    return parse(content, printable(Path(name).name))


def parse(content: bytes, origin: str) -> Recipe:
    """The recipe in a TOML text; every name, type and reference is checked."""
    try:
        said = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{origin} is not TOML: {error}") from error
    top = _table(said, origin, {"name", "seed", "says", "retries", "training", "bars", "data", "models"})
    seed, retries = _whole(top, "seed", 0, origin), _whole(top, "retries", 0, origin)
    if retries >= _ATTEMPTS:
        raise UsageError(f"{origin}: {retries} retries; give fewer than {_ATTEMPTS}")
    data = _data(top.get("data", {}), seed, origin)
    base = settings.typed(Regime, f"{origin} training", top.get("training", {}))
    bars = settings.typed(Bars, f"{origin} bars", top.get("bars", {}))
    found = [
        entry
        for number, group in enumerate(top.get("models", ()))
        for entry in _entries(group, data, base, bars, f"{origin} models[{number}]")
    ]
    registry = Registry.discover()
    for plan, _, _ in found:
        check(plan, registry)
    if not found or not data:
        raise UsageError(f"{origin}: no models or no data; give a table [data.NAME] and a list [[models]]")
    if len(found) * _ATTEMPTS > _DATA:
        raise UsageError(f"{origin}: {len(found)} models; a recipe holds {_DATA // _ATTEMPTS} at most")
    entries = _numbered(found, seed, retries + 1)
    return Recipe(str(top.get("name", origin)), seed, data, entries, hashlib.sha256(content).hexdigest())


def _numbered(found: list[tuple[Plan, str, Bars]], seed: int, attempts: int) -> tuple[Entry, ...]:
    """Numbers and seeds for all, shuffled so that a number tells nothing of the kind."""
    order = np.random.default_rng(seed).permutation(len(found))
    return tuple(
        Entry(number, plan.with_seed(seed * _SPAN + _ATTEMPTS * number), data, bars, attempts)
        for number, (plan, data, bars) in enumerate((found[i] for i in order), 1)
    )


def _data(said: Mapping[str, Any], seed: int, origin: str) -> dict[str, DataPlan]:
    found = {}
    for index, (name, table) in enumerate(said.items()):
        owner = f"{origin} data.{name}"
        if "seed" in table:
            raise UsageError(f"{owner}: the seed of its images follows from the recipe's; leave it out")
        if not name.isidentifier():
            raise UsageError(f"{owner}: a name of data is made of letters, digits and underscores")
        plan = DataPlan(**settings.typed(DataPlan, owner, table))
        found[name] = replace(plan, seed=seed * _SPAN + _DATA + index)
    return found


def _entries(
    said: Mapping[str, Any], data: Mapping[str, DataPlan], base: Mapping[str, Any], bars: Mapping[str, Any], owner: str
) -> list[tuple[Plan, str, Bars]]:
    known = {field.name for field in fields(Group)}
    table = _table(said, owner, {*known, "options", "training", "bars"})
    for needed in ("arch", "data"):
        if needed not in table:
            raise UsageError(f"{owner} names no {needed}; give one or a list")
    group = Group(**settings.typed(Group, owner, {name: table[name] for name in known & set(table)}))
    for name in group.data:
        if name not in data:
            raise UsageError(f"{owner}: there is no data '{printable(name)}'{suggestion(name, data)}")
    own = {**base, **settings.typed(Regime, f"{owner} training", table.get("training", {}))}
    if "seed" in own:
        raise UsageError(f"{owner}: the seed of a training follows from the recipe's; leave it out")
    wanted = Bars(**{**bars, **settings.typed(Bars, f"{owner} bars", table.get("bars", {}))})
    options = {"target": ANY, **table.get("options", {})}
    made = []
    for arch, name, attack in itertools.product(group.arch, group.data, group.attack or (None,)):
        plan = Plan(arch, data[name], Regime(**own), attack, options if attack else {})
        made += [(plan, name, wanted)] * group.count
    return made


def _table(said: Any, owner: str, known: set[str]) -> Mapping[str, Any]:
    if not isinstance(said, Mapping):
        raise UsageError(f"{owner} must be a table")
    for name in said:
        if name not in known:
            raise UsageError(f"{owner} has no '{printable(name)}'{suggestion(name, known)}")
    return said


def _whole(said: Mapping[str, Any], name: str, least: int, origin: str) -> int:
    value = said.get(name, 0)
    if type(value) is not int or value < least:
        raise UsageError(f"{origin}: {name} takes a whole number from {least} on, not {printable(value)}")
    return value
