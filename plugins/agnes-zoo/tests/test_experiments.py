"""Running a table: what is asked, kept, made of it and written."""

import csv
import io
import json
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from agnes_zoo.dealing import DataPlan
from agnes_zoo.experiments import measuring, plotting, running, writing
from agnes_zoo.experiments.describing import Column, Models, Probe, Row, Table, means, share_successful, typed
from agnes_zoo.experiments.scales import SCALES, Scale, sources_of
from agnes_zoo.experiments.store import Answer, Store, key_of
from agnes_zoo.experiments.ten import ten_of
from agnes_zoo.training import Regime
from PIL import Image

from agnes.errors import AgnesError

SCALE = Scale(
    "toy",
    "for tests",
    {"signs": DataPlan("signs10", 7, train=60, samples=1, test=1, held_out=2)},
    Regime(epochs=1),
    count=3,
    epochs=0.5,
    costs={"abs": {"samples": 2}},
)
TABLE = Table(
    "toy-1",
    "Toys, Table 1",
    "numbers of seeds",
    (Row("one", Models("N_SN_BN")), Row("two", Models("N_SN", "patch"))),
    (
        Column("seed", "fake", "seed"),
        Column("the most", "fake", "seed", pooled="most"),
        Column("the least", "fake", "seed", pooled="least"),
        Column("twice, over seed", "fake", "twice", over="seed"),
        Column("nothing", "fake", "missing"),
    ),
    {"fake": Probe("fake", {"step": 1})},
    typed("""
        one: 5 - 0.5 20 1/4
        two: 2 50% - 8 -
    """),
    count=3,
)


@pytest.fixture
def asked(monkeypatch):
    """Every network that a fake measurement was made of, by its seed's last digits; nothing is trained."""
    seen = []

    def fake(subject, step):
        number = subject.plan.seed % 10 + step
        seen.append((subject.plan.arch, number))
        return Answer({"seed": float(number), "twice": 2.0 * number, "missing": None})

    monkeypatch.setitem(measuring.MEASURES, "fake", fake)
    monkeypatch.setattr(
        running.Subject, "of", classmethod(lambda cls, plan, *rest: SimpleNamespace(plan=plan, clock=time.process_time))
    )
    return seen


def figure(outcome, row, column):
    return next(f for f in outcome.figures if (f.row, f.column) == (row, column))


def test_each_network_is_asked_once_however_many_columns_want_to_know(asked, tmp_path):
    running.run(TABLE, SCALE, tmp_path)
    assert sorted(asked) == [(arch, number) for arch in ("N_SN", "N_SN_BN") for number in (1, 2, 3)]


def test_figures_are_pooled_as_the_column_says(asked, tmp_path):
    outcome = running.run(TABLE, SCALE, tmp_path)
    assert figure(outcome, "one", "seed").value == 2.0
    assert figure(outcome, "one", "seed").values == (1.0, 2.0, 3.0)
    assert figure(outcome, "one", "the most").value == 3.0
    assert figure(outcome, "one", "the least").value == 1.0
    assert figure(outcome, "one", "nothing").value is None
    low, high = figure(outcome, "one", "seed").interval
    assert 1.0 <= low < 2.0 < high <= 3.0
    assert outcome.networks == 6


def test_a_ratio_divides_ours_by_ours_and_the_papers_by_the_papers(asked, tmp_path):
    found = figure(running.run(TABLE, SCALE, tmp_path), "one", "twice, over seed")
    assert (found.value, found.paper) == (2.0, 4.0)


def test_what_was_measured_is_not_measured_again(asked, tmp_path):
    first = running.run(TABLE, SCALE, tmp_path)
    asked.clear()
    assert running.run(TABLE, SCALE, tmp_path).figures == first.figures
    assert asked == []


def test_other_settings_are_another_question(asked, tmp_path):
    running.run(TABLE, SCALE, tmp_path)
    asked.clear()
    running.run(replace(TABLE, probes={"fake": Probe("fake", {"step": 2})}), SCALE, tmp_path)
    assert len(asked) == 6


def test_tables_share_networks_and_answers(asked, tmp_path):
    running.run(TABLE, SCALE, tmp_path)
    asked.clear()
    running.run(replace(TABLE, name="toy-2", rows=TABLE.rows[:1], columns=TABLE.columns[:1]), SCALE, tmp_path)
    assert asked == []


