"""What the tests of mitigation methods share."""

from __future__ import annotations

import pytest

from agnes.testing import plant, tiny_backend


@pytest.fixture
def planted():
    return plant()


@pytest.fixture
def backend():
    return tiny_backend()
