"""What tables are said to cost: prices by hand, and that nothing has none."""

import json
from dataclasses import replace

import pytest
from agnes_zoo.commands import experimenting
from agnes_zoo.experiments import costing
from agnes_zoo.experiments.catalogue import TABLES
from agnes_zoo.experiments.describing import Models
from agnes_zoo.experiments.running import Ask, asks_of
from agnes_zoo.experiments.scales import SCALES
from agnes_zoo.experiments.store import Answer, Store

TINY, SMALL, PAPER = SCALES.values()
TABLE = TABLES["retraining-2"]


def found(scale=TINY):
    return {ask.key: ask for ask in asks_of(TABLE, scale, {})}.values()


@pytest.fixture
def prices(monkeypatch):
    """Two milliseconds for an image, and a thousand images for a measurement at the scale `small`."""
    known = {"milliseconds": {"N_SN": 2.0}, "images": {"small": {"training": 1000, "search abs": 3000}}}
    monkeypatch.setattr(costing, "_known", lambda: known)


def test_training_takes_its_images_as_often_as_there_are_epochs(prices):
    plan = SMALL.plan(Models("N_SN"), 0, {})
    assert costing.training_seconds(plan) == pytest.approx(0.002 * plan.data.train * plan.regime.epochs)
    everything = replace(plan, data=replace(plan.data, source="signs", train=None))
    assert costing.images_of(everything.data) == 8600


def test_a_measurement_takes_what_it_took_and_more_where_nothing_was_run(prices):
    plan = SMALL.plan(Models("N_SN"), 0, {})
    ask = Ask(plan, "search", {"search": "abs", "methods": {}})
    assert costing.measuring_seconds(ask, SMALL) == pytest.approx(6.0)
    assert costing.measuring_seconds(ask, PAPER) == pytest.approx(6.0 * costing._ELSE_DEARER)
    assert costing.measuring_seconds(Ask(plan, "training", {}), PAPER) == pytest.approx(20.0)


def test_what_was_not_run_at_a_scale_is_reckoned_from_the_one_below(monkeypatch):
    images = {"tiny": {"a": 10, "b": 30, "c": 7}, "small": {"a": 50, "b": 150}}
    monkeypatch.setattr(costing, "_known", lambda: {"milliseconds": {}, "images": images})
    assert (costing.worth("c", "tiny"), costing.worth("a", "small")) == (7, 50)
    assert costing.worth("c", "small") == pytest.approx(7 * 5)
    assert costing.worth("c", "paper") == pytest.approx(7 * 5 * costing._ELSE_DEARER)


def test_a_kind_is_the_measurement_with_its_methods():
    plan = TINY.plan(Models("N_SN"), 0, {})
    assert costing.kind_of(Ask(plan, "repair", {"search": "abs", "repair": "retrain"})) == "repair abs retrain"
    assert costing.kind_of(Ask(plan, "search", {"search": "abs", "inputs": "inverted"})) == "search abs inverted"


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_every_table_has_a_price_that_grows_with_the_scale(table):
    tiny, small, paper = (costing.minutes([table], scale) for scale in SCALES.values())
    assert 0 < tiny <= small < paper


def test_what_tables_share_is_paid_once():
    one, other = TABLES["retraining-4"], TABLES["retraining-6"]
    apart = costing.minutes([one], SMALL)
    assert costing.minutes([one, other], SMALL) == pytest.approx(apart)
    assert costing.minutes(TABLES.values(), SMALL) < sum(costing.minutes([table], SMALL) for table in TABLES.values())


def test_all_of_tiny_takes_less_than_a_quarter_of_an_hour_of_two_cores():
    assert costing.minutes(TABLES.values(), TINY) < 2 * 15


def test_prices_are_read_from_what_was_run(tmp_path, monkeypatch):
    monkeypatch.setattr(costing, "timed", lambda arch: 4.0)
    monkeypatch.setattr(costing, "TABLES", {TABLE.name: TABLE})
    for ask, seconds in zip(found(), (1.0, 3.0), strict=True):
        Store(tmp_path).keep(ask.key, Answer({}, seconds=seconds))
    prices = costing.measured([tmp_path / "none", tmp_path])
    assert prices["images"] == {"tiny": {"training": 500}}
    assert prices["milliseconds"]["N_SN"] == 4.0


def test_the_list_shows_the_minutes_of_every_table_at_every_scale():
    listed = json.loads(experimenting.listed(as_json=True))
    for each in listed["tables"]:
        for name, scale in SCALES.items():
            assert each["cost"][name]["minutes"] == pytest.approx(
                costing.minutes([TABLES[each["name"]]], scale), abs=0.06
            )
    lines = {line.split()[0]: line for line in experimenting.listed(as_json=False).splitlines()}
    minutes = listed["tables"][0]["cost"]["small"]["minutes"]
    assert experimenting._said(minutes) in lines["agnes-1"].split()
    assert experimenting._said(listed["scales"]["paper"]["minutes"]) in lines["all"].split()


def test_an_architecture_is_timed_by_training_it():
    assert 0 < costing.timed("MNIST_2CONV") < 100