def test_an_interrupted_table_goes_on_where_it_was(asked, tmp_path, monkeypatch):
    def stop(line, done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        running.run(TABLE, SCALE, tmp_path, tell=stop)
    assert len(asked) == 2
    running.run(TABLE, SCALE, tmp_path)
    assert len(asked) == 6


def test_a_measurement_that_fails_is_told_and_tried_again(asked, tmp_path, monkeypatch):
    def fails(subject, step):
        raise AgnesError("no such luck")

    with monkeypatch.context() as patch:
        patch.setitem(measuring.MEASURES, "fake", fails)
        outcome = running.run(TABLE, SCALE, tmp_path)
    assert figure(outcome, "one", "seed").failed == ("no such luck",)
    text = writing.markdown(outcome, "agnes bench toy-1")
    assert "| one | – (5) |" in text
    assert "Not measured: no such luck" in text
    assert figure(running.run(TABLE, SCALE, tmp_path), "one", "seed").value == 2.0


def test_ours_stand_beside_the_papers(asked, tmp_path):
    text = writing.write(running.run(TABLE, SCALE, tmp_path / "store"), tmp_path / "out", "agnes bench toy-1", {})
    assert "# Toys, Table 1: numbers of seeds" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| two |")]
    assert line.startswith("| two | 2, ")
    assert line.endswith(" (4) | – |")
    assert "| 3 (0.50) | 1 |" in line
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "results.csv").read_text())))
    assert [row["value"] for row in rows if row["row"] == "one" and row["column"] == "seed"] == ["1.0", "2.0", "3.0"]
    assert {row["paper"] for row in rows if row["row"] == "two" and row["column"] == "the most"} == {"0.5"}
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (document["table"], document["scale"], document["networks"]) == ("toy-1", "toy", 6)
    with Image.open(tmp_path / "out" / "plot.png") as picture:
        assert picture.size[0] > 100


def test_a_network_that_stands_for_the_papers_is_named(asked, tmp_path):
    text = writing.markdown(
        running.run(TABLE, replace(SCALE, one={"N_SN_BN": "ResNet8"}), tmp_path), "agnes bench toy-1"
    )
    assert "In the place of the paper's networks: ResNet8 for N_SN_BN." in text
    assert "In the place" not in writing.markdown(running.run(TABLE, SCALE, tmp_path), "agnes bench toy-1")


def test_networks_are_asked_at_once_what_later_tables_ask_of_them(asked, tmp_path):
    later = replace(TABLE, name="toy-2", rows=TABLE.rows[1:], probes={"fake": Probe("fake", {"step": 2})})
    running.run(replace(TABLE, rows=TABLE.rows[1:]), SCALE, tmp_path, later=[later])
    assert sorted(asked) == [("N_SN", number) for number in (1, 2, 2, 3, 3, 4)]
    asked.clear()
    running.run(later, SCALE, tmp_path)
    assert asked == []


def test_settings_of_methods_that_a_measurement_does_not_run_are_left_out(tmp_path):
    scale = replace(SCALE, costs={"abs": {"samples": 2}, "retrain": {"steps": 3}})
    settings = {"search": "abs", "methods": {}}
    assert running._settings(Probe("search", settings), {}, scale)["methods"] == {"abs": {"samples": 2}}
    assert set(running._settings(Probe("retraining", settings), {}, scale)["methods"]) == {"abs", "retrain"}
    repaired = running._settings(Probe("repair", {**settings, "repair": "retrain"}), {}, scale)
    assert set(repaired["methods"]) == {"abs", "retrain"}


@pytest.mark.parametrize(
    ("kind", "name", "array"),
    [
        ("dots", "points", np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)),
        ("heat", "matrix", np.arange(100).reshape(10, 10)),
        ("pictures", "images", np.zeros((3, 8, 8, 3), np.uint8)),
        ("pictures", "images", np.zeros((3, 8, 8, 1), np.uint8)),
        ("bars", "points", np.zeros((2, 2))),
    ],
)
def test_every_plot_is_a_picture(asked, tmp_path, kind, name, array):
    outcome = running.run(replace(TABLE, plot=kind), SCALE, tmp_path)
    with_arrays = replace(outcome, arrays={("one, or so", "fake"): {name: array}})
    for each in (outcome, with_arrays):
        assert Image.open(io.BytesIO(plotting.plot(each))).format == "PNG"


def test_a_plot_shows_the_network_that_has_the_most_to_show(asked, tmp_path, monkeypatch):
    def pictures(subject, step):
        count = {1: 0, 2: 3, 3: 3}[subject.plan.seed % 10 + step]
        images = np.full((count, 8, 8, 3), subject.plan.seed % 10 + step, np.uint8)
        return Answer({"seed": 1.0, "twice": 1.0, "missing": None}, {"images": images} if count else {})

    monkeypatch.setitem(measuring.MEASURES, "fake", pictures)
    outcome = running.run(TABLE, SCALE, tmp_path)
    assert {int(arrays["images"].mean()) for arrays in outcome.arrays.values()} == {2}


