"""Running a table: each network with all that is asked of it is one job; what was found before is not done again."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agnes.backend import Backend
from agnes.errors import AgnesError
from agnes_zoo.experiments.describing import Column, Probe, Row, Table
from agnes_zoo.experiments.measuring import measured
from agnes_zoo.experiments.scales import Scale
from agnes_zoo.experiments.searching import methods_of
from agnes_zoo.experiments.store import Answer, Store, key_of
from agnes_zoo.experiments.subject import Subject
from agnes_zoo.making import Plan
from agnes_zoo.scoring import metrics
from agnes_zoo.training import Stopped, Watch
from agnes_zoo.workers import one_thread, side_by_side, stopping

Tell = Callable[[str, int, int], None]  # a line, jobs done, jobs in all


@dataclass(frozen=True)
class Ask:
    """One probe of one network."""

    plan: Plan
    measure: str
    settings: Mapping[str, Any]

    @property
    def key(self) -> str:
        return key_of(self.plan, self.measure, self.settings)


@dataclass(frozen=True)
class Figure:
    """One figure of the table, ours and the paper's."""

    row: str
    column: str
    value: float | None  # None: nothing could be measured
    values: tuple[float, ...]  # of each network
    interval: tuple[float, float] | None  # of the mean, by the bootstrap; None for a single network
    paper: float | None
    failed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """A table as it was run."""

    table: Table
    scale: Scale
    figures: tuple[Figure, ...]
    arrays: Mapping[tuple[str, str], Mapping[str, np.ndarray]]  # row and probe -> what a plot shows
    networks: int
    seconds: float  # of all answers together, whenever they were found


def run(
    table: Table,
    scale: Scale,
    folder: Path,
    *,
    sources: Mapping[str, str] | None = None,
    jobs: int = 1,
    device: str | None = "cpu",
    seed: int = 0,
    tell: Tell | None = None,
    later: Sequence[Table] = (),
) -> Outcome:
    """Answer all that the table asks for, and what `later` ones ask of the same networks while they are at hand."""
    store = Store(folder)
    asked = _asked(table, scale, sources or {})
    asks = [ask for asks in asked.values() for ask in asks]
    networks = {ask.plan.digest for ask in asks}
    others = [ask for other in later for ask in asks_of(other, scale, sources or {}) if ask.plan.digest in networks]
    answers = _answered([*asks, *others], store, jobs, device, seed, tell)
    figures = tuple(
        _figure(table, row, column, [answers[ask.key] for ask in asked[row.name, column.name]], asked, answers)
        for row in table.rows_at(scale.name)
        for column in table.columns
    )
    probes = {column.name: column.probe for column in table.columns}
    arrays = {
        (row, probes[column]): max((answers[ask.key].arrays for ask in asks), key=_content)
        for (row, column), asks in asked.items()
        if any(answers[ask.key].arrays for ask in asks)
    }
    plans = {ask.plan.digest for asks in asked.values() for ask in asks}
    seconds = sum(answers[key].seconds for key in {ask.key for ask in asks})
    return Outcome(table, scale, figures, arrays, len(plans), seconds)


def _content(arrays: Mapping[str, np.ndarray]) -> int:
    """How much a plot of these shows; of networks of a kind the first of those with the most stands for all."""
    return sum(array.size for array in arrays.values())


def asks_of(table: Table, scale: Scale, sources: Mapping[str, str]) -> list[Ask]:
    """All that a table asks for, the same question as often as it comes up."""
    return [ask for asks in _asked(table, scale, sources).values() for ask in asks]


def _asked(table: Table, scale: Scale, sources: Mapping[str, str]) -> dict[tuple[str, str], list[Ask]]:
    """Row and column -> what is asked of each network."""
    return {
        (row.name, column.name): _asks(table, scale, row, column, sources)
        for row in table.rows_at(scale.name)
        for column in table.columns
    }


def _asks(table: Table, scale: Scale, row: Row, column: Column, sources: Mapping[str, str]) -> list[Ask]:
    probe = table.probes[column.probe]
    settings = _settings(probe, row.probes.get(column.probe, {}), scale)
    models = row.models.but(**column.models)
    count = scale.networks or table.networks(scale.count, row, column)
    return [Ask(scale.plan(models, number, sources), probe.measure, settings) for number in range(count)]


