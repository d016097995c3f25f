"""Promises of agnes.preprocess: pixels in [0, 1] go in, and the file's own network gets what it was trained on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agnes.errors import UsageError
from agnes.network import Network
from agnes.testing.networks import INPUT_SHAPE, plain

IMAGES = torch.rand(4, *INPUT_SHAPE, generator=torch.Generator().manual_seed(2))


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3),
    st.lists(st.floats(0.125, 2, width=32), min_size=3, max_size=3),
    st.sampled_from([1.0, 2.0, 255.0]),
    st.booleans(),
)
@settings(deadline=None, max_examples=25)
def test_preprocessing_is_part_of_the_network(mean, std, scale, one_for_all):
    if one_for_all:
        mean, std = mean[:1], std[:1]
    module = plain(0)
    network = Network.of(module, INPUT_SHAPE, mean=mean, std=std, scale=scale)
    channels = [(IMAGES[:, c] * scale - mean[c % len(mean)]) / std[c % len(std)] for c in range(3)]
    expected = module(torch.stack(channels, 1)).detach()
    torch.testing.assert_close(network(IMAGES), expected, rtol=1e-4, atol=1e-3)
    layer = network.layers[1]
    torch.testing.assert_close(network.after(layer, network.until(layer, IMAGES)), network(IMAGES))
    torch.testing.assert_close(
        network.without_preprocessing()(torch.stack(channels, 1)), expected, rtol=1e-4, atol=1e-3
    )


class ChannelsLast(nn.Module):
    """As Keras sees images: batch, height, width, channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, images):
        return self.fc(self.conv(images.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).amax((1, 2)))


def test_a_module_of_channels_last_is_given_them():
    module = ChannelsLast()
    network = Network.of(module, (3, 10, 14), layout="NHWC", mean=[0.1, 0.2, 0.3])
    images = torch.rand(2, 3, 10, 14, generator=torch.Generator().manual_seed(0))
    expected = module((images - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)).permute(0, 2, 3, 1)).detach()
    torch.testing.assert_close(network(images), expected)
    assert network.layers[0].shape == (4, 8, 12)
    assert network.input_shape == (3, 10, 14)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mean": [0.5, 0.5]}, "mean has 2 values for 3 channels; give one or one each"),
        ({"std": [1, 1, 1, 1]}, "std has 4 values for 3 channels"),
        ({"std": [1, 0, 1]}, "std has a zero"),
        ({"layout": "HWCN"}, "no layout 'HWCN'; choose from NCHW, NHWC"),
    ],
)
def test_preprocessing_that_does_not_fit_is_refused(options, match):
    with pytest.raises(UsageError, match=match):
        Network.of(plain(0), INPUT_SHAPE, **options)


def test_without_preprocessing_nothing_is_put_in_front():
    assert Network.of(plain(0), INPUT_SHAPE).preprocess is None
    network = Network.of(plain(0), INPUT_SHAPE, std=[0.5], facts={})
    assert network.preprocess is not None
    assert network.piecewise_linear
    assert "preprocess" not in network.kinds