def test_a_small_share_is_a_short_bar_and_the_largest_of_other_numbers_the_longest(asked, tmp_path):
    outcome = running.run(TABLE, SCALE, tmp_path)

    def lengths(*values):
        figures = tuple(replace(outcome.figures[0], value=value, paper=None) for value in values)
        with Image.open(io.BytesIO(plotting.plot(replace(outcome, figures=figures)))) as picture:
            ours = (np.asarray(picture.convert("RGB")) == plotting._OURS).all(2)[60:]
        return [int(row.sum()) for row in ours[4::22][: len(values)]]

    share, whole = lengths(0.01, 1.0)
    assert whole == pytest.approx(100 * share, rel=0.3)
    (alone,) = lengths(0.5)
    assert alone == pytest.approx(whole / 2, abs=2)
    few, many = lengths(3.0, 60.0)
    assert (many, few) == (whole, pytest.approx(whole / 20, abs=2))


def test_long_numbers_end_within_the_picture_and_a_loss_below_zero_is_a_hollow_bar(asked, tmp_path):
    outcome = running.run(TABLE, SCALE, tmp_path)

    def drawn(value, paper):
        figures = (replace(outcome.figures[0], value=value, paper=paper),)
        with Image.open(io.BytesIO(plotting.plot(replace(outcome, figures=figures)))) as picture:
            return np.asarray(picture.convert("RGB"))

    assert (drawn(3_072_155.0, 28_521_700.0)[60:, -5:] == 255).all()
    gain, loss = ((drawn(value, None) == plotting._OURS).all(2)[60:] for value in (0.5, -0.5))
    assert np.array_equal(gain.any(1), loss.any(1))
    assert np.array_equal(gain[:1], loss[:1])
    assert loss[4].sum() == 2
    assert gain[4].sum() > 2


def test_rows_whose_names_begin_alike_have_panels_of_their_own(asked, tmp_path):
    outcome = running.run(replace(TABLE, plot="dots"), SCALE, tmp_path)
    points = {"points": np.zeros((4, 2), np.float32)}
    one = plotting.plot(replace(outcome, arrays={("patch, Large", "fake"): points}))
    two = plotting.plot(replace(outcome, arrays={("patch, Large", "fake"): points, ("patch, Small", "fake"): points}))
    with Image.open(io.BytesIO(one)) as narrow, Image.open(io.BytesIO(two)) as wide:
        assert wide.size[0] > narrow.size[0]


def test_arrays_are_kept_with_their_answer(tmp_path):
    store, array = Store(tmp_path), np.arange(6).reshape(2, 3)
    store.keep("key", Answer({"x": 1.0, "y": None}, {"matrix": array}))
    found = store.answer("key")
    assert found is not None
    assert found.values == {"x": 1.0, "y": None}
    assert np.array_equal(found.arrays["matrix"], array)
    assert store.answer("other") is None
    (tmp_path / "answers" / "key.npz").unlink()
    assert store.answer("key") is None


def test_the_same_question_has_the_same_key():
    plan = SCALE.plan(Models("N_SN"), 0, {})
    assert key_of(plan, "search", {"a": (1, 2)}) == key_of(plan, "search", {"a": [1, 2]})
    assert key_of(plan, "search", {}) != key_of(SCALE.plan(Models("N_SN"), 1, {}), "search", {})


def test_networks_of_a_kind_take_attacks_in_turn():
    models = Models("NiN", turns=(("patch", {"rate": 0.2}), ("blended", {})))
    plans = [SCALE.plan(models, number, {}) for number in range(3)]
    assert [plan.attack for plan in plans] == ["patch", "blended", "patch"]
    assert plans[0].options == {"target": 4, "rate": 0.2}
    assert len({plan.seed for plan in plans}) == 3


def test_a_clean_twin_differs_in_nothing_but_the_attack():
    attacked, clean = (SCALE.plan(Models("N_SN", attack), 0, {}) for attack in ("patch", None))
    assert replace(attacked, attack=None, options={}) == clean


def test_a_scale_has_its_share_of_the_papers_epochs_and_never_none():
    assert [SCALE.plan(Models("N_SN", epochs=e), 0, {}).regime.epochs for e in (50, 1)] == [25, 1]
    assert SCALE.plan(Models("N_SN"), 0, {}).regime.epochs == 1
    assert SCALE.plan(Models("N_SN", training={"learning_rate": 1e-4}), 0, {}).regime.learning_rate == 1e-4


