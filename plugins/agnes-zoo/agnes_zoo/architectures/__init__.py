"""The architectures of the papers, each a function from a number of classes to a module."""

from agnes_zoo.architectures.plain import (
    abs_lenet,
    alexnet,
    fc1,
    fc2,
    fc3,
    gtsrb_5conv,
    lenet,
    mnist_2conv,
    mobilenet,
    nin,
    nn1,
    vgg,
)
from agnes_zoo.architectures.residual import resnet8, resnet32, resnet110
from agnes_zoo.architectures.strategic import n_ln, n_ln_bn, n_mn, n_mn_bn, n_sn, n_sn_bn

__all__ = [
    "abs_lenet",
    "alexnet",
    "fc1",
    "fc2",
    "fc3",
    "gtsrb_5conv",
    "lenet",
    "mnist_2conv",
    "mobilenet",
    "n_ln",
    "n_ln_bn",
    "n_mn",
    "n_mn_bn",
    "n_sn",
    "n_sn_bn",
    "nin",
    "nn1",
    "resnet8",
    "resnet32",
    "resnet110",
    "vgg",
]
