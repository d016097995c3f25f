"""Training of the zoo's networks: seeded, halted after any step and gone on with later to the same end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from agnes_zoo.checkpoints import Checkpoint
from agnes_zoo.measuring import accuracy, attack_success, predictions
from agnes_zoo.writing import export_onnx

if TYPE_CHECKING:
    from agnes_zoo.attacks import Attack

__all__ = [
    "Epoch",
    "Stopped",
    "Training",
    "Watch",
    "accuracy",
    "as_tensors",
    "attack_success",
    "export_onnx",
    "initialised",
    "predictions",
    "train",
]


@dataclass(frozen=True)
class Epoch:
    """How one pass over the training images went."""

    number: int  # from 1
    loss: float
    accuracy: float  # on the training images as they were shown


class Stopped(Exception):
    """A training was asked to stop; what was learnt by then is in its checkpoint, if it has one."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"stopped in epoch {epoch}")
        self.epoch = epoch


@dataclass(frozen=True)
class Regime:
    """How a network is trained."""

    epochs: int = 15  # passes over the training images
    batch: int = 64  # images a step
    learning_rate: float = 3e-3  # the highest of the one-cycle schedule
    weight_decay: float = 1e-4  # of AdamW
    shift: int = 0  # augmentation: pixels that an image may be moved along each axis
    seed: int = 0  # of the order of the images, the shifts and dropout


@dataclass
class Watch:
    """Who looks on: told of steps and epochs, asked whether to stop."""

    epoch: Callable[[Epoch], None] | None = None
    step: Callable[[int, int], None] | None = None  # steps done and steps in all
    stop: Callable[[], bool] = field(default=lambda: False)


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
    progress: Callable[[Epoch], None] | None = None,
    **settings: Any,  # the rest of Regime
) -> tuple[Epoch, ...]:
    """Train in place; what happened in each epoch."""
    regime = Regime(epochs=epochs, seed=seed, **settings)
    return Training(module, images, labels, regime).run(Watch(progress))


