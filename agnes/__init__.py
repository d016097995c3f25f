"""AGNES finds, shows and removes backdoors in trained image classifiers.

import agnes

report = agnes.scan("model.onnx", data="samples/", methods=["aproxsm", "tao-inversion"])
print(report.verdict.status, report.verdict.target_name)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {  # public name -> the module it lives in, imported when first asked for
    "AdditiveTrigger": "results",
    "AgnesError": "errors",
    "Backend": "backend",
    "Candidate": "results",
    "Change": "results",
    "Evidence": "results",
    "Layer": "layers",
    "LoadOptions": "loading",
    "MaskTrigger": "results",
    "Method": "method",
    "Network": "network",
    "OutOfTime": "errors",
    "Refused": "errors",
    "Repair": "results",
    "Report": "results",
    "Representatives": "results",
    "Request": "engine",
    "Samples": "samples",
    "State": "network",
    "Trigger": "results",
    "UsageError": "errors",
    "Verdict": "results",
    "apply": "stamping",
    "hookimpl": "hookspecs",
    "likeness": "measuring",
    "open_network": "api",
    "read_samples": "samples",
    "read_trigger": "reading.triggers",
    "repair": "api",
    "run": "engine",
    "scan": "api",
}


if TYPE_CHECKING:
    from agnes.api import open_network as open_network
    from agnes.api import repair as repair
    from agnes.api import scan as scan
    from agnes.backend import Backend as Backend
    from agnes.engine import Request as Request
    from agnes.engine import run as run
    from agnes.errors import AgnesError as AgnesError
    from agnes.errors import OutOfTime as OutOfTime
    from agnes.errors import Refused as Refused
    from agnes.errors import UsageError as UsageError
    from agnes.hookspecs import hookimpl as hookimpl
    from agnes.layers import Layer as Layer
    from agnes.loading import LoadOptions as LoadOptions
    from agnes.measuring import likeness as likeness
    from agnes.method import Method as Method
    from agnes.network import Network as Network
    from agnes.network import State as State
    from agnes.reading.triggers import read_trigger as read_trigger
    from agnes.results import AdditiveTrigger as AdditiveTrigger
    from agnes.results import Candidate as Candidate
    from agnes.results import Change as Change
    from agnes.results import Evidence as Evidence
    from agnes.results import MaskTrigger as MaskTrigger
    from agnes.results import Repair as Repair
    from agnes.results import Report as Report
    from agnes.results import Representatives as Representatives
    from agnes.results import Trigger as Trigger
    from agnes.results import Verdict as Verdict
    from agnes.samples import Samples as Samples
    from agnes.samples import read_samples as read_samples
    from agnes.stamping import apply as apply


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'agnes' has no attribute '{name}'")
    return getattr(import_module(f"agnes.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
