"""What the tests share: one thread each, GPU tests that wait for a GPU, and a backend that is the same everywhere."""

from __future__ import annotations

import pytest
import torch

from agnes.backend import Backend


def pytest_configure() -> None:
    torch.set_num_threads(1)  # tiny networks only lose by more


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def cpu() -> Backend:
    return Backend.choose("cpu", memory=1 << 28, seed=3)