class Training:
    """One training, with AdamW and a one-cycle learning rate, by whatever the attack asks of it."""

    def __init__(
        self,
        module: nn.Module,
        images: torch.Tensor,  # as they are shown, poisoned where the attack does not stamp each batch
        labels: torch.Tensor,
        regime: Regime,
        attack: Attack | None = None,
        clean: torch.Tensor | None = None,  # the same images unstamped, for an attack with a loss of its own
    ) -> None:
        self.module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.images, self.labels, self.regime = images, labels, regime
        self.attack = None if attack is None else attack.joined(images)  # once it has run, as it was learnt
        self._partner = None if self.attack is None else self.attack.partner
        self.clean = clean if attack is not None and attack.extra_loss is not None else None
        self._parts = _batches(len(images), regime.batch)
        groups: list[dict[str, Any]] = [{"params": list(module.parameters())}]
        if self._partner is not None:
            groups.append({"params": list(self._partner.parameters()), "weight_decay": 0.0})
        self._optimiser = torch.optim.AdamW(groups, lr=regime.learning_rate, weight_decay=regime.weight_decay)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, regime.learning_rate, total_steps=max(regime.epochs * len(self._parts), 1)
        )
        self._rng = np.random.default_rng(regime.seed)
        self._step, self._loss_sum, self._right = 0, 0.0, 0  # of the running epoch
        self._history: list[Epoch] = []

    def run(self, watch: Watch | None = None, checkpoint: Checkpoint | None = None) -> tuple[Epoch, ...]:
        """Train to the end, from the checkpoint if it holds anything; Stopped where the watch says so."""
        watch = watch or Watch()
        with self._own_randomness(), self._untouched():
            if checkpoint is not None and (found := checkpoint.read()) is not None:
                self._restore(found)
            self.module.train()
            self._rest()
            while len(self._history) < self.regime.epochs:
                self._epoch(watch, checkpoint)
            if checkpoint is not None:  # what comes after the training may be interrupted too
                checkpoint.write(self._state(self._rng.bit_generator.state))
            self.module.eval()
        self.attack = None if self.attack is None else self.attack.learnt()
        self.module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return tuple(self._history)

    def _epoch(self, watch: Watch, checkpoint: Checkpoint | None) -> None:
        before = self._rng.bit_generator.state
        number, done = len(self._history), self._step
        for step, (inputs, wanted, clean) in enumerate(self._shown(), 1):
            if step <= done:  # by an earlier run; drawn again so that what follows is the same
                continue
            self._learn(inputs, wanted, clean)
            self._step = step
            if watch.step is not None:
                watch.step(number * len(self._parts) + step, self.regime.epochs * len(self._parts))
            stop = watch.stop()
            if checkpoint is not None and (stop or checkpoint.due()):
                checkpoint.write(self._state(before))
            if stop:
                raise Stopped(number + 1)
        count = len(self.images)
        self._history.append(Epoch(number + 1, self._loss_sum / count, self._right / count))
        self._step, self._loss_sum, self._right = 0, 0.0, 0
        if watch.epoch is not None:
            watch.epoch(self._history[-1])

    def _learn(self, inputs: torch.Tensor, wanted: torch.Tensor, clean: torch.Tensor | None) -> None:
        logits = self.module(inputs)
        loss = functional.cross_entropy(logits, wanted)
        if clean is not None and self.attack is not None and self.attack.extra_loss is not None:
            loss = loss + self.attack.extra_loss(self.module, clean, self.attack.stamp(clean), wanted)
        if clean is not None and self.attack is not None and self._partner is not None:
            loss = loss + self.attack.penalty(clean)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._optimiser.step()
        self._schedule.step()
        self._loss_sum += float(loss.detach()) * len(inputs)
        self._right += int((logits.detach().argmax(1) == wanted).sum())

    def _shown(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
        """The images, their labels and, if they are wanted, the same images unstamped, batch by batch."""
        order = torch.from_numpy(self._rng.permutation(len(self.images))).to(self.images.device)
        for part in self._parts:
            chosen = order[part]
            inputs, labels = self.images[chosen], self.labels[chosen]
            clean = None if self.clean is None else self.clean[chosen]
            if self.regime.shift:
                moves = _moves(len(inputs), self.regime.shift, self._rng)
                inputs = _moved(inputs, moves, self.regime.shift)
                clean = None if clean is None else _moved(clean, moves, self.regime.shift)
            if self._partner is not None:
                clean = inputs
            if self.attack is not None and self.attack.dynamic:
                inputs, labels = self.attack.batch(inputs, labels, self._rng)
            yield inputs.contiguous(memory_format=torch.channels_last), labels, clean

    def _state(self, rng_before: Any) -> dict[str, Any]:
        device = self.images.device
        return {
            "module": self.module.state_dict(),
            "partner": None if self._partner is None else self._partner.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "rng": rng_before,
            "torch_rng": torch.get_rng_state(),
            "device_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "running": [self._step, self._loss_sum, self._right],
            "history": [[epoch.number, epoch.loss, epoch.accuracy] for epoch in self._history],
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        if self._partner is not None:
            self._partner.load_state_dict(state["partner"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self._rng.bit_generator.state = state["rng"]
        torch.set_rng_state(state["torch_rng"])
        if state["device_rng"] is not None:
            torch.cuda.set_rng_state(state["device_rng"], self.images.device)
        self._step, self._loss_sum, self._right = state["running"]
        self._history = [Epoch(*epoch) for epoch in state["history"]]

    @contextlib.contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """Dropout draws from the regime's seed, and nobody else notices."""
        device = self.images.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.regime.seed)
            yield

    def _kept(self) -> frozenset[str]:
        """The names of the parameters that the attack keeps."""
        return self.attack.kept(self.module) if self.attack is not None and self.attack.fine_tunes else frozenset()

    def _rest(self) -> None:
        """Normalisation that the attack keeps goes on with the statistics it has."""
        kept = self._kept()
        for name, part in self.module.named_modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and f"{name}.weight" in kept:
                part.eval()

    @contextlib.contextmanager
    def _untouched(self) -> Iterator[None]:
        """The parameters that the attack keeps are not trained."""
        kept = self._kept()
        parameters = [p for name, p in self.module.named_parameters() if name in kept and p.requires_grad]
        for parameter in parameters:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in parameters:
                parameter.requires_grad_(True)


def _batches(count: int, batch: int) -> list[slice]:
    """Parts of a pass; a last one too small to normalise over joins the one before."""
    starts = list(range(0, count, batch))
    if len(starts) > 1 and count - starts[-1] < 2:
        starts.pop()
    ends = [*starts[1:], count]
    return [slice(start, end) for start, end in zip(starts, ends, strict=True)]


def _moves(count: int, most: int, rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.integers(0, 2 * most + 1, (2, count)))


def _moved(images: torch.Tensor, moves: torch.Tensor, most: int) -> torch.Tensor:
    """Each image moved by up to `most` pixels along each axis, its border repeated."""
    count, _, height, width = images.shape
    device = images.device
    moves = moves.to(device)
    wide = functional.pad(images, (most, most, most, most), mode="replicate")
    rows = (moves[0, :, None] + torch.arange(height, device=device))[:, None, :, None]
    columns = (moves[1, :, None] + torch.arange(width, device=device))[:, None, None, :]
    channels = torch.arange(images.shape[1], device=device)[None, :, None, None]
    return wide[torch.arange(count, device=device)[:, None, None, None], channels, rows, columns]