def test_what_learns_slower_has_more_epochs_unless_the_paper_says_how_many():
    scale = replace(SCALE, longer={"N_SN": 4, "N_SN_BN patch": 6}, one={"N_MN": "N_SN"})
    kinds = Models("N_SN"), Models("N_MN"), Models("N_SN_BN"), Models("N_SN_BN", "patch")
    assert [scale.plan(models, 0, {}).regime.epochs for models in kinds] == [4, 4, 1, 6]
    assert scale.plan(Models("N_SN", epochs=10), 0, {}).regime.epochs == 5


def test_a_table_has_the_papers_networks_up_to_the_scales_number():
    row, column = TABLE.rows[0], TABLE.columns[0]
    assert [TABLE.networks(most, row, column) for most in (1, 9)] == [1, TABLE.count]
    assert TABLE.networks(9, row, replace(column, count=2)) == 2


def test_the_user_says_how_many_networks_there_are_of_each_kind(asked, tmp_path):
    outcome = running.run(TABLE, replace(SCALE, networks=5), tmp_path)
    assert sorted(asked) == [(arch, number) for arch in ("N_SN", "N_SN_BN") for number in (1, 2, 3, 4, 5)]
    assert figure(outcome, "one", "seed").values == (1.0, 2.0, 3.0, 4.0, 5.0)


def test_the_stop_sign_is_the_target_wherever_there_is_one():
    ten, all_signs = (SCALE.plan(Models("N_SN", "patch"), 0, {"all": name}) for name in ("signs10", "signs"))
    assert (ten.options["target"], all_signs.options["target"]) == (4, 14)


def test_data_take_the_place_of_all_or_of_some():
    scale = SCALES["tiny"]
    some = sources_of(["grey=signs-grey"])
    assert scale.plan(Models("N_SN", data="grey"), 0, some).data.source == "signs-grey"
    assert scale.plan(Models("N_SN"), 0, some).data.source == "signs10"
    assert scale.plan(Models("N_SN"), 0, sources_of(["signs"])).data.source == "signs"
    assert sources_of(["a=b.npz"]) == {"all": "a=b.npz"}


def test_a_scales_costs_bound_what_a_table_asks(tmp_path):
    probe = Probe("search", {"search": "abs", "methods": {"abs": {"samples": 99, "top": 20}}})
    settings = running._settings(probe, {}, SCALE)
    assert settings["methods"] == {"abs": {"samples": 2, "top": 20}}
    assert probe.settings["methods"]["abs"]["samples"] == 99


def test_the_papers_figures_are_read_as_they_stand():
    assert typed("a, b: 93% 7/25 - -0.5") == {"a, b": (0.93, 0.28, None, -0.5)}
    assert means("1 2\n3 4") == (2.0, 3.0)
    assert share_successful("0.9 0.8 0.1 1 0.1 0.9\n0.9 0.5 0.4 1 0 1") == 0.5


def test_side_by_side_gives_what_one_after_another_gives(tmp_path):
    table = replace(
        TABLE,
        rows=TABLE.rows[:1],
        columns=(Column("accuracy", "trained", "accuracy"),),
        probes={"trained": Probe("training")},
        count=2,
    )
    alone = running.run(table, SCALE, tmp_path / "one", jobs=1)
    together = running.run(table, SCALE, tmp_path / "two", jobs=2)
    assert alone.figures == together.figures
    assert len(alone.figures[0].values) == 2


def test_ten_signs_of_all_keep_their_images_and_the_stop_sign_its_place():
    labels = np.array([14, 0, 39, 1, 42], dtype=np.int16)
    found = {f"{part}_labels": labels for part in ("train", "test")}
    found |= {f"{part}_images": np.arange(5)[:, None] for part in ("train", "test")}
    chosen = ten_of(found, moved=0)
    assert chosen["test_labels"].tolist() == [4, 9, 0]
    assert chosen["train_images"].tolist() == [[0], [2], [3]]


def test_the_first_training_signs_go_before_the_tests():
    found = {"train_labels": np.array([14, 1, 14, 14]), "train_images": np.arange(4)}
    found |= {"test_labels": np.array([1, 14]), "test_images": np.arange(10, 12)}
    chosen = ten_of(found, moved=1)
    assert chosen["train_images"].tolist() == [2, 3]
    assert chosen["test_images"].tolist() == [0, 1, 10, 11]
    assert chosen["test_labels"].tolist() == [4, 0, 0, 4]


def test_a_repair_has_more_images_to_learn_from():
    plain, repaired = (SCALE.plan(Models("N_SN", repaired=more), 0, {}).data for more in (False, True))
    assert (plain.test, repaired.test) == (1, SCALE.lessons)
    assert replace(repaired, test=plain.test) == plain
