"""Every description of a table names what there is."""

import functools
import inspect
import json

import pytest
from agnes_zoo.attacks import find
from agnes_zoo.experiments import searching
from agnes_zoo.experiments.catalogue import TABLES, cost
from agnes_zoo.experiments.measuring import MEASURES
from agnes_zoo.experiments.running import asks_of
from agnes_zoo.experiments.scales import SCALES

from agnes import settings
from agnes.hookspecs import METHOD_STAGES
from agnes.registry import Registry

REGISTRY = Registry.discover()
ARCHITECTURES = {plugin.name for plugin in REGISTRY.of_stage("architecture")}
WANTED = [
    *(f"agnes-{number}" for number in range(1, 5)),
    *(f"retraining-{number}" for number in range(2, 8)),
    *("retraining-fig-3", "retraining-fig-4"),
    *(f"koldenhof-5.{number}" for number in (4, 5, 6)),
    *("koldenhof-a.1", "koldenhof-a.2"),
    *(f"koldenhof-fig-6.{number}" for number in range(1, 7)),
    *("overactivation-2.1", "overactivation-2.2"),
    *(f"abs-{number}" for number in (2, 3, 4, 5, 8, 9, 11)),
    *("abs-fig-16", "abs-fig-20"),
]
every_table = pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))


@functools.cache
def asked(table, scale):
    """What a table asks for, each question once."""
    return list({ask.key: ask for ask in asks_of(TABLES[table], SCALES[scale], {})}.values())


def check_settings(name, assigned):
    """A method of this name has these settings."""
    check_text(name, json.dumps(assigned, sort_keys=True))


@functools.cache
def check_text(name, text):
    assigned = json.loads(text)
    settings.build(REGISTRY.method(REGISTRY.named(name, METHOD_STAGES)), name, assigned)


def test_every_table_and_figure_that_was_asked_for_is_there():
    assert sorted(TABLES) == sorted(WANTED)


@every_table
def test_the_papers_figures_fit_rows_and_columns(table):
    rows, columns = [row.name for row in table.rows], [column.name for column in table.columns]
    assert len(set(rows)) == len(rows)
    assert len(set(columns)) == len(columns)
    assert set(table.paper) <= set(rows)
    assert {len(values) for values in table.paper.values()} <= {len(columns)}
    assert {*table.tiny, *table.small} <= set(rows)
    assert {column.probe for column in table.columns} <= set(table.probes)
    assert {column.over for column in table.columns} <= {None, *(c.name for c in table.columns if c.over is None)}
    assert {name for row in table.rows for name in row.probes} <= set(table.probes)


@every_table
def test_its_measurements_methods_and_settings_exist(table):
    for scale in SCALES:
        for ask in asked(table.name, scale):
            inspect.signature(MEASURES[ask.measure]).bind(None, **ask.settings)
            if ask.settings.get("search"):
                for stage, name in searching.methods_of(ask.settings["search"]).items():
                    REGISTRY.named(name, (stage,))
            for name, assigned in ask.settings.get("methods", {}).items():
                check_settings(name, assigned)
            if "repair" in ask.settings:
                check_settings(ask.settings["repair"], ask.settings["settings"])


@every_table
def test_its_architectures_and_attacks_exist(table):
    for scale in SCALES:
        for ask in asked(table.name, scale):
            assert ask.plan.arch in ARCHITECTURES
            if ask.plan.attack is not None:
                find(ask.plan.attack)(**ask.plan.options)


@every_table
def test_larger_scales_take_more(table):
    tiny, small, paper = (len(asked(table.name, scale)) for scale in SCALES)
    assert 1 <= tiny <= small <= paper
    assert cost(table, SCALES["tiny"])[1] == tiny


def test_tiny_is_one_small_network():
    plans = {ask.plan.digest: ask.plan for table in TABLES for ask in asked(table, "tiny")}
    assert {plan.arch for plan in plans.values()} <= {"N_SN", "N_SN_BN", "FC1", "MNIST_2CONV"}
    assert max(plan.data.train for plan in plans.values()) <= 1000
    assert len(plans) < 50