def _settings(probe: Probe, differs: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    """The probe's settings; those of its methods are bounded by what the scale may cost."""
    settings = {**probe.settings, **differs}
    if "methods" in settings:
        said, own = settings["methods"], _methods(probe.measure, settings)
        owners = dict.fromkeys([*said, *(name for name in scale.costs if name in own)])
        settings["methods"] = {name: {**said.get(name, {}), **scale.costs.get(name, {})} for name in owners}
    return settings


def _methods(measure: str, settings: Mapping[str, Any]) -> set[str]:
    """The methods that a measurement runs."""
    searched = methods_of(settings["search"]).values() if settings.get("search") else ()
    return {*searched, settings.get("repair", ""), "retrain" if measure == "retraining" else ""}


def _answered(
    asks: Sequence[Ask], store: Store, jobs: int, device: str | None, seed: int, tell: Tell | None
) -> dict[str, Answer]:
    """An answer to every ask; those of one network together."""
    tell = tell or (lambda line, done, total: None)
    unique = {ask.key: ask for ask in asks}
    answers = {key: found for key in unique if (found := store.answer(key)) is not None}
    by_network: dict[str, list[Ask]] = {}
    for key, ask in unique.items():
        if key not in answers:
            by_network.setdefault(ask.plan.digest, []).append(ask)
    work = list(by_network.values())
    for done, (asked, found) in enumerate(_worked(work, store.folder, jobs, device, seed), 1):
        answers |= found
        tell(_line(asked, found), done, len(work))
    return answers


def _line(asked: Sequence[Ask], found: Mapping[str, Answer]) -> str:
    plan, failed = asked[0].plan, [answer.failed for answer in found.values() if answer.failed]
    kind = f"{plan.arch} on {plan.data.source}, {plan.attack or 'clean'}, seed {plan.seed}"
    return f"{kind}: {len(found)} measured" + (f", {len(failed)} of them failed: {failed[0]}" if failed else "")


def _worked(
    work: Sequence[Sequence[Ask]], folder: Path, jobs: int, device: str | None, seed: int
) -> Iterator[tuple[Sequence[Ask], dict[str, Answer]]]:
    task = partial(job, folder=folder, device=device, seed=seed)
    if jobs == 1 or len(work) < 2:
        with one_thread():
            for asks in work:
                yield asks, task(asks)
    else:
        yield from side_by_side(task, work, jobs, "measured a network")


def job(asks: Sequence[Ask], folder: Path, device: str | None, seed: int) -> dict[str, Answer]:
    """Train or open one network and answer what is asked of it; each answer is kept at once."""
    store = Store(folder)
    backend = Backend.choose(device, seed=seed)
    watch = Watch(stop=stopping)
    found: dict[str, Answer] = {}
    subject: Subject | None = None
    for ask in asks:
        if watch.stop():
            break
        try:
            if subject is None:
                subject = Subject.of(ask.plan, store, backend, watch)
            answer = measured(subject, ask.measure, ask.settings)
        except Stopped:
            break
        except AgnesError as error:  # it could not be trained or opened
            answer = Answer({}, failed=str(error))
        store.keep(ask.key, answer)
        found[ask.key] = answer
    return found


def _figure(
    table: Table,
    row: Row,
    column: Column,
    answers: Sequence[Answer],
    asked: Mapping[tuple[str, str], Sequence[Ask]],
    known: Mapping[str, Answer],
) -> Figure:
    values = _values(answers, column.metric)
    if column.over is not None:
        other = next(each for each in table.columns if each.name == column.over)
        base = _values([known[ask.key] for ask in asked[row.name, other.name]], other.metric)
        mean = statistics.mean(base) if base else 0.0
        values = [value / mean for value in values] if mean else []
    pool = {"mean": statistics.mean, "most": max, "least": min}[column.pooled]
    value = pool(values) if values else None
    interval = None
    if len(values) > 1 and column.pooled == "mean":
        array = np.array(values)
        interval = metrics.interval(lambda rows: float(array[rows].mean()), np.zeros(len(array)))
    failed = tuple(dict.fromkeys(answer.failed for answer in answers if answer.failed))
    return Figure(row.name, column.name, value, tuple(values), interval, table.published(row.name, column), failed)


def _values(answers: Sequence[Answer], metric: str) -> list[float]:
    known = [answer.values.get(metric) for answer in answers]
    return [value for value in known if value is not None]


def named(outcome: Outcome, row: str) -> list[Figure]:
    """The figures of a row."""
    return [figure for figure in outcome.figures if figure.row == row]
