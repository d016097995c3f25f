"""The numbers of a bench, against scikit-learn and hand-made cases."""

import io
from dataclasses import asdict

import numpy as np
import pytest
from agnes_zoo.bench.scans import Scan
from agnes_zoo.scoring import detection, metrics, plots, repairs, tables
from agnes_zoo.scoring.repairs import RepairRow
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve

from agnes.intervals import wilson


def cases(count=30):
    rng = np.random.default_rng(0)
    for _ in range(count):
        truth = rng.permutation([True, False, *rng.integers(0, 2, rng.integers(0, 40)).astype(bool)])
        yield rng.integers(0, 9, len(truth)) / 8, truth  # many ties


def test_auc_and_brier_are_those_of_scikit_learn_with_ties():
    for scores, truth in cases():
        assert metrics.auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))
        assert metrics.brier(scores, truth) == pytest.approx(brier_score_loss(truth, scores))


def test_the_roc_is_that_of_scikit_learn_with_every_threshold():
    for scores, truth in cases():
        fpr, tpr = metrics.roc(scores, truth)
        wanted = roc_curve(truth, scores, drop_intermediate=False)
        assert np.allclose(fpr, wanted[0])
        assert np.allclose(tpr, wanted[1])


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=25))
def test_auc_is_the_share_of_pairs_in_the_right_order(pairs):
    trojaned = [score for score, positive in pairs if positive]
    clean = [score for score, positive in pairs if not positive]
    found = metrics.auc(np.array([s for s, _ in pairs], float), np.array([p for _, p in pairs]))
    if not trojaned or not clean:
        assert found is None
        return
    wins = [(a > b) + 0.5 * (a == b) for a in trojaned for b in clean]
    assert found == pytest.approx(sum(wins) / len(wins))


def test_equal_values_share_the_mean_of_their_ranks():
    assert metrics.midranks(np.array([3.0, 1.0, 3.0, 2.0, 3.0])).tolist() == [4, 1, 4, 2, 4]


def test_the_true_positive_rate_is_the_best_that_the_false_ones_allow():
    truth = np.array([True] * 4 + [False] * 20)
    scores = np.array([0.9, 0.8, 0.5, 0.1, 0.85, 0.5, *[0.0] * 18])
    assert metrics.tpr_at(scores, truth, 0.0) == 0.25  # only 0.9 lies above every clean one
    assert metrics.tpr_at(scores, truth, 0.05) == 0.5  # one of twenty may be wrong; 0.5 would make two
    assert metrics.tpr_at(scores, truth, 1.0) == 1.0
    assert metrics.tpr_at(np.zeros(24), truth, 0.05) == 0.0
    assert metrics.tpr_at(scores, np.ones(24, dtype=bool), 0.05) is None


def test_the_calibration_error_is_the_one_counted_by_hand():
    scores = np.array([0.05, 0.15, 0.15, 0.95, 1.0, 0.95])
    truth = np.array([False, False, True, True, True, False])
    # bins: 0.05 against 0, one model; 0.15 against 1/2, two; 2.9/3 against 2/3, three
    assert metrics.calibration_error(scores, truth) == pytest.approx((0.05 + 2 * 0.35 + 3 * (2.9 / 3 - 2 / 3)) / 6)
    assert [count for _, _, count in metrics.calibration(scores, truth)] == [1, 2, 3]
    assert metrics.calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0
    assert metrics.calibration_error(np.zeros(0), np.zeros(0, bool)) is None


def test_the_reliability_of_each_bin_is_that_of_scikit_learn():
    rng = np.random.default_rng(3)
    for count in (3, 40, 300):
        scores, truth = rng.random(count), rng.random(count) < 0.4
        shares, means = calibration_curve(truth, scores, n_bins=10)
        found = metrics.calibration(scores, truth)
        assert [share for _, share, _ in found] == pytest.approx(shares.tolist())
        assert [mean for mean, _, _ in found] == pytest.approx(means.tolist())
        assert sum(held for _, _, held in found) == count


def test_an_interval_holds_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        values = rng.normal(0, 1, 40)
        low, high = metrics.interval(lambda i, v=values: float(v[i].mean()), np.zeros(40), rounds=300)
        held += low <= 0 <= high
    assert 86 <= held <= 100


def test_an_interval_keeps_the_strata_and_the_seed():
    truth = np.array([True] * 3 + [False] * 7)
    seen = []

    def measure(chosen):
        seen.append(int(truth[chosen].sum()))
        return float(chosen.sum())

    first = metrics.interval(measure, truth, rounds=50, seed=4)
    assert set(seen) == {3}
    assert metrics.interval(measure, truth, rounds=50, seed=4) == first
    assert metrics.interval(measure, truth, rounds=50, seed=5) != first


@pytest.mark.parametrize(
    ("scores", "truth", "wanted"),
    [
        ([0.5], [True], None),
        ([], [], None),
        ([0.1, 0.9], [False, True], (1.0, 1.0)),
        ([0.5, 0.5, 0.5], [False, True, True], (0.5, 0.5)),
    ],
)
def test_degenerate_zoos_have_degenerate_intervals_or_none(scores, truth, wanted):
    scores, truth = np.array(scores, float), np.array(truth, bool)
    assert metrics.interval(lambda i: metrics.auc(scores[i], truth[i]), truth, rounds=20) == wanted


