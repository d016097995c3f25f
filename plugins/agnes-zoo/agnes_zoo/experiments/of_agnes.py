"""The tables of AGNES (Dhonthi, Hahn and Hashemi 2024)."""

from __future__ import annotations

from agnes_zoo.experiments.describing import Column, Models, Probe, Row, Table, typed

_TRAINED = Probe("training")
_KMEANS = {"kmeans": {"images": 5000, "clustering_rate": 0.1}}  # section 5.1: 5000 images, 10 %
_DENSE, _OTHERS = ("FC1", "FC2", "FC3"), ("NN1", "LeNet", "AlexNet", "VGG")


def _row(name: str) -> Row:
    """AbsSM for networks of dense layers alone, AproxSM for the others."""
    ours = {"ours": {"search": "abssm"}} if name in _DENSE else {}
    return Row(name, Models(name, "red-pixel"), ours)


_ROWS = tuple(_row(name) for name in (*_DENSE, *_OTHERS))
_OURS = Probe("search", {"search": "aproxsm", "methods": _KMEANS})
_ABS = Probe("search", {"search": "abs", "methods": {}})
_NC = Probe("search", {"search": "neural-cleanse", "methods": {}})

TABLE_1 = Table(
    "agnes-1",
    "AGNES, Table 1",
    "accuracy and attack success of the trojaned networks",
    tuple(Row(row.name, row.models) for row in _ROWS),
    (
        Column("accuracy", "trained", "accuracy"),
        Column("ASR", "trained", "asr"),
        Column("parameters", "trained", "parameters"),
    ),
    {"trained": _TRAINED},
    typed("""
        FC1: 0.8055 0.9464 3072000
        FC2: 0.8693 0.9997 3987000
        FC3: 0.9371 0.9998 4877000
        NN1: 0.9064 0.9840 80000
        LeNet: 0.9198 0.9792 123000
        AlexNet: 0.9506 0.9864 1264000
        VGG: 0.9453 0.9989 1893000
    """),
    count=10,
    tiny=("FC1", "NN1"),
)
TABLE_2 = Table(
    "agnes-2",
    "AGNES, Table 2",
    "success, backdoors and runtime of AbsSM or AproxSM, ABS and Neural Cleanse",
    _ROWS,
    (
        Column("ASR ours", "ours", "reasr"),
        Column("ASR ABS", "abs", "reasr"),
        Column("ASR NC", "nc", "reasr"),
        Column("backdoors ours", "ours", "backdoors"),
        Column("backdoors ABS", "abs", "backdoors"),
        Column("backdoors NC", "nc", "backdoors"),
        Column("abstraction ours", "ours", "seconds_abstraction", over="search ABS, s"),
        Column("search ours", "ours", "seconds_searching", over="search ABS, s"),
        Column("search ABS, s", "abs", "seconds_searching"),
        Column("search NC", "nc", "seconds_searching", over="search ABS, s"),
        Column("stimulation ABS, s", "abs", "seconds_stimulation"),
        Column("stimulation ours", "ours", "seconds_stimulation", over="stimulation ABS, s"),
        Column("merged", "ours", "merged"),
    ),
    {"ours": _OURS, "abs": _ABS, "nc": _NC},
    typed("""
        FC1: 1.0 1.0 1.0 10 7 1 27 120 301 600 - - 0.35
        FC2: 1.0 1.0 0.94 8 6 1 42 131 175 781 - - 0.45
        FC3: 1.0 1.0 1.0 5 4 1 63 121 211 906 - - 0.50
        NN1: 1.0 1.0 0.31 2 2 0 1684 156 174 2186 - - 0.90
        LeNet: 1.0 1.0 0.98 12 12 2 99 133 134 632 - - 0.90
        AlexNet: 1.0 1.0 0.07 5 2 0 446 234 236 1284 - - 0.90
        VGG: 1.0 0.84 0.84 2 1 1 681 330 342 1412 - - 0.90
    """),
    count=10,
    tiny=("FC1", "LeNet"),
    note="The paper's `Stim` is taken to hold the trigger search, as Neural Cleanse's does; stimulation alone stands "
    "apart. ASR is the best trigger's on held-out images. `merged` is the share of neurons that no representative "
    "is (section 5.1).",
)
_TRIGGERS = {
    "RP(0.2)": ("red-pixel", 0.2),
    "RP(0.4)": ("red-pixel", 0.4),
    "RP(0.6)": ("red-pixel", 0.6),
    "BP(0.2)": ("blue-pixel", 0.2),
    "LRP(0.2)": ("long-red-pixel", 0.2),
}
TABLE_3 = Table(
    "agnes-3",
    "AGNES, Table 3",
    "backdoors found under triggers of other kinds and transparency",
    _ROWS,
    tuple(
        Column(f"{trigger} {who}", probe, "backdoors", {"attack": attack, "options": {"opacity": opacity}})
        for trigger, (attack, opacity) in _TRIGGERS.items()
        for who, probe in (("ours", "ours"), ("ABS", "abs"))
    ),
    {"ours": _OURS, "abs": _ABS},
    typed("""
        FC1: 14 6 12 12 10 8 7 7 3 4
        FC2: 4 3 2 4 13 14 2 2 9 8
        FC3: 5 2 11 4 3 3 1 0 6 5
        NN1: 2 1 1 1 2 0 0 0 2 0
        LeNet: 7 5 9 8 8 6 7 7 6 6
        AlexNet: 2 0 1 1 2 3 6 2 5 3
        VGG: 0 1 1 1 2 1 1 0 1 0
    """),
    count=10,
    tiny=("LeNet",),
    small=("LeNet",),
    note="The number in brackets is the trigger's opacity: the paper calls a lower one more transparent.",
)
_RATES = (10, 20, 30, 40)
TABLE_4 = Table(
    "agnes-4",
    "AGNES, Table 4",
    "AproxSM at other clustering rates",
    tuple(_row(name) for name in _OTHERS),
    (
        Column("clustering 10 %, s", "10", "seconds_abstraction"),
        *(
            Column(f"clustering {rate} %", str(rate), "seconds_abstraction", over="clustering 10 %, s")
            for rate in _RATES[1:]
        ),
        *(Column(f"backdoors {rate} %", str(rate), "backdoors") for rate in _RATES),
    ),
    {
        str(rate): Probe(
            "search", {"search": "aproxsm", "methods": {"kmeans": {"images": 5000, "clustering_rate": rate / 100}}}
        )
        for rate in _RATES
    },
    typed("""
        NN1: 3506 4273 6367 8634 1 1 4 0
        LeNet: 106 194 290 389 7 8 5 9
        AlexNet: 487 1165 1747 2344 2 2 1 1
        VGG: 715 1444 2208 3003 0 1 1 0
    """),
    count=10,
    tiny=("LeNet",),
)
TABLES = (TABLE_1, TABLE_2, TABLE_3, TABLE_4)
