"""The tables and figures of Koldenhof's thesis (2023)."""

from __future__ import annotations

from agnes_zoo.experiments.describing import Column, Models, Probe, Row, Table, means, share_successful, typed

_ARCHITECTURES = {
    "Small": "N_SN",
    "Medium": "N_MN",
    "Large": "N_LN",
    "SmallBN": "N_SN_BN",
    "MediumBN": "N_MN_BN",
    "LargeBN": "N_LN_BN",
    "Resnet-18": "resnet18",
    "VGG11": "vgg11_bn",
}
_ATTACKS = {"patch": "corner-patch", "blended": "blended"}
_FEW = {"Resnet-18": 5, "VGG11": 5}  # section 5.1.3; the others: 25
_SLOW = {"VGG11": {"learning_rate": 1e-4}}  # section 5.1.3


def _models(name: str, attack: str) -> Models:
    return Models(_ARCHITECTURES[name], _ATTACKS[attack], training=_SLOW.get(name, {}), repaired=True)


def _rows(attack: str) -> tuple[Row, ...]:
    return tuple(Row(f"{attack}, {name}", _models(name, attack), count=_FEW.get(name)) for name in _ARCHITECTURES)


_ROWS = (*_rows("patch"), *_rows("blended"))
_SMALL = (
    *("patch, Small", "patch, SmallBN", "patch, MediumBN", "patch, LargeBN", "patch, Resnet-18"),
    *("blended, SmallBN", "blended, MediumBN"),
)
_MASK = {"candidates": 20, "max_mask_size": 32 / 1024}  # table 5.3; section 6.1.3: 32 pixels
_ABS = {"search": "abs", "methods": {"abs": {"top": 20}, "abs-mask": _MASK}}
_NEW = {"search": "two-stage", "methods": {}}
_VALID = {"asr": 0.85, "size": 0.25}  # table 5.2
_PRUNE = {"choose": "all", "layers": "conv", "max_accuracy_drop": 1.0}  # section 4.4: every channel from u_prune on
_RETRAIN = {"top_p": 15, "again": 0, "gone": 0.0}  # trained once, and kept whatever came of it
_REPAIRS = {
    "clp": Probe("repair", {"repair": "clp", "settings": {"u": 3.0}, "methods": {}}),
    "dhonthi": Probe("repair", {"repair": "retrain", "settings": _RETRAIN, "valid": {"asr": 0.85}, **_ABS}),
    "new": Probe("repair", {"repair": "tac-prune", "settings": _PRUNE, "valid": _VALID, **_NEW}),
}
_METHODS = {"CLP": "clp", "Dhonthi": "dhonthi", "new": "new"}
_SMALL_NOTE = "The scale `small` has half of the rows; VGG11 has 129 million parameters."

