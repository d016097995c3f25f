"""The tables of Overactivation (Wu 2024)."""

from __future__ import annotations

from agnes_zoo.experiments.describing import Column, Models, Probe, Row, Table, typed

_KINDS = {
    "MNIST": Models("MNIST_2CONV", "badnets", data="grey"),
    "GTSRB": Models("GTSRB_5CONV", "badnets"),
    "FashionMNIST": Models("MNIST_2CONV", "badnets", data="grey"),
    "CIFAR10": Models("resnet18", "badnets", data="ten"),
    "CIFAR100": Models("resnet50", "badnets", data="ten"),
}
_STAND_IN = (
    "Without --data, embedded signs stand in for the paper's data: grey 28x28 ones for MNIST and FashionMNIST, ten "
    "classes for CIFAR. "
)

TABLE_1 = Table(
    "overactivation-2.1",
    "Overactivation, Table 2.1",
    "accuracy and attack success of the networks",
    tuple(
        Row(name, _KINDS[name].but(epochs=epochs))
        for name, epochs in (("MNIST", 5), ("GTSRB", 5), ("FashionMNIST", 5), ("CIFAR10", 50), ("CIFAR100", 80))
    ),
    (Column("accuracy", "trained", "accuracy"), Column("ASR", "trained", "asr")),
    {"trained": Probe("training")},
    typed("""
        MNIST: 99.10% 99.99%
        GTSRB: 96.255% 91.100%
        FashionMNIST: 92.81% 99.98%
        CIFAR10: 91.44% 99.99%
        CIFAR100: 75.84% -
    """),
    tiny=("MNIST", "GTSRB"),
    small=("MNIST", "GTSRB", "FashionMNIST", "CIFAR10"),
    note=_STAND_IN,
)
_EPOCHS = {"MNIST": (5, 10, 20), "GTSRB": (10, 20, 30, 50), "FashionMNIST": (5, 10, 30), "CIFAR10": (20, 30, 40, 50)}


def _twice(text: str) -> dict[str, tuple[float | None, ...]]:
    """The paper's figures beside those of either noise: it does not say which was its own."""
    return {name: (*values, values[3], values[5], values[6]) for name, values in typed(text).items()}


TABLE_2 = Table(
    "overactivation-2.2",
    "Overactivation, Table 2.2",
    "the overactivation index after more and more epochs",
    tuple(
        Row(f"{name}, {epochs} epochs", _KINDS[name].but(epochs=epochs))
        for name, some in _EPOCHS.items()
        for epochs in some
    ),
    (
        Column("max, backdoor", "index", "max_backdoor"),
        Column("max, clean", "index", "max_clean"),
        Column("max, ratio", "index", "max_ratio"),
        Column("mean, backdoor", "index", "mean_backdoor"),
        Column("mean, clean", "index", "mean_clean"),
        Column("mean, ratio", "index", "mean_ratio"),
        Column("larger, of 200", "index", "larger"),
        Column("normal noise: mean, backdoor", "index", "normal_mean_backdoor"),
        Column("normal noise: mean, ratio", "index", "normal_mean_ratio"),
        Column("normal noise: larger, of 200", "index", "normal_larger"),
    ),
    {"index": Probe("overactivation")},
    _twice("""
        MNIST, 5 epochs: 3.9615 3.2132 1.2328 3.2140 2.5139 1.2784 199
        MNIST, 10 epochs: 3.5404 3.9103 0.9054 2.6816 3.0669 0.8743 17
        MNIST, 20 epochs: 5.0043 5.1311 0.9752 3.6324 3.8204 0.9507 38
        GTSRB, 10 epochs: 4.7136 4.345 1.0848 3.6496 3.216 1.1348 163
        GTSRB, 20 epochs: 4.3301 3.3928 1.2762 2.9364 2.5081 1.1708 177
        GTSRB, 30 epochs: 4.611 3.5097 1.3138 3.1777 2.0844 1.5245 195
        GTSRB, 50 epochs: 3.5434 3.2779 1.081 2.3143 2.3850 0.9704 109
        FashionMNIST, 5 epochs: 1.5759 1.3684 1.1516 1.313 1.2007 1.0934 189
        FashionMNIST, 10 epochs: 1.8628 1.8138 1.027 1.4639 1.4822 0.9877 95
        FashionMNIST, 30 epochs: 2.4023 2.6442 0.9085 2.0127 2.2154 0.9085 12
        CIFAR10, 20 epochs: 12.936 9.8593 1.312 9.9769 7.7057 1.2947 196
        CIFAR10, 30 epochs: 8.8327 7.4869 1.1798 6.5749 5.2923 1.2423 194
        CIFAR10, 40 epochs: 5.6955 6.5439 0.8704 4.387 5.2367 0.8377 11
        CIFAR10, 50 epochs: 4.2566 4.6565 0.9141 3.4229 3.6726 0.932 60
    """),
    tiny=("MNIST, 5 epochs", "GTSRB, 10 epochs"),
    small=(
        "MNIST, 5 epochs",
        "MNIST, 10 epochs",
        "MNIST, 20 epochs",
        "GTSRB, 10 epochs",
        "GTSRB, 20 epochs",
        "CIFAR10, 20 epochs",
    ),
    note=_STAND_IN + "The clean network has the same seed. The paper does not say which noise: ours is uniform "
    "in [0, 1], and of a normal distribution in the last columns.",
)
TABLES = (TABLE_1, TABLE_2)
