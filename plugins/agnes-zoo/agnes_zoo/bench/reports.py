"""What a saved report says, and what the judge makes of it with the calibration of today."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from agnes import judging
from agnes.results import Benign, Evidence, MethodRun, Trigger, Verdict
from agnes.traits import Trait, traits

if TYPE_CHECKING:
    from agnes.network import Network

_LATER = {"null_share": None, "natural_share": None, "unseen": True}  # of triggers, which not every report has
_NEEDED = ("model", "data", "methods", "triggers", "evidence")  # by the judge


def read(folder: Path) -> dict[str, Any] | None:
    """The report in a run folder; None where there is none that can be read."""
    try:
        return json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def traits_of(report: Mapping[str, Any]) -> list[Trait]:
    """The traits that the judge saw."""
    _, height, width = report["model"]["input_shape"]
    return traits(_triggers(report), _evidence(report), height * width)


def judged(report: Mapping[str, Any]) -> Verdict | None:
    """The verdict by the calibration of this version; None where it knows nothing of the methods that ran."""
    if not all(part in report for part in _NEEDED):
        return None
    runs = cast(list[MethodRun], [SimpleNamespace(**run) for run in report["methods"]])
    benign = Benign(report["data"].get("accuracy"), report["data"].get("accuracy_images") or 0)
    network = cast("Network", SimpleNamespace(**report["model"]))
    verdict = judging.judge(network, _triggers(report), _evidence(report), runs, benign=benign)
    return verdict if verdict.calibrated else None


def _triggers(report: Mapping[str, Any]) -> list[Trigger]:
    return cast(list[Trigger], [SimpleNamespace(**{**_LATER, **said}) for said in report["triggers"]])


def _evidence(report: Mapping[str, Any]) -> list[Evidence]:
    return cast(list[Evidence], [SimpleNamespace(**said) for said in report["evidence"]])
