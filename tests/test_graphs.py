"""Promises of agnes.graphs: any classifier becomes one graph of the same logits, or is refused."""

from __future__ import annotations

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn
from torch.nn import functional

from agnes import graphs
from agnes.errors import Refused
from agnes.network import Network
from agnes.testing.networks import INPUT_SHAPE, plain, random_network

IMAGES = torch.rand(4, *INPUT_SHAPE, generator=torch.Generator().manual_seed(2))


class Conv(nn.Module):
    """A convolution and a linear layer; what lies between them is the test's."""

    def __init__(self, between) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)
        self.between = between

    def forward(self, images):
        return self.fc(self.between(self, images, self.conv(images)))


def pooled(maps: torch.Tensor) -> torch.Tensor:
    return maps.mean((2, 3))


def write_and_read_again(module, images, maps):
    functional.relu_(maps)
    return pooled(maps)


def skip_after_in_place(module, images, maps):
    out = nn.ReLU(inplace=True)(maps)
    return pooled(out * 2 + maps)  # maps was overwritten by then


def in_place_method(module, images, maps):
    before = maps * 1
    maps.clamp_(min=0.1).mul_(2)
    return pooled(maps + before)


def augmented(module, images, maps):
    maps *= 3
    maps += images[:, :1]
    maps -= 0.5
    maps /= 2
    return pooled(maps)


def in_place_argument(module, images, maps):
    functional.hardtanh(maps, 0.0, 0.4, inplace=True)
    functional.leaky_relu_(maps, 0.5)
    return pooled(maps)


def unpacked_shape(module, images, maps):
    count, channels, height, width = maps.shape
    return maps.reshape(count, channels, height * width).mean(-1)


BATCH_SIZES = [
    lambda m, x, maps: maps.view(x.size(0), 4, -1).mean(2),
    lambda m, x, maps: maps.reshape(maps.shape[0], 4, 144).amax(2),
    lambda m, x, maps: torch.flatten(maps, 2).mean(-1),
    unpacked_shape,
    lambda m, x, maps: maps.view(x.size()[0] * 4, 144).mean(1).view(-1, 4),
    lambda m, x, maps: pooled(maps + torch.arange(4.0).view(4, 1, 1)),
    lambda m, x, maps: pooled(maps.permute(1, 0, 2, 3).transpose(0, 1).contiguous()),
    lambda m, x, maps: torch.cat(maps.chunk(2, dim=1), 1).sum((2, 3)) / (maps.numel() / x.size(0)),
    lambda m, x, maps: pooled(torch.cat(torch.split(maps, [1, 3], 1), 1)),
]
IN_PLACE = [write_and_read_again, skip_after_in_place, in_place_method, augmented, in_place_argument]


@pytest.mark.parametrize("between", IN_PLACE + BATCH_SIZES)
def test_what_is_written_in_place_or_sized_by_the_batch_computes_the_same(between):
    module = Conv(between).eval()
    network = Network.of(module, INPUT_SHAPE)
    assert network.layers
    with torch.no_grad():
        for images in (IMAGES[:1], IMAGES):
            expected = module(images.clone())
            torch.testing.assert_close(network(images), expected)
            for layer in network.layers:
                state = network.until(layer, images)
                torch.testing.assert_close(network.after(layer, state), expected)
                torch.testing.assert_close(network.after(layer, state.tile(3)), expected.repeat(3, 1))


def test_a_write_through_a_view_is_refused_rather_than_computed_wrong():
    def between(module, images, maps):
        maps[:, 0].mul_(5)
        return pooled(maps)

    with pytest.raises(Refused, match="overwritten in place"):
        Network.of(Conv(between), INPUT_SHAPE)


# --- what cannot be one graph ----------------------------------------------------------------------------------------


def by_the_data(module, images, maps):
    if maps.mean() > 0:
        return pooled(maps)
    return -pooled(maps)


def by_a_loop_over_images(module, images, maps):
    return torch.stack([pooled(one[None])[0] for one in maps])


def mixing(module, images, maps):
    return pooled(maps - maps.mean(0))


def scaled_by_the_batch(module, images, maps):
    return pooled(maps / maps.max())


def ever_dropping(module, images, maps):
    return functional.dropout(pooled(maps), 0.5)


@pytest.mark.parametrize(
    ("between", "match"),
    [
        (by_the_data, r"control flow depends on the data at .*test_graphs\.py:\d+ `if maps\.mean\(\) > 0:`"),
        (by_a_loop_over_images, r"control flow depends on the data at .*test_graphs\.py:\d+ `return torch\.stack"),
        (mixing, "logits of an image depend on the others in its batch"),
        (scaled_by_the_batch, "logits of an image depend on the others in its batch"),
        (ever_dropping, "other logits each time it sees the same image"),
        (lambda m, x, maps: maps.flatten(1), "does not run on 2 images of 3x12x12: mat1 and mat2"),
        (lambda m, x, maps: maps.permute(0, 2, 3, 1), r"output for 2 images has the shape \(2, 12, 12, 3\)"),
        (lambda m, x, maps: pooled(maps).mean(0), r"output for 2 images has the shape \(3,\)"),
    ],
)
def test_what_cannot_be_scanned_is_refused_with_the_reason(between, match):
    with pytest.raises(Refused, match=match):
        Network.of(Conv(between), INPUT_SHAPE)


