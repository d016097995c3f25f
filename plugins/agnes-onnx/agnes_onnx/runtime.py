"""onnxruntime: the reference that every load and every export is compared with."""

from __future__ import annotations

from typing import Any

import torch

from agnes.errors import Refused
from agnes.text import printable

PROVIDERS = ("CPUExecutionProvider",)  # named, for a GPU build lists devices that are not there


class Reference:
    """A model run by onnxruntime from its bytes."""

    def __init__(self, content: bytes, fixed_batch: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        try:
            self._session: Any = onnxruntime.InferenceSession(content, options, providers=list(PROVIDERS))
        except Exception as error:
            raise Refused(f"refused: onnxruntime does not open the model: {_first_line(error)}") from error
        self._input = self._session.get_inputs()[0].name
        self._fixed_batch = fixed_batch
        self.version = f"onnxruntime {onnxruntime.__version__}"

    def __call__(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Every output for images as the file takes them, in the sizes of batch that it takes."""
        step = self._fixed_batch or len(images)
        parts = []
        for start in range(0, len(images), step):
            part = images[start : start + step]
            filled = torch.cat([part, part[-1:].expand(step - len(part), *part.shape[1:])])
            try:
                values = self._session.run(None, {self._input: filled.contiguous().numpy()})
            except Exception as error:
                raise Refused(f"refused: onnxruntime does not run the model: {_first_line(error)}") from error
            parts.append([torch.from_numpy(value)[: len(part)] for value in values])
        return [torch.cat(values) for values in zip(*parts, strict=True)]


def _first_line(error: Exception) -> str:
    return printable(str(error).strip().partition("\n")[0])
