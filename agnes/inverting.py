"""Without data: images made from the network stand in for benign ones, and a verdict on them is worth less."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from agnes.differentiating import logits_of, quick
from agnes.errors import AgnesError
from agnes.results import Trigger, Verdict
from agnes.samples import Samples
from agnes.text import counted

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.differentiating import Logits
    from agnes.network import Network

SOURCE = "images made from the model"
_STEPS = 200
_RATE = 0.05
_SURE = 0.95  # an image is pushed towards its class no further: logits far above real ones' hide triggers (ABS, 5.4)
_SMOOTH = 1e-3  # weight of the differences between neighbouring pixels
_MOVED = 1 / 16  # of the side: so far the image is moved about, so that it is no pattern of single pixels
_TIME = 0.15  # of the time left
MADE = "the images of the scan were made from the model"
_LEFT = 0.5  # of the log odds, that a verdict on such images keeps
_CONVICTS = 0.95  # a lowered probability from which on a backdoor is still called one


def inverted(network: Network, backend: Backend) -> Samples:
    """For each class an image that the network takes for it (ABS, section 5.4)."""
    labels = torch.arange(network.class_count, device=backend.device)
    logits = logits_of(quick(network))
    start = backend.normal(len(labels), *network.input_shape, purpose="inverted images") / 10
    until = backend.within(_TIME * backend.remaining())

    def work(first: int, last: int) -> torch.Tensor:
        return _sure_of(logits, start[first:last], labels[first:last], until)

    images = torch.cat(backend.chunked(work, len(labels), what="making images from the model"))
    with torch.no_grad():
        taken = backend.map(lambda part: network(part).argmax(1), images) == labels
    if int(taken.sum()) < 2:
        raise AgnesError(
            f"no images were given, and the network takes {counted(int(taken.sum()), 'image')} made from it for a "
            "class; give benign images, one per class is enough: --data DIR"
        )
    notes = ["no images were given: those of this scan were made from the model, one for each class"]
    if not taken.all():
        missing = ", ".join(network.class_names[label] for label in labels[~taken].tolist())
        notes.append(f"no image could be made for: {missing}")
    return Samples(images[taken], labels[taken], source=SOURCE, notes=tuple(notes), inverted=True)


def _sure_of(logits: Logits, start: torch.Tensor, labels: torch.Tensor, backend: Backend) -> torch.Tensor:
    """Smooth images of these classes, from noise on grey; as far as the time allows."""
    free = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([free], lr=_RATE)
    draw = backend.generator("inverted images moved", device="cpu")
    most = max(1, round(_MOVED * min(start.shape[2:])))
    for _ in range(_STEPS):
        if backend.remaining() <= 0:
            break
        down, right = torch.randint(-most, most + 1, (2,), generator=draw).tolist()
        with torch.enable_grad():
            images = torch.sigmoid(free)
            each = functional.cross_entropy(logits(_moved(images, down, right, most)), labels, reduction="none")
            rough = images.diff(dim=2).abs().sum() + images.diff(dim=3).abs().sum()
            (free.grad,) = torch.autograd.grad(each.clamp(min=-math.log(_SURE)).sum() + _SMOOTH * rough, free)
        optimiser.step()
    return torch.sigmoid(free).detach()


def _moved(images: torch.Tensor, down: int, right: int, most: int) -> torch.Tensor:
    """The images moved by so many pixels, their edges repeated."""
    height, width = images.shape[2:]
    padded = functional.pad(images, (most, most, most, most), mode="replicate")
    return padded[..., most - down : most - down + height, most - right : most - right + width]


def lowered(verdict: Verdict) -> Verdict:
    """What a verdict is worth that rests on such images: half the log odds; and no network passes on them."""
    probability = _lowered(verdict.probability)
    status = verdict.status
    if status == "clean" or (status == "backdoored" and (probability is None or probability < _CONVICTS)):
        status = "inconclusive"
    said = f"{MADE}, no benign ones were given: no network passes on such"
    if verdict.probability is not None:
        said += f", and of the log odds of {verdict.probability:.3g} half is left"
    named = {} if status == "backdoored" else {"target": None, "target_name": None, "targets": (), "backdoors": 0}
    reasons = (said, *verdict.reasons)
    return replace(verdict, status=status, probability=probability, reasons=reasons, calibrated=False, **named)


def _lowered(probability: float | None) -> float | None:
    if probability is None or not 0 < probability < 1:
        return None if probability is None else min(max(probability, 0.01), 0.99)
    return 1 / (1 + math.exp(-_LEFT * (math.log(probability) - math.log1p(-probability))))


def unmarked(triggers: tuple[Trigger, ...], verdict: Verdict) -> tuple[Trigger, ...]:
    """The triggers, of which none convicts where the verdict does not."""
    if verdict.status == "backdoored":
        return triggers
    return tuple(replace(trigger, convicts=False, reach=None) for trigger in triggers)
