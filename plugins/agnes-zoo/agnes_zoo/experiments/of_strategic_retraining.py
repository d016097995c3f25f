"""The tables and figures of strategic retraining (Dhonthi, Hahn and Hashemi 2023)."""

from __future__ import annotations

from agnes_zoo.experiments.describing import Column, Models, Probe, Row, Table, typed

_BOUND = 0.2  # section 4.1: the REASR bound
_TOP = (43, 35, 25, 15)
_NETWORKS = ("N_SN", "N_MN", "N_LN")
_BENIGN = tuple(Row(name, Models(name, repaired=True)) for name in _NETWORKS)
_TROJANED = tuple(Row(f"{name} troj", Models(name, "yellow-patch", repaired=True)) for name in _NETWORKS)
_ROWS = (*_BENIGN, *_TROJANED)
_FOUND = Probe("search", {"search": "abs", "methods": {}, "bound": _BOUND})
_RETRAINED = {
    f"top {top}": Probe("retraining", {"search": "abs", "methods": {}, "top_p": top, "bound": _BOUND}) for top in _TOP
}
_TINY = ("N_SN troj",)
_SMALL = ("N_SN", "N_SN troj")
_SHARE = "`top_p` is a share of the classes where there are not 43. "

TABLE_2 = Table(
    "retraining-2",
    "Strategic retraining, Table 2",
    "accuracy of the trained networks",
    _ROWS,
    (
        Column("training", "trained", "accuracy_training"),
        Column("validation", "trained", "accuracy_validation"),
        Column("test", "trained", "accuracy"),
        Column("ASR", "trained", "asr"),
    ),
    {"trained": Probe("training")},
    typed("""
        N_SN: 98.80% 91.75% 87.99% -
        N_MN: 99.45% 94.29% 90.10% -
        N_LN: 99.24% 95.35% 91.53% -
        N_SN troj: 99.30% 92.61% 87.93% -
        N_MN troj: 99.55% 93.51% 91.54% -
        N_LN troj: 99.52% 96.44% 91.94% -
    """),
    tiny=("N_SN", "N_SN troj"),
    small=_SMALL,
)
TABLE_3 = Table(
    "retraining-3",
    "Strategic retraining, Table 3",
    "trojan neurons that ABS finds, and their success",
    _ROWS,
    (Column("neurons", "found", "neurons"), Column("ASR", "found", "neurons_asr")),
    {"found": _FOUND},
    typed("""
        N_SN: 1 67.43%
        N_MN: 3 76.46%
        N_LN: 3 70.86%
        N_SN troj: 4 97.69%
        N_MN troj: 3 93.00%
        N_LN troj: 2 80.72%
    """),
    tiny=("N_SN", "N_SN troj"),
    small=_SMALL,
)
TABLE_4 = Table(
    "retraining-4",
    "Strategic retraining, Table 4",
    "trojan neurons and their success after retraining once",
    _ROWS,
    (
        Column("neurons before", "top 15", "neurons_0"),
        *(Column(f"neurons, top {top}", f"top {top}", "neurons_1") for top in _TOP),
        Column("ASR before", "top 15", "success_0"),
        *(Column(f"ASR, top {top}", f"top {top}", "success_1") for top in _TOP),
        Column("true ASR before", "top 15", "true_0"),
        Column("true ASR, top 15", "top 15", "true_1"),
    ),
    _RETRAINED,
    typed("""
        N_SN: 1 1 1 0 0 67.43% 40.60% 35.00% 0% 0% - -
        N_MN: 3 1 2 1 0 76.46% 90.01% 84.67% 64.82% 0% - -
        N_LN: 3 2 1 0 0 70.86% 68.02% 64.02% 0% 0% - -
        N_SN troj: 4 3 3 1 0 97.69% 91.60% 80.27% 62.73% 0% - -
        N_MN troj: 3 2 2 1 1 93.00% 92.74% 64.20% 71.42% 38.30% - -
        N_LN troj: 2 1 1 0 0 80.72% 90.79% 43.05% 0% 0% - -
    """),
    tiny=_TINY,
    small=_SMALL,
    note=_SHARE + "True ASR is the planted trigger's, which the paper does not report.",
)
_AS_PUBLISHED = {"again": 0, "gone": 0.0}  # trained once, and kept whatever came of it
_UNLEARN = {"search": "neural-cleanse", "repair": "unlearn", "settings": _AS_PUBLISHED, "methods": {}, "bound": 0.5}
_STRATEGIC = {"search": "abs", "repair": "retrain", "settings": _AS_PUBLISHED, "methods": {}, "bound": _BOUND}
_PATCH = {"size": 4, "place": (27, 27), "colour": (1.0, 1.0, 1.0)}
_NCN = Models("ABS_LeNet", "patch", _PATCH, repaired=True)
TABLE_5 = Table(
    "retraining-5",
    "Strategic retraining, Table 5",
    "retraining beside Neural Cleanse's unlearning",
    (Row("N_NCN troj", _NCN),),
    (
        Column("accuracy before", "ours", "accuracy_before"),
        Column("ASR before", "ours", "asr_before"),
        Column("accuracy NC", "nc", "accuracy_after"),
        Column("ASR NC", "nc", "asr_after"),
        Column("accuracy ours", "ours", "accuracy_after"),
        Column("ASR ours", "ours", "asr_after"),
    ),
    {"ours": Probe("repair", _STRATEGIC), "nc": Probe("repair", _UNLEARN)},
    typed("N_NCN troj: 97.27% 96.45% 94.25% 19.18% 95.77% 5.38%"),
    note="ASR is the planted trigger's. The network is Neural Cleanse's for GTSRB, a white 4x4 square its trigger.",
)
TABLE_6 = Table(
    "retraining-6",
    "Strategic retraining, Table 6",
    "trojan neurons after each of three rounds",
    _ROWS,
    tuple(
        Column(f"top {top}, round {number}", f"top {top}", f"neurons_{number}") for top in _TOP for number in (1, 2, 3)
    ),
    _RETRAINED,
    typed("""
        N_SN: 1 0 - 1 0 - 0 - - 0 - -
        N_MN: 1 2 1 2 0 - 1 0 - 0 - -
        N_LN: 2 0 - 1 2 0 0 - - 0 - -
        N_SN troj: 3 0 - 3 0 - 1 1 0 0 - -
        N_MN troj: 2 0 - 2 0 - 1 2 0 1 0 -
        N_LN troj: 1 0 - 1 0 - 0 - - 0 - -
    """),
    tiny=_TINY,
    small=_SMALL,
    note=_SHARE + "Once no neuron is left, later rounds repeat the figures; the paper leaves them out.",
)
_PRUNED = (0.4, 0.5, 0.6)
_PRUNE = {"search": "abs", "repair": "weight-prune", "methods": {}, "bound": _BOUND, "rescan": True}
TABLE_7 = Table(
    "retraining-7",
    "Strategic retraining, Table 7",
    "trojan neurons and their success after pruning weights",
    _TROJANED,
    (
        Column("neurons before", "0.5", "neurons_before"),
        *(Column(f"neurons at {rate}", str(rate), "neurons_after") for rate in _PRUNED),
        Column("ASR before", "0.5", "neurons_asr_before"),
        *(Column(f"ASR at {rate}", str(rate), "neurons_asr_after") for rate in _PRUNED),
    ),
    {str(rate): Probe("repair", {**_PRUNE, "settings": {"rate": rate}}) for rate in _PRUNED},
    typed("""
        N_SN troj: 4 4 4 4 97.69% 97.68% 97.68% 97.68%
        N_MN troj: 3 3 3 3 93.00% 80.24% 97.83% 97.83%
        N_LN troj: 2 1 1 1 80.72% 53.07% 53.07% 53.07%
    """),
    small=("N_SN troj",),
)
FIGURE_3 = Table(
    "retraining-fig-3",
    "Strategic retraining, Figure 3",
    "what masked images are taken for",
    (_BENIGN[0], _TROJANED[0]),
    (
        Column("masks", "confusion", "masks"),
        Column("wrong", "confusion", "wrong"),
        Column("of them in the top 15 of 43 classes", "confusion", "in_top"),
        Column("classes with a tenth of them or more", "confusion", "classes"),
    ),
    {"confusion": Probe("confusion", {"search": "abs", "methods": {}, "bound": _BOUND})},
    {"N_SN": (1, None, None, None), "N_SN troj": (4, None, None, None)},
    tiny=("N_SN troj",),
    plot="heat",
    note="The paper shows the matrices and gives no figures but the number of masks.",
)
FIGURE_4 = Table(
    "retraining-fig-4",
    "Strategic retraining, Figure 4",
    "accuracy lost by retraining once",
    _ROWS,
    tuple(Column(f"top {top}", f"top {top}", "lost_1") for top in _TOP),
    _RETRAINED,
    tiny=_TINY,
    small=_SMALL,
    note=_SHARE + "The paper shows bars and gives no figures.",
)
TABLES = (TABLE_2, TABLE_3, TABLE_4, TABLE_5, TABLE_6, TABLE_7, FIGURE_3, FIGURE_4)