TABLE_5_4 = Table(
    "koldenhof-5.4",
    "Koldenhof, Table 5.4",
    "accuracy and attack success before and after CLP, the method of Dhonthi et al. and the thesis's",
    _ROWS,
    (
        Column("accuracy", "clp", "accuracy_before"),
        Column("ASR", "clp", "asr_before"),
        *(
            Column(f"{name}: {what}", probe, metric)
            for name, probe in _METHODS.items()
            for what, metric in (
                ("accuracy lost", "accuracy_lost"),
                ("ASR lost", "asr_lost"),
                ("successful", "successful"),
            )
        ),
    ),
    _REPAIRS,
    typed("""
        patch, Small: 0.84 0.99 0.00 0.00 0/25 0.00 0.27 7/25 0.37 0.24 0/25
        patch, Medium: 0.89 1.00 0.05 0.00 0/25 0.22 0.13 1/25 0.11 0.11 0/25
        patch, Large: 0.92 1.00 0.08 0.00 0/25 0.14 0.56 14/25 0.10 0.01 0/25
        patch, SmallBN: 0.90 1.00 0.06 0.00 0/25 0.00 0.04 1/25 0.43 0.68 0/25
        patch, MediumBN: 0.95 1.00 0.11 0.02 0/25 0.00 0.02 0/25 0.28 0.36 1/25
        patch, LargeBN: 0.96 1.00 0.12 0.00 0/25 0.00 0.00 0/25 0.22 0.52 6/25
        patch, Resnet-18: 0.90 1.00 0.01 0.00 0/5 -0.01 0.19 1/5 0.03 0.69 4/5
        patch, VGG11: 0.93 1.00 - - - - - - 0.01 0.71 4/5
        blended, Small: 0.82 0.85 0.00 0.00 0/25 0.25 0.00 0/25 0.71 0.84 0/25
        blended, Medium: 0.89 0.96 0.06 0.00 0/25 0.30 0.89 10/25 0.64 0.93 1/25
        blended, Large: 0.90 0.99 0.08 0.00 0/25 0.19 0.81 17/25 0.41 0.51 0/25
        blended, SmallBN: 0.90 0.99 0.08 0.00 0/25 -0.01 0.08 2/25 0.54 0.92 1/25
        blended, MediumBN: 0.94 1.00 0.12 0.00 0/25 -0.01 0.36 9/25 0.28 0.42 3/25
        blended, LargeBN: 0.96 1.00 0.14 0.24 1/25 0.01 0.39 5/25 0.04 0.57 9/25
        blended, Resnet-18: 0.90 1.00 0.01 0.53 2/5 -0.05 0.00 0/5 0.05 0.89 5/5
        blended, VGG11: 0.92 0.96 - - - - - - 0.03 0.72 4/5
    """),
    count=25,
    tiny=("patch, SmallBN",),
    small=_SMALL,
    note="Successful, in the thesis's sense: less than 0.25 of accuracy lost and more than 0.75 of ASR. " + _SMALL_NOTE,
)
TABLE_5_5 = Table(
    "koldenhof-5.5",
    "Koldenhof, Table 5.5",
    "time of the searches and of retraining",
    _rows("patch"),
    (
        Column("ABS, s", "dhonthi", "seconds_search"),
        Column("retraining", "dhonthi", "seconds_repair", over="ABS, s"),
        Column("new", "new", "seconds_search", over="ABS, s"),
    ),
    _REPAIRS,
    typed("""
        patch, Small: 117.07 38.62 18.89
        patch, Medium: 177.50 60.63 15.89
        patch, Large: 83.17 259.10 55.82
        patch, SmallBN: 119.51 39.03 18.89
        patch, MediumBN: 180.89 - 53.25
        patch, LargeBN: 266.52 - 222.48
        patch, Resnet-18: 563.67 333.51 295.41
        patch, VGG11: - - 495.88
    """),
    count=25,
    tiny=("patch, SmallBN",),
    small=tuple(name for name in _SMALL if name.startswith("patch")),
    note="Retraining takes no time where no trigger is valid. " + _SMALL_NOTE,
)
_FOUND = {
    "abs": Probe("search", {**_ABS, "bound": 0.85}),
    "new": Probe("search", {**_NEW, "bound": 0.85}),
}
TABLE_5_6 = Table(
    "koldenhof-5.6",
    "Koldenhof, Table 5.6",
    "mean squared error between true and reconstructed triggers",
    _ROWS,
    (
        Column("MSE Dhonthi", "abs", "mse"),
        Column("MSE new", "new", "mse"),
        Column("IoU Dhonthi", "abs", "iou"),
        Column("IoU new", "new", "iou"),
    ),
    _FOUND,
    typed("""
        patch, Small: 0.20 0.68 - -
        patch, Medium: 0.27 0.40 - -
        patch, Large: 0.25 0.61 - -
        patch, SmallBN: 0.15 1.91 - -
        patch, MediumBN: - 1.05 - -
        patch, LargeBN: - 2.04 - -
        patch, Resnet-18: 0.16 0.29 - -
        patch, VGG11: - 0.56 - -
        blended, Small: 0.88 1.20 - -
        blended, Medium: 0.80 2.48 - -
        blended, Large: 0.39 1.96 - -
        blended, SmallBN: 0.19 2.19 - -
        blended, MediumBN: 0.21 1.31 - -
        blended, LargeBN: 0.33 0.77 - -
        blended, Resnet-18: 0.55 0.83 - -
        blended, VGG11: - 0.60 - -
    """),
    count=25,
    tiny=("patch, SmallBN",),
    small=_SMALL,
    note="The thesis does not say of what its MSE is; figures above 1 cannot be of pixels in [0, 1] alone. Ours is of "
    "the change that both triggers make to benign images, squared, summed over colours and averaged over pixels. IoU "
    "is of the pixels changed by a tenth or more. " + _SMALL_NOTE,
)
_OFFSET = "offset-patch"  # 4x4 at (2, 2)
_SMALL_CLP = """
    0.89 0.89 0.00 0.89 0.89 0.00 3.00
    0.90 0.89 0.01 0.99 0.99 0.00 3.00
    0.89 0.55 0.34 1.00 0.02 0.98 1.25
    0.90 0.90 0.00 0.99 0.99 0.00 3.00
    0.88 0.88 0.00 1.00 1.00 0.00 3.00
    0.88 0.88 0.00 0.99 0.99 0.00 3.00
    0.89 0.89 0.00 1.00 1.00 0.00 3.00
    0.89 0.89 0.00 0.99 0.86 0.13 2.75
    0.90 0.90 0.00 1.00 1.00 0.00 3.00
    0.91 0.91 0.00 1.00 1.00 0.00 3.00
"""
_SMALL_BN_CLP = """
    0.92 0.79 0.13 1.00 0.10 0.90 1.75
    0.88 0.55 0.33 1.00 0.35 0.65 1.25
    0.92 0.89 0.03 1.00 0.03 0.97 2.00
    0.92 0.92 0.00 1.00 1.00 0.00 3.00
    0.89 0.81 0.08 1.00 0.05 0.95 2.00
    0.93 0.89 0.04 1.00 0.02 0.98 1.75
    0.92 0.92 0.00 1.00 1.00 0.00 3.00
    0.92 0.92 0.00 1.00 1.00 0.00 3.00
    0.90 0.78 0.12 1.00 0.02 0.98 2.50
    0.90 0.71 0.19 1.00 0.84 0.16 2.00
"""
_MEDIUM_BN_TAC = """
    0.94 0.93 0.02 1.00 0.52 0.48
    0.94 0.91 0.03 1.00 0.02 0.98
    0.93 0.92 0.02 1.00 0.56 0.43
    0.94 0.92 0.03 1.00 0.02 0.98
    0.95 0.92 0.03 1.00 0.07 0.93
    0.94 0.92 0.02 1.00 0.05 0.95
    0.95 0.92 0.02 1.00 0.07 0.93
    0.95 0.90 0.05 1.00 0.02 0.98
    0.95 0.92 0.02 1.00 0.09 0.90
    0.94 0.91 0.03 1.00 0.03 0.97
"""
_BEFORE_AND_AFTER = ("accuracy_before", "accuracy_after", "accuracy_lost", "asr_before", "asr_after", "asr_lost")