def test_the_line_named_is_the_line_that_branches():
    with pytest.raises(Refused) as caught:
        Network.of(Conv(by_the_data), INPUT_SHAPE)
    start = inspect.getsourcelines(by_the_data)[1]
    assert f"test_graphs.py:{start + 1} " in str(caught.value)
    assert "\n" not in str(caught.value)


class Returns(nn.Module):
    def __init__(self, give) -> None:
        super().__init__()
        self.fc = nn.Linear(432, 3)
        self.give = give

    def forward(self, images):
        return self.give(self.fc(images.flatten(1)))


@pytest.mark.parametrize(
    ("give", "match"),
    [
        (lambda logits: (logits, logits * 2), "more than one output"),
        (lambda logits: {"logits": logits, "features": logits}, "more than one output"),
        (lambda logits: logits.max(1), "output is a max; AGNES"),
        (lambda logits: logits.argmax(1), r"shape \(2,\)"),
        (lambda logits: logits[:, :1], "the model has one output"),
        (lambda logits: torch.zeros(2, 3), "does not read its images"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(give, match):
    with pytest.raises(Refused, match=match):
        Network.of(Returns(give), INPUT_SHAPE)


@pytest.mark.parametrize("give", [lambda y: (y,), lambda y: [y], lambda y: {"logits": y}, lambda y: y[..., None, None]])
def test_logits_in_a_wrapping_of_one_are_unwrapped(give):
    module = Returns(give)
    expected = module.fc(IMAGES.flatten(1)).detach()
    torch.testing.assert_close(Network.of(module, INPUT_SHAPE)(IMAGES), expected)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(432, 3)

    def forward(self, images, mask):
        return self.fc(images.flatten(1)) * mask


class Options(TwoInputs):
    def forward(self, images, features=False, mask=None, times=1):
        images = images.flatten(1)
        if features:
            return images
        return self.fc(images if mask is None else images * mask) * times


def test_a_second_input_is_refused():
    with pytest.raises(Refused, match="does not run on 2 images"):
        Network.of(TwoInputs(), INPUT_SHAPE)
    with pytest.raises(Refused, match="does not run on 2 images"):
        Network.of(fx.symbolic_trace(TwoInputs()), INPUT_SHAPE)


def test_arguments_with_defaults_keep_them():
    module = Options()
    network = Network.of(module, INPUT_SHAPE)
    torch.testing.assert_close(network(IMAGES), module(IMAGES).detach())
    assert sum(node.op == "placeholder" for node in network.module.graph.nodes) == 1


def test_a_module_of_other_precision_becomes_float32():
    module = plain(0)
    network = Network.of(plain(0).double(), INPUT_SHAPE)
    torch.testing.assert_close(network(IMAGES), module(IMAGES).detach())
    assert Network.of(plain(0).half(), INPUT_SHAPE)(IMAGES).dtype == torch.float32


def test_a_graph_handed_in_is_taken_as_it_is():
    module = plain(0)
    graph = fx.symbolic_trace(module)
    network = Network.of(graph, INPUT_SHAPE)
    assert [n.name for n in network.module.graph.nodes] == [n.name for n in graph.graph.nodes]
    torch.testing.assert_close(network(IMAGES), module(IMAGES).detach())


# --- softmax ---------------------------------------------------------------------------------------------------------

TAILS = {
    "module": (nn.Softmax(dim=1), "softmax"),
    "log module": (nn.LogSoftmax(dim=1), "log_softmax"),
    "call": (lambda y: functional.softmax(y, dim=1), "softmax"),
    "log call": (lambda y: functional.log_softmax(y, dim=-1), "log_softmax"),
    "torch": (lambda y: torch.softmax(y, 1), "softmax"),
    "method": (lambda y: y.softmax(1), "softmax"),
    "made on the way": (lambda y: nn.Softmax(dim=1)(y), "softmax"),
    "twice": (lambda y: y.softmax(1).log_softmax(1), "softmax"),
    "then flat": (lambda y: y[..., None, None].softmax(1).flatten(1), "softmax"),
}


@pytest.mark.parametrize("tail", TAILS)
def test_a_softmax_at_the_end_is_peeled_and_noted(tail):
    give, name = TAILS[tail]
    module = Returns(give)
    network = Network.of(module, INPUT_SHAPE)
    torch.testing.assert_close(network(IMAGES), module.fc(IMAGES.flatten(1)).detach())
    assert network.peeled == name
    assert "softmax" not in network.kinds
    assert network.copy().peeled == name


def test_a_softmax_in_the_middle_stays():
    module = Conv(lambda m, x, maps: (maps * maps.flatten(2).softmax(-1).view_as(maps)).sum((2, 3))).eval()
    network = Network.of(module, INPUT_SHAPE)
    assert network.peeled is None
    assert "softmax" in network.kinds
    torch.testing.assert_close(network(IMAGES), module(IMAGES).detach())


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=15)
def test_every_random_network_is_a_graph_of_the_same_logits(seed):
    module = random_network(seed)
    network = Network.of(module, INPUT_SHAPE)
    given_out = module(IMAGES.clone()).detach()
    logits = network(IMAGES)
    torch.testing.assert_close(logits.softmax(1) if network.peeled else logits, given_out)


def test_a_view_works_in_any_memory_format():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(144, 5)

        def forward(self, x):
            return self.head(self.conv(x).view(x.size(0), -1))

    module = Views().eval()
    images = torch.rand(2, 3, 8, 8)
    traced = graphs.trace(module, images).to(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(traced(images.to(memory_format=torch.channels_last)), module(images))