MODELS = {
    "model-0001": {"arch": "A", "data": "d", "attack": None, "targets": []},
    "model-0002": {"arch": "A", "data": "d", "attack": "patch", "targets": [3]},
    "model-0003": {"arch": "B", "data": "d", "attack": "blended", "targets": [1]},
    "model-0004": {"arch": "B", "data": "d", "attack": None, "targets": []},
}
SCANS = [
    Scan("model-0001", "clean", 0.2, (), 10.0, 2**20),
    Scan("model-0002", "backdoored", 0.9, (3, 4), 20.0, 2**21),
    Scan("model-0003", "inconclusive", 0.6, (2,), 30.0, None),
    Scan("model-0004", "failed", reason="exit code 2: no"),
]


def test_a_bench_says_what_was_called_what():
    found = detection.summary(detection.rows(MODELS, SCANS), rounds=50)
    values = {name: m["value"] for name, m in found["measures"].items()}
    assert (found["clean"], found["trojaned"], found["failed"], found["without_probability"]) == (2, 2, 1, 1)
    assert found["inconclusive"] == 1
    assert values["auc"] == 1.0
    assert values["target_accuracy"] == 0.5
    assert values["called_backdoored_of_trojaned"] == 0.5
    assert values["called_backdoored_of_clean"] == 0.0
    assert values["brier"] == pytest.approx((0.2**2 + 0.1**2 + 0.4**2 + 0.5**2) / 4)
    assert found["seconds"] == {"median": 20.0, "most": 30.0, "sum": 60.0}
    assert found["memory_mib"]["most"] == 2.0
    kinds = {kind["name"]: kind for kind in found["by_attack"]}
    assert kinds["patch"]["auc"] == 1.0
    assert kinds["patch"]["target_accuracy"] == 1.0
    assert kinds["clean"]["auc"] is None
    assert kinds["clean"]["failed"] == 1
    assert kinds["blended"]["inconclusive"] == 1


def test_each_kind_has_intervals_of_its_own():
    probabilities = {"c1": 0.1, "c2": 0.5, "c3": 0.7, "p1": 0.6, "p2": 0.9, "b1": 0.95}
    attacks = {"c": None, "p": "patch", "b": "blended"}
    models = {name: {"arch": "A", "data": "d", "attack": attacks[name[0]], "targets": [0]} for name in probabilities}
    scans = [Scan(name, "backdoored" if p >= 0.7 else "clean", p, (0,)) for name, p in probabilities.items()]
    kinds = {kind["name"]: kind for kind in detection.summary(detection.rows(models, scans), rounds=500)["by_attack"]}
    assert kinds["patch"]["auc"] == pytest.approx(5 / 6)
    low, high = kinds["patch"]["auc_interval"]  # of 108 draws one has an AUC of 0, six one of a third
    assert (low, high) == (pytest.approx(1 / 3), 1.0)
    assert kinds["blended"]["auc_interval"] == (1.0, 1.0)
    assert kinds["clean"]["auc_interval"] is None
    assert kinds["clean"]["called_interval"] == wilson(1 / 3, 3)
    assert "| patch | 2 | 2 | 1 | 0.095 to 0.905 |" in tables.kinds("attack", list(kinds.values()))


def test_a_model_on_which_nothing_was_said_counts_as_undecided_and_never_as_clean():
    rows = detection.rows(MODELS, SCANS)
    assert rows[3].probability == 0.5
    assert rows[3].as_json()["verdict"] == "failed"
    assert rows[3].as_json()["probability"] is None


def test_tables_and_rows_hold_every_model_and_measure():
    rows = detection.rows(MODELS, SCANS)
    found = detection.summary(rows, rounds=20)
    text = tables.detection(found, "zoo", "scanned")
    for word in ("AUC", "TPR at 5 % FPR", "expected calibration error", "| patch | 1 | 1 | 1 |"):
        assert word in text
    assert "1 verdicts are inconclusive, 1 scans failed; 1 models have no probability and count as 0.5." in text
    assert "Seconds a model: median 20, most 30. Peak memory, MiB: median 1.500, most 2.000." in text
    lines = tables.as_csv([row.as_json() for row in rows]).splitlines()
    assert lines[0].startswith("model,arch,data,attack,trojaned")
    assert lines[2] == "model-0002,A,d,patch,True,3,backdoored,0.9,3,True,20.0,2,"


def test_what_a_file_of_scores_leaves_out_is_not_known():
    scans = [Scan(name, "clean", 0.2) for name in MODELS]
    text = tables.detection(detection.summary(detection.rows(MODELS, scans), rounds=5), "zoo", "scores from a.csv")
    assert "Seconds a model: not known. Peak memory, MiB: not known." in text


