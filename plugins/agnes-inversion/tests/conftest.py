import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent))

from planted_corner import CLASSES, SHAPE, Planted

from agnes.network import Network
from agnes.samples import Samples


@pytest.fixture(scope="session")
def network() -> Network:
    return Network.of(Planted().eval(), SHAPE)


@pytest.fixture(scope="session")
def samples() -> Samples:
    """Four images a class: dim noise and a bright row where the class is told."""
    labels = torch.arange(CLASSES).repeat(4)
    images = 0.3 * torch.rand(len(labels), *SHAPE, generator=torch.Generator().manual_seed(0))
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 4 + label] = 0.9
    return Samples(images, labels)
