"""Weights change their order of dimensions and back, and find their partners."""

import numpy as np
import pytest
import torch

pytest.importorskip("agnes_tensorflow")

from agnes_tensorflow import weights


@pytest.mark.parametrize(
    ("shape", "depthwise", "torch_shape"),
    [
        ((3, 2, 4, 5), False, (5, 4, 3, 2)),
        ((3, 2, 4, 5), True, (20, 1, 3, 2)),
        ((4, 5), False, (5, 4)),
        ((4,), False, (4,)),
    ],
)
def test_a_weight_comes_back_as_it_was(shape, depthwise, torch_shape):
    array = np.random.default_rng(0).random(shape)
    there = weights.to_torch(array, depthwise)
    assert there.shape == torch_shape
    assert np.array_equal(weights.to_keras(there, shape, depthwise), array)


def test_a_depthwise_kernel_keeps_its_channels_apart():
    kernel = np.random.default_rng(0).random((1, 1, 2, 3)).astype(np.float32)  # one pixel, 2 channels, 3 outputs each
    image = torch.rand(1, 2, 1, 1)
    wanted = [float(image[0, c]) * kernel[0, 0, c, m] for c in range(2) for m in range(3)]
    found = torch.conv2d(image, torch.from_numpy(weights.to_torch(kernel, True).copy()), groups=2)
    assert found.flatten().tolist() == pytest.approx(wanted)


def test_equal_weights_go_to_the_layer_of_their_neighbours():
    one, two, same = np.ones((2, 2)), np.full((2, 2), 2.0), np.zeros(2)
    named = [
        (p, weights.digest(a)) for p, a in (("a/kernel", one), ("a/bias", same), ("b/kernel", two), ("b/bias", same))
    ]
    state = {"second.bias": same, "second.weight": two, "first.weight": one, "first.bias": same}
    assert weights.paired(state, named) == {"second.bias": 3, "second.weight": 2, "first.weight": 0, "first.bias": 1}


def test_a_weight_that_is_not_in_the_file_has_no_partner():
    assert weights.paired({"a.weight": np.ones(3)}, [("a/kernel", weights.digest(np.zeros(3)))]) == {}