def _columns(probe: str) -> tuple[Column, ...]:
    titles = (metric.replace("_", " ").replace("asr", "ASR") for metric in _BEFORE_AND_AFTER)
    return tuple(Column(title, probe, metric) for title, metric in zip(titles, _BEFORE_AND_AFTER, strict=True))


TABLE_A_1 = Table(
    "koldenhof-a.1",
    "Koldenhof, Table A.1",
    "CLP at its best threshold",
    (Row("Small", Models("N_SN", _OFFSET)), Row("SmallBN", Models("N_SN_BN", _OFFSET))),
    (*_columns("sweep"), Column("u", "sweep", "u"), Column("successful", "sweep", "successful")),
    {"sweep": Probe("clp-sweep")},
    {
        "Small": (*means(_SMALL_CLP), share_successful(_SMALL_CLP)),
        "SmallBN": (*means(_SMALL_BN_CLP), share_successful(_SMALL_BN_CLP)),
    },
    count=10,
    tiny=("Small", "SmallBN"),
    note="The thesis lists ten networks of each; its means stand here. The threshold is the best of those that lose "
    "less than 0.25 of accuracy or end more than 0.75 of ASR, by half of both, as the thesis says; `successful` counts "
    "those that do both.",
)
TABLE_A_2 = Table(
    "koldenhof-a.2",
    "Koldenhof, Table A.2",
    "pruning by the true trigger's TAC",
    (Row("MediumBN", Models("N_MN_BN", _OFFSET)),),
    (*_columns("tac"), Column("successful", "tac", "successful")),
    {"tac": Probe("repair", {"repair": "tac-prune", "settings": _PRUNE, "methods": {}})},
    {"MediumBN": (*means(_MEDIUM_BN_TAC), share_successful(_MEDIUM_BN_TAC))},
    count=10,
    note="The thesis lists ten networks; its means stand here. The trigger is the true one, as in the thesis.",
)
_CHANNELS = {"channels": Probe("channels"), **_REPAIRS}
_INSIDE = (
    Column("largest TAC Z", "channels", "largest_tac"),
    Column("channels, TAC Z from 2 on", "channels", "high_tac"),
    Column("channels, variance Z below -2", "channels", "low_variance"),
    Column("of these with a TAC above the mean", "channels", "both"),
    Column("correlation", "channels", "correlation"),
)
_DEFENCE = (
    Column("accuracy after", "new", "accuracy_after"),
    Column("ASR after", "new", "asr_after"),
)


