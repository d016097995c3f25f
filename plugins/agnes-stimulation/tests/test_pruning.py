"""Exact pruning, against the naive loop written as loops, on networks in which ties are exact and frequent."""

from __future__ import annotations

import torch
from agnes_stimulation.abs import Abs
from agnes_stimulation.pruning import Contest
from agnes_stimulation.tally import Benign, Summary
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agnes.backend import Backend
from agnes.network import Network
from agnes.samples import Samples

BACKEND = Backend.choose("cpu", memory=1 << 26)
SHAPE = (1, 2, 2)


def whole_numbers(seed: int, classes: int, convolve: bool, twins: bool) -> Network:
    """Weights of whole numbers: single precision makes no rounding error, and equal channels score equally."""
    generator = torch.Generator().manual_seed(seed)
    first = [nn.Conv2d(1, 4, 2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5)]
    start = first if convolve else [nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5)]
    module = nn.Sequential(*start, nn.ReLU(), nn.Linear(5, classes))
    with torch.no_grad():
        for part in module:
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                part.weight.copy_(torch.randint(-2, 3, part.weight.shape, generator=generator))
                part.bias.copy_(torch.randint(-3, 4, part.bias.shape, generator=generator))
        if twins:  # neurons of the last hidden layer that do the same
            module[-1].weight[:, 1::2] = module[-1].weight[:, :1]
            module[-3].weight[1::2] = module[-3].weight[:1]
            module[-3].bias[1::2] = module[-3].bias[:1]
    return Network.of(module.eval(), SHAPE)


def naive(network: Network, samples: Samples, method: Abs) -> list[tuple[str, int, int, float]]:
    """Every channel and image, one value after the other; best first, and of equal ones the first."""
    plain = network(samples.images)
    found = []
    for layer in network.layers:
        state = network.until(layer, samples.images)
        highest = method.reach * float(state.value.max())
        if highest <= 0:
            highest = -method.reach * float(state.value.min())
        for channel in range(layer.channels) if highest else ():
            logits = []
            for step in range(method.samples):
                replaced = state.value.clone()
                replaced[layer.channel_index(channel)] = highest * step / (method.samples - 1)
                logits.append(network.after(layer, state, replaced))
            best = naive_score(torch.stack(logits), plain, samples.labels.tolist())
            if best is not None and best[1] > 0:
                found.append((layer.name, channel, *best))
    first = sorted(found, key=lambda f: (method.winning_first and not f[4], -f[3]))[: method.top]
    return [f[:4] for f in sorted(first, key=lambda f: -f[3])]


def naive_score(logits: torch.Tensor, plain: torch.Tensor, labels: list[int]) -> tuple[int, float, bool] | None:
    """Target, score and whether the target wins on all images at some value, of values x images x classes."""
    best = None
    lifts = (logits.amax(0) - plain).tolist()
    for c in range(plain.shape[1]):
        leads = [lift[c] - max(lift[:c] + lift[c + 1 :]) for lift, own in zip(lifts, labels, strict=True) if own != c]
        if leads and (best is None or min(leads) > best[1]):
            best = (c, min(leads), bool((logits.argmax(2) == c).all(1).any()))
    return best


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    classes=st.integers(2, 5),
    images=st.integers(1, 9),
    top=st.integers(1, 6),
    convolve=st.booleans(),
    twins=st.booleans(),
    winning_first=st.booleans(),
    one_class=st.booleans(),
)
@torch.no_grad()
def test_the_best_are_those_of_the_naive_loop_in_its_order_ties_too(
    seed: int, classes: int, images: int, top: int, convolve: bool, twins: bool, winning_first: bool, one_class: bool
):
    network = whole_numbers(seed, classes, convolve, twins)
    generator = torch.Generator().manual_seed(seed + 1)
    pixels = torch.randint(0, 3, (images, *SHAPE), generator=generator) / 2
    labels = torch.randint(classes, (1 if one_class else images,), generator=generator).expand(images)
    samples = Samples(pixels, labels.clone())
    method = Abs(samples=3, reach=2.0, top=top, score="margin", refine=False, extend=0, winning_first=winning_first)
    found = method.stimulate(network=network, samples=samples, backend=BACKEND)
    expected = naive(network, samples, method)
    assert [(c.layer, c.channel, c.target, c.score) for c in found] == expected


def summary_of(network: Network, margins: list[float], winner: int) -> Summary:
    """One channel, at one value, over three images."""
    lead, won = torch.tensor([margins]), torch.tensor([[winner]])
    return Summary(network.layers[0], torch.tensor([0]), torch.ones(1, 1), lead, lead, won, torch.zeros(1, 0, 3), 3)


def test_a_channel_that_wins_on_all_images_without_lifting_its_class_most_pushes_nobody_out():
    """It is no candidate itself: on some image another class is lifted more, from farther below."""
    network = whole_numbers(0, 3, False, False)
    benign = Benign(torch.zeros(3, *SHAPE), torch.arange(3), torch.zeros(3, 3))
    contest = Contest(1, True, network, benign, BACKEND)
    contest._note(summary_of(network, [-0.5, -3.0, -4.0], winner=0))
    assert contest._in_question(summary_of(network, [2.0, -3.0, -3.0], winner=-2)).all()
    contest._note(summary_of(network, [0.5, -3.0, -4.0], winner=0))
    assert not contest._in_question(summary_of(network, [2.0, -3.0, -3.0], winner=-2)).any()
