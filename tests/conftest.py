"""What the engine's tests share."""

from __future__ import annotations

import pytest

from agnes.backend import Backend

collect_ignore = ["third_party"]  # tested where it is installed, by test_third_party_plugin.py


@pytest.fixture
def cpu() -> Backend:
    return Backend.choose("cpu", memory=1 << 28, seed=3)
