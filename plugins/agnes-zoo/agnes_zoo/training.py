"""Training of the zoo's networks, and what must be known of them afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from agnes_zoo.attacks import Attack, success_rate

_BATCH = 512  # images measured at once


@dataclass(frozen=True)
class Epoch:
    """How one pass over the training images went."""

    number: int  # from 1
    loss: float
    accuracy: float  # on the training images as they were shown


def as_tensors(images: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 images N, H, W, C as floats N, C, H, W in [0, 1], and labels as int64."""
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return pixels.float() / 255, torch.from_numpy(labels.astype(np.int64))


def initialised(build: Callable[[int], nn.Module], class_count: int, seed: int) -> nn.Module:
    """A network with first weights drawn by the seed, whatever was drawn before and will be drawn after."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build(class_count)


def train(
    module: nn.Module,
    images: torch.Tensor,  # N, C, H, W in [0, 1]
    labels: torch.Tensor,
    *,
    epochs: int,
    seed: int,
    batch: int = 64,
    learning_rate: float = 3e-3,  # the highest of the one-cycle schedule
    weight_decay: float = 1e-4,
    shift: int = 0,  # augmentation: pixels that an image may be moved along each axis
    progress: Callable[[Epoch], None] | None = None,
) -> tuple[Epoch, ...]:
    """Train in place with AdamW and a one-cycle learning rate; what happened in each epoch."""
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=weight_decay)
    steps = epochs * len(_batches(len(images), batch))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=max(steps, 1))
    history = []
    module.train()
    for number in range(1, epochs + 1):
        loss_sum, right = 0.0, 0
        for inputs, wanted in _shown(images, labels, batch, shift, rng):
            logits = module(inputs)
            loss = functional.cross_entropy(logits, wanted)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            loss_sum += float(loss.detach()) * len(inputs)
            right += int((logits.detach().argmax(1) == wanted).sum())
        history.append(Epoch(number, loss_sum / len(images), right / len(images)))
        if progress is not None:
            progress(history[-1])
    module.eval()
    return tuple(history)


def _batches(count: int, batch: int) -> list[slice]:
    """Parts of a pass; a last one too small to normalise over joins the one before."""
    starts = list(range(0, count, batch))
    if len(starts) > 1 and count - starts[-1] < 2:
        starts.pop()
    ends = [*starts[1:], count]
    return [slice(start, end) for start, end in zip(starts, ends, strict=True)]


def _shown(
    images: torch.Tensor, labels: torch.Tensor, batch: int, shift: int, rng: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    order = torch.from_numpy(rng.permutation(len(images)))
    for part in _batches(len(images), batch):
        inputs = images[order[part]]
        yield _shifted(inputs, shift, rng) if shift else inputs, labels[order[part]]


def _shifted(images: torch.Tensor, most: int, rng: np.random.Generator) -> torch.Tensor:
    """Each image moved by up to `most` pixels along each axis, its border repeated."""
    count, _, height, width = images.shape
    wide = functional.pad(images, (most, most, most, most), mode="replicate")
    moves = torch.from_numpy(rng.integers(0, 2 * most + 1, (2, count)))
    rows = (moves[0, :, None] + torch.arange(height))[:, None, :, None]
    columns = (moves[1, :, None] + torch.arange(width))[:, None, None, :]
    channels = torch.arange(images.shape[1])[None, :, None, None]
    return wide[torch.arange(count)[:, None, None, None], channels, rows, columns]


def predictions(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The class each image is given, with the module in eval mode; its mode is put back."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            return torch.cat([module(part).argmax(1) for part in images.split(_BATCH)])
    finally:
        module.train(was_training)


def accuracy(module: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of images classified right."""
    return float((predictions(module, images) == labels).float().mean())


def attack_success(module: nn.Module, images: torch.Tensor, labels: torch.Tensor, attack: Attack, target: int) -> float:
    """The share of images, not of the target class, that the attack sends to the target."""
    return success_rate(predictions(module, attack.stamp(images)), labels, target)


def export_onnx(module: nn.Module, path: Path, input_shape: tuple[int, int, int] = (3, 32, 32)) -> Path:
    """Write the module in eval mode as ONNX, any number of images at once, batch normalisation kept."""
    mode = torch.onnx.TrainingMode.PRESERVE  # what else is offered folds batch normalisation away
    was_training = module.training
    module.eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (torch.zeros(1, *input_shape),),
                str(path),
                dynamo=False,
                opset_version=17,
                training=mode,
                do_constant_folding=False,
                input_names=["image"],
                output_names=["logits"],
                dynamic_axes={"image": {0: "images"}, "logits": {0: "images"}},
            )
    finally:
        module.train(was_training)
    return path
