"""The findings of an earlier run, read back from its folder so that its model can be repaired without a new scan."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import torch

from agnes.detecting import INTERRUPTED, Findings
from agnes.errors import Refused, UsageError
from agnes.inverting import MADE
from agnes.judging import DETECTION
from agnes.reading.parts import open_regular
from agnes.reading.triggers import read_trigger
from agnes.reports.folder import REPORT, TRIGGERS
from agnes.results import Candidate, Evidence, MethodRun, Trigger
from agnes.text import printable

if TYPE_CHECKING:
    from agnes.network import Network

_MAX_BYTES = 256 * 2**20  # of a report
_OF_TRIGGER = {
    "asr": (int, float),
    "held_out": int,
    "unseen": bool,
    "source": (int, NoneType),
    "purpose": str,
    "layer": (str, NoneType),
    "channel": (int, NoneType),
    "method": str,
    "anomaly_index": (int, float, NoneType),
    "convicts": bool,
    "reach": (int, float, NoneType),
    "null_share": (int, float, NoneType),
    "natural_share": (int, float, NoneType),
}
_OF_EVIDENCE = {"name": str, "method": str, "note": str, "target": (int, NoneType)}
_LATER = ("null_share", "natural_share", "unseen")  # which not every report has
_MOST = {"asr": 1, "reach": 1, "null_share": 1, "natural_share": 1, "held_out": math.inf}  # and no less than zero
_OF_RUN = ("name", "stage", "distribution", "version", "settings", "status", "reason", "seconds", "chosen")


@dataclass(frozen=True)
class Earlier:
    """A run that has ended: its report as read, and where it lies."""

    folder: Path
    report: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Earlier:
        path = folder / REPORT
        if not path.exists():
            raise UsageError(
                f"{printable(folder, 500)} is no run folder: it has no {REPORT}; give one that `agnes run` wrote"
            )
        with open_regular(path, most=_MAX_BYTES) as file:
            try:
                report = json.load(file)
                wanted = {
                    "model": dict,
                    "data": dict,
                    "verdict": dict,
                    "triggers": list,
                    "candidates": list,
                    "methods": list,
                }
                sound = all(isinstance(report[name], kind) for name, kind in wanted.items())
            except (ValueError, TypeError, KeyError, RecursionError):
                sound = False
        if not sound:
            raise UsageError(f"{printable(path, 500)} is no report of a run; scan the model again")
        return cls(folder, report)

    @property
    def data(self) -> Path | None:
        """The images that were scanned with; None where there were none."""
        source = self.report["data"].get("source")
        if not isinstance(source, str) or self.report["data"].get("inverted"):
            return None
        if not Path(source).exists():  # a re-scan with images made from the model would say nothing
            raise UsageError(f"the images of that run are no longer at {printable(source, 500)}; give them with --data")
        return Path(source)

    @property
    def inverted(self) -> bool:
        """Whether those images were made from the network; of a repair's folder its verdict says so."""
        return bool(self.report["data"].get("inverted")) or self._reasons_hold(MADE)

    @property
    def unjudged(self) -> bool:
        """Whether the run was interrupted before its findings were judged."""
        return self._reasons_hold(INTERRUPTED)

    def given(self, option: str) -> Path | None:
        """The further images that the run was given, where they still are."""
        settings = self.report.get("settings")
        source = settings.get(option) if isinstance(settings, dict) else None
        return Path(source) if isinstance(source, str) and Path(source).exists() else None

    @property
    def runs(self) -> list[MethodRun]:
        """How the methods went that looked for a backdoor."""
        return _told(self.folder, lambda: [_run(each) for each in self.report["methods"] if each["stage"] in DETECTION])

    def _reasons_hold(self, words: str) -> bool:
        reasons = self.report["verdict"].get("reasons")
        return isinstance(reasons, list) and any(isinstance(each, str) and words in each for each in reasons)

    def check(self, model: Mapping[str, Any]) -> None:
        """Refuse findings in another model than this."""
        for fact in ("sha256", "parameters", "classes", "input_shape"):
            if self.report["model"].get(fact) != model.get(fact):
                other = printable(self.report["model"].get("name"), 60)
                raise UsageError(f"{printable(self.folder, 500)} is the run of another model ({other}); scan this one")

    def findings(self, network: Network) -> Findings:
        """What the run found, as objects again, for the judge of today to judge."""

        def made() -> Findings:
            triggers = tuple(self._trigger(each, network) for each in self.report["triggers"])
            candidates = tuple(_candidate(each, network) for each in self.report["candidates"])
            evidence = tuple(_evidence(each, network) for each in self.report.get("evidence", ()))
            return Findings(candidates=candidates, triggers=triggers, evidence=evidence)

        return _told(self.folder, made)

    def _trigger(self, described: Mapping[str, Any], network: Network) -> Trigger:
        name = Path(str((described.get("files") or {})["arrays"])).name  # in the run folder, whatever a report says
        trigger = read_trigger(self.folder / TRIGGERS / name)
        blank = torch.full((1, *network.input_shape), 0.5)
        if trigger.apply(blank).shape != blank.shape or not 0 <= trigger.target < network.class_count:
            raise Refused(f"{printable(name)} is no trigger for this network")
        said = {field: _fact(described, field, _OF_TRIGGER) for field in _said(described)}
        return replace(trigger, **{"unseen": self._unseen(described), **said})

    def _unseen(self, described: Mapping[str, Any]) -> bool:
        """What goes for a trigger where the report does not say: a diagnosis chooses by the images it counts on."""
        stages = [run["stage"] for run in self.report["methods"] if run["name"] == described["method"]]
        return "diagnosis" not in stages