def repaired(model, attack, repaired, after, asr=1.0, asr_after=None):
    kept = asr if asr_after is None else asr_after
    success = (None, None) if attack is None else (asr, kept)
    return RepairRow(model, "A", "d", attack, "backdoored", repaired, 0.9, after, *success)


def test_a_bench_of_repair_counts_what_was_not_repaired_as_it_was():
    rows = [
        repaired("1", "patch", True, 0.8, asr_after=0.05),
        repaired("2", "patch", False, 0.9),
        repaired("3", None, True, 0.7),
    ]
    found = repairs.summary(rows, rounds=20)
    assert (found["repaired"], found["repaired_of_trojaned"]) == (2, 1)
    everyone, mended, clean = (found[name] for name in ("all_trojaned", "repaired_trojaned", "clean"))
    assert everyone["asr_after"]["value"] == pytest.approx(0.525)
    assert everyone["removed"]["value"] == 0.5
    assert everyone["accuracy_lost"]["value"] == pytest.approx(0.05)
    assert mended["asr_after"]["value"] == pytest.approx(0.05)
    assert clean["accuracy_lost"]["value"] == pytest.approx(0.2)
    assert clean["asr_before"] == {"value": None, "interval": None}
    assert found["by_attack"][0]["models"] == 2
    assert "| true ASR after | 0.525 |" in tables.repair(found, "zoo")


def test_a_bench_of_repair_without_a_repair_has_no_figures_for_it():
    found = repairs.summary([repaired("1", "patch", False, 0.9)], rounds=20)
    assert found["repaired_trojaned"]["accuracy_after"]["value"] is None
    assert found["all_trojaned"]["removed"]["value"] == 0.0


@pytest.mark.parametrize("truth", [[True, False, True, False], [True, True, True, True]])
def test_the_plot_is_a_picture_whatever_the_zoo(truth):
    scores, truth = np.array([0.9, 0.1, 0.4, 0.5]), np.array(truth)
    with Image.open(io.BytesIO(plots.picture(scores, truth, metrics.auc(scores, truth)))) as found:
        assert found.size == (1080, 540)
        assert len(found.convert("L").getcolors(256) or [1] * 256) > 20


def row_of(attack, lost, left, rescan, **other):
    return RepairRow("m", "A", "d", attack, "backdoored", True, 0.9, 0.9 - lost, 1.0, left, 1.0, "", rescan, **other)


@pytest.mark.parametrize(
    ("lost", "left", "rescan", "reached", "dishonest"),
    [
        (0.019, 0.049, "clean", True, False),
        (0.019, 0.05, "clean", False, False),
        (0.021, 0.0, "clean", False, False),
        (0.0, 0.21, "clean", False, True),
        (0.0, 0.21, "inconclusive", False, False),
        (0.0, 0.2, "clean", False, False),
        (-0.01, 0.0, None, True, False),
    ],
)
def test_the_bar_and_honesty_of_one_repair(lost, left, rescan, reached, dishonest):
    row = row_of("patch", lost, left, rescan)
    assert (row.reaches_bar, row.dishonest) == (reached, dishonest)


def test_two_points_lost_are_two_points_in_single_precision_too():
    before, after = (float(np.float32(share)) for share in (0.975, 0.955))
    assert before - after > repairs.LOST
    assert RepairRow("m", "A", "d", "patch", "", True, before, after, 1.0, 0.0).reaches_bar


def test_false_success_is_counted_among_the_successes_that_were_reported():
    rows = [row_of("patch", 0, 0.0, "clean"), row_of("patch", 0, 0.5, "clean"), row_of("line", 0, 1.0, "inconclusive")]
    said = repairs.bar(rows)
    assert (said["reached"]["count"], said["reached"]["of"]) == (1, 3)
    assert (said["dishonest"]["count"], said["dishonest"]["of"]) == (1, 2)
    assert said["dishonest"]["interval"] == wilson(0.5, 2)
    assert repairs.bar([])["reached"]["interval"] is None


@pytest.mark.parametrize(
    ("attack", "options", "kind"),
    [
        ("patch", {}, "patch"),
        ("patch", {"opacity": 0.4}, "transparent patch"),
        ("yellow-patch", {}, "patch"),
        ("red-pixel", {}, "patch"),
        ("long-red-pixel", {}, "line"),
        ("blended", {}, "blended"),
        ("multi-piece", {}, "multi-piece"),
    ],
)
def test_attacks_are_grouped_as_the_bar_names_them(attack, options, kind):
    assert repairs.kind({"attack": attack, "options": options}) == kind


def test_the_report_of_repairs_tells_what_the_bar_is_for_apart_from_all():
    rows = [row_of("patch", 0.01, 0.0, "clean"), row_of("sig", 0.01, 0.9, "inconclusive")]
    written = [{**asdict(row), "method": "default", "trigger": "found", "notes": []} for row in rows]
    text = repairs.report(written)
    assert "| default | found | of the bar | 1 of 1 (21% to 100%) |" in text
    assert "| default | found | all | 1 of 2 (9% to 91%) |" in text
    assert "| sig | m d | A | 90.0% | 89.0% | 100.0% | 90.0% | inconclusive | 1 |" in text
