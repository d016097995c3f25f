"""onnxruntime in a child process: the reference that every load and every export is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from agnes import confinement
from agnes.errors import Refused
from agnes_onnx import opsets

_WORK = "agnes_onnx.session:outputs"
_KINDS = ("opset", "ir")  # of version that a file may be too new in


@dataclass(frozen=True)
class Answer:
    """What onnxruntime gave."""

    version: str
    outputs: tuple[torch.Tensor, ...]

    @property
    def logits(self) -> torch.Tensor:
        """The first output, a row for each image."""
        return self.outputs[0].flatten(1)


@dataclass(frozen=True)
class Reference:
    """How a model is run for comparison."""

    fixed_batch: int | None = None  # the one size of batch that it takes
    limits: confinement.Limits | None = None
    what: str = "the model"

    def run(self, content: bytes, images: torch.Tensor) -> Answer:
        """The outputs of a model without external data; Refused where it crashes, or takes more than the limits."""
        answer = self._asked(content, images)
        for _ in _KINDS:
            if "too_new" in answer:
                content = opsets.restamped(content, str(answer["too_new"]), int(answer["newest"]))
                answer = self._asked(content, images)
        if "too_new" in answer:
            raise Refused(f"refused: {self.what} is newer than the installed onnxruntime; export it with opset 20")
        return Answer(str(answer["version"]), tuple(torch.from_numpy(value) for value in answer["outputs"]))

    def _asked(self, content: bytes, images: torch.Tensor) -> dict[str, Any]:
        return confinement.run(
            _WORK,
            content,
            images.contiguous().numpy(),
            self.fixed_batch,
            limits=self.limits,
            prepare=("onnxruntime", "numpy"),
            what=self.what,
        )


def isolation() -> str:
    """How well the child is shut in here."""
    return str(confinement.strength())