def _said(described: Mapping[str, Any]) -> list[str]:
    """What is to be read of a trigger."""
    return [field for field in _OF_TRIGGER if field in described or field not in _LATER]


def _fact(described: Mapping[str, Any], field: str, kinds: Mapping[str, Any]) -> Any:
    """What a report says of a finding; words are shown and become parts of file names."""
    value, wanted = described[field], kinds[field]
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise TypeError(f"'{field}' is of type {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"'{field}' is no number")
    if field in _MOST and value is not None and not 0 <= value <= _MOST[field]:
        raise ValueError(f"'{field}' cannot be {value}")
    if isinstance(value, str) and value != printable(value, 100 if field == "method" else 10_000):
        raise ValueError(f"'{field}' is no name")
    return value


def _told(folder: Path, make: Any) -> Any:
    """What is made of a report, or one line where its parts are not what they should be."""
    try:
        return make()
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        reason = printable(f"{type(error).__name__}: {error}", 120)
        raise UsageError(f"{printable(folder / REPORT, 500)} is damaged ({reason}); scan the model again") from error


def _run(described: Mapping[str, Any]) -> MethodRun:
    for field in ("name", "status", "reason"):
        if not isinstance(described[field], str):
            raise TypeError(f"'{field}' is of type {type(described[field]).__name__}")
    return MethodRun(**{field: described[field] for field in _OF_RUN}, notes=tuple(described["notes"]))


def _candidate(described: Mapping[str, Any], network: Network) -> Candidate:
    layer = network.layer(described["layer"])
    positions = None
    if described["positions"] is not None:
        of_channel = [size for dim, size in enumerate(layer.shape) if dim != layer.channel_dim]
        positions = torch.zeros(of_channel, dtype=torch.bool)
        for position in described["positions"]:
            positions[tuple(position)] = True
    return Candidate(
        layer=layer.name,
        channel=int(described["channel"]),
        target=described["target"],
        score=float(described["score"]),
        low=_number(described["low"]),
        high=_number(described["high"]),
        elevations=tuple(_number(each) for each in described["elevations"]),
        positions=positions,
        method=described["method"],
    )


def _evidence(described: Mapping[str, Any], network: Network) -> Evidence:
    if described["target"] not in (None, *range(network.class_count)):
        raise ValueError(f"'target' is no class: {described['target']}")
    if len(described["by_class"]) not in (0, network.class_count):
        raise ValueError(f"'by_class' has {len(described['by_class'])} numbers for {network.class_count} classes")
    return Evidence(
        **{field: _fact(described, field, _OF_EVIDENCE) for field in _OF_EVIDENCE},
        score=_number(described["score"]),
        threshold=_number(described["threshold"]),
        null=tuple(_number(each) for each in described["null"]),
        by_class=tuple(_finite(each) for each in described["by_class"]),
    )


def _number(value: Any) -> float:
    """A report's null is a number that was not finite."""
    return float("nan") if value is None else _finite(value)


def _finite(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)
