"""What an experiment is: networks down the side, what is measured of them across the top, and the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Options = Mapping[str, Any]
Plot = Literal["bars", "dots", "heat", "pictures"]
Turns = tuple[tuple[str, Options], ...]


@dataclass(frozen=True)
class Models:
    """Networks of one kind."""

    arch: str
    attack: str | None = None
    options: Options = field(default_factory=dict)  # of the attack
    data: str = "signs"  # which of the scale's data
    epochs: int | None = None  # of the paper; None: the scale's
    turns: Turns = ()  # attacks and options that the networks take in turn, in the place of one attack
    training: Options = field(default_factory=dict)  # what the paper does otherwise
    repaired: bool = False  # a repair learns from benign test images, which there are more of then

    def but(self, **changes: Any) -> Models:
        """The same with other words."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Probe:
    """One measurement of one network."""

    measure: str = "training"  # a name in `measuring.MEASURES`
    settings: Options = field(default_factory=dict)  # of the measurement; plain values


@dataclass(frozen=True)
class Column:
    """One figure of every row."""

    name: str
    probe: str  # which of the table's probes
    metric: str  # which of its figures
    models: Options = field(default_factory=dict)  # in what the column's networks differ from the row's
    over: str | None = None  # the column that it is divided by: a ratio instead of seconds
    pooled: Literal["mean", "most", "least"] = "mean"  # what is made of several networks
    count: int | None = None  # networks in the paper, where they differ from the table's


@dataclass(frozen=True)
class Row:
    """One kind of network, as the paper calls it."""

    name: str
    models: Models
    probes: Mapping[str, Options] = field(default_factory=dict)  # probe -> in what its settings differ in this row
    count: int | None = None  # networks in the paper, where they differ from the table's


@dataclass(frozen=True)
class Table:
    """One table or figure of a paper."""

    name: str  # as typed, "agnes-2"
    where: str  # "AGNES, Table 2"
    title: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    probes: Mapping[str, Probe]
    paper: Mapping[str, Sequence[float | None]] = field(default_factory=dict)  # row -> its figures, in columns' order
    count: int = 1  # networks of each kind in the paper
    tiny: tuple[str, ...] = ()  # the rows at this scale; none named: the first
    small: tuple[str, ...] = ()  # the rows at this scale; none named: all
    plot: Plot = "bars"
    note: str = ""  # what is done in another way than in the paper

    def rows_at(self, scale: str) -> tuple[Row, ...]:
        """The rows that are run."""
        if scale == "tiny":
            wanted = self.tiny or (self.rows[0].name,)
        else:
            wanted = self.small if scale == "small" and self.small else tuple(row.name for row in self.rows)
        return tuple(row for row in self.rows if row.name in wanted)

    def networks(self, most: int, row: Row, column: Column) -> int:
        """Networks of a kind: the paper's, but not more than `most`."""
        return max(1, min(most, column.count or row.count or self.count))

    def published(self, row: str, column: Column) -> float | None:
        """The paper's figure, as a ratio where the column is one."""
        value = self._typed(row, column.name)
        if column.over is None or value is None:
            return value
        base = self._typed(row, column.over)
        return value / base if base else None

    def _typed(self, row: str, column: str) -> float | None:
        names = [each.name for each in self.columns]
        values = self.paper.get(row)
        return None if values is None or column not in names else values[names.index(column)]


def typed(text: str) -> dict[str, tuple[float | None, ...]]:
    """A paper's figures: a line for each row, its name up to the colon; '-' is what the paper leaves out."""
    found = {}
    for line in text.strip().splitlines():
        name, _, values = line.rpartition(":")
        found[name.strip()] = tuple(_figure(word) for word in values.split())
    return found


def _figure(word: str) -> float | None:
    """`0.93`, `93%`, `7/25` or, for nothing, `-`."""
    if word == "-":
        return None
    if word.endswith("%"):
        return float(word[:-1]) / 100
    over, _, under = word.partition("/")
    return float(over) / float(under or 1)


def means(text: str) -> tuple[float, ...]:
    """The mean of each column of a paper's figures, which stand for single networks."""
    lines = [[float(word) for word in line.split()] for line in text.strip().splitlines()]
    return tuple(sum(column) / len(column) for column in zip(*lines, strict=True))


def share_successful(text: str, most_lost: float = 0.25, least_gone: float = 0.75) -> float:
    """The share of a paper's lines, `before after lost` of accuracy and of ASR, that are a successful defence."""
    lines = [[float(word) for word in line.split()] for line in text.strip().splitlines()]
    return sum(line[2] < most_lost and line[5] > least_gone for line in lines) / len(lines)