def _inside(number: str, title: str, names: tuple[str, ...], columns: tuple[Column, ...]) -> Table:
    rows = tuple(Row(f"patch, {name}", _models(name, "patch"), count=5) for name in names)
    note = "The thesis shows dots or boxes and gives few figures; the plot shows the first network of each kind."
    tiny = (rows[-1].name,)
    return Table(
        f"koldenhof-fig-{number}",
        f"Koldenhof, Figure {number}",
        title,
        rows,
        columns,
        _CHANNELS,
        tiny=tiny,
        plot="dots",
        note=note,
    )


FIGURE_6_1 = _inside(
    "6.1", "TAC of channels and whether the defence succeeds", ("Resnet-18", "LargeBN"), (*_INSIDE, *_DEFENCE)
)
FIGURE_6_2 = _inside(
    "6.2", "TAC against variance and whether the defence succeeds", ("Resnet-18", "LargeBN"), (*_INSIDE, *_DEFENCE)
)
FIGURE_6_3 = _inside("6.3", "TAC against variance with and without batch normalisation", ("Large", "LargeBN"), _INSIDE)


def _reconstructed(number: str, name: str, attack: str) -> Table:
    return Table(
        f"koldenhof-fig-{number}",
        f"Koldenhof, Figure {number}",
        f"reconstructed triggers of the {attack} attack, {name}",
        (Row(f"{attack}, {name}", _models(name, attack)),),
        tuple(
            Column(f"{who}: {title}", probe, metric)
            for who, probe in (("ABS", "abs"), ("new", "new"))
            for title, metric in (
                ("valid", "valid"),
                ("right target", "right"),
                ("MSE", "mse"),
                ("IoU", "iou"),
            )
        ),
        {
            "abs": Probe("pictures", {**_ABS, "bound": 0.85}),
            "new": Probe("pictures", {**_NEW, "bound": 0.85}),
        },
        plot="pictures",
        note="The thesis shows pictures and gives no figures. The plot has the true trigger on grey, then those found.",
    )


FIGURE_6_4 = _reconstructed("6.4", "Large", "patch")
FIGURE_6_5 = _reconstructed("6.5", "Resnet-18", "patch")
FIGURE_6_6 = _reconstructed("6.6", "Large", "blended")
TABLES = (
    *(TABLE_5_4, TABLE_5_5, TABLE_5_6, TABLE_A_1, TABLE_A_2),
    *(FIGURE_6_1, FIGURE_6_2, FIGURE_6_3, FIGURE_6_4, FIGURE_6_5, FIGURE_6_6),
)
