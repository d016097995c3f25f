"""New weights for a Keras file. Runs in the confined child."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from agnes.errors import Refused
from agnes_tensorflow import conversion, weights


def rewritten(source: Path, target: Path, changed: Mapping[int, np.ndarray], images: np.ndarray) -> np.ndarray:
    """Write the model of a checked file with new weights, read it again, and return what it gives for images."""
    model = conversion.opened(source)
    own = conversion.weights_of(model)
    for index, array in changed.items():
        variable, depthwise = own[index]
        value = weights.to_keras(array, variable.shape, depthwise)
        if value.shape != tuple(variable.shape):
            raise Refused(f"refused: {variable.path} has the shape {tuple(variable.shape)}, not {value.shape}")
        variable.assign(value)
    model.save(str(target))
    again = conversion.opened(target)
    return np.asarray(again(images, training=False), np.float32)
