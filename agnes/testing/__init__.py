"""What a plugin's author tests with: checks to inherit, tiny networks, and one with a backdoor that is known.

from agnes.testing import StimulationChecks

class TestMine(StimulationChecks):
    method = Mine()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agnes.testing.file_checks import ExporterChecks, LoaderChecks
    from agnes.testing.inputs import tiny_backend, tiny_network, tiny_samples
    from agnes.testing.method_checks import MethodChecks, ReporterChecks
    from agnes.testing.planted import PlantedNetwork, plant
    from agnes.testing.stage_checks import (
        AbstractionChecks,
        DiagnosisChecks,
        InversionChecks,
        MitigationChecks,
        StimulationChecks,
    )

_WHERE = {
    "ExporterChecks": "file_checks",
    "LoaderChecks": "file_checks",
    "MethodChecks": "method_checks",
    "ReporterChecks": "method_checks",
    "AbstractionChecks": "stage_checks",
    "DiagnosisChecks": "stage_checks",
    "InversionChecks": "stage_checks",
    "MitigationChecks": "stage_checks",
    "StimulationChecks": "stage_checks",
    "PlantedNetwork": "planted",
    "plant": "planted",
    "tiny_backend": "inputs",
    "tiny_network": "inputs",
    "tiny_samples": "inputs",
}


def __getattr__(name: str) -> Any:  # pytest imports this package at its start, and torch takes seconds
    if name not in _WHERE:
        raise AttributeError(f"module 'agnes.testing' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"agnes.testing.{_WHERE[name]}"), name)


__all__ = [
    "AbstractionChecks",
    "DiagnosisChecks",
    "ExporterChecks",
    "InversionChecks",
    "LoaderChecks",
    "MethodChecks",
    "MitigationChecks",
    "PlantedNetwork",
    "ReporterChecks",
    "StimulationChecks",
    "plant",
    "tiny_backend",
    "tiny_network",
    "tiny_samples",
]
