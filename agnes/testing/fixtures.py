"""Fixtures for the tests of plugins. pytest reads this module at its start, so nothing heavy is imported before use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.samples import Samples
    from agnes.testing.planted import PlantedNetwork

pytest.register_assert_rewrite(
    "agnes.testing.file_checks",
    "agnes.testing.method_checks",
    "agnes.testing.running_checks",
    "agnes.testing.stage_checks",
)


@pytest.fixture
def agnes_backend() -> Backend:
    """A backend on the CPU with a small memory budget."""
    from agnes.testing.inputs import tiny_backend

    return tiny_backend()


@pytest.fixture(params=["plain", "residual", "dense", "fully_connected"])
def agnes_network(request: pytest.FixtureRequest) -> Network:
    """A tiny network; a test that asks for it runs on several shapes."""
    from agnes.testing.inputs import tiny_network

    return tiny_network(request.param)


@pytest.fixture
def agnes_samples(agnes_network: Network) -> Samples:
    """One labelled image of every class that the tiny network knows."""
    from agnes.testing.inputs import tiny_samples

    return tiny_samples(agnes_network, each=1)


@pytest.fixture
def unlabelled_samples(agnes_network: Network) -> Samples:
    """Images for the tiny network whose classes nobody knows."""
    from agnes.testing.inputs import tiny_samples

    return tiny_samples(agnes_network, each=1, labelled=False)


@pytest.fixture
def planted_network() -> PlantedNetwork:
    """A network whose backdoor is known: one channel sees a patch and sends the image to a class."""
    from agnes.testing.planted import plant

    return plant()
