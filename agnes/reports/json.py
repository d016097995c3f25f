"""The report as a JSON object: what report.json holds, `agnes run --json` prints and `agnes schema` describes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agnes.intervals import wilson
from agnes.reports import comparison
from agnes.results import (
    Candidate,
    Evidence,
    MethodRun,
    Relearning,
    Repair,
    Report,
    Trigger,
    TriggerOutcome,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


def as_json(report: Report) -> dict[str, Any]:
    """The report in numbers, texts, lists and objects; a number that is not finite becomes null."""
    return plain(
        {
            "schema_version": report.schema_version,
            "complete": report.complete,
            "model": report.model,
            "data": report.data,
            "verdict": _verdict(report.verdict),
            "candidates": [_candidate(c) for c in report.candidates],
            "triggers": [_trigger(i, t, report.written) for i, t in enumerate(report.triggers)],
            "evidence": [_evidence(e) for e in report.evidence],
            "repair": _repair(report.repair) if report.repair else None,
            "repairs": [_repair(r) for r in report.repairs],
            "methods": [_method(m) for m in report.methods],
            "comparison": comparison.compared(report),
            "timings": report.timings,
            "environment": report.environment,
            "settings": report.settings,
        }
    )


def as_text(report: Report) -> str:
    """The object as text, the same for `report.json` and for standard output."""
    return json.dumps(as_json(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def trigger_stem(index: int, trigger: Trigger) -> str:
    """The name of a trigger's files, without their ending."""
    return f"triggers/{index:02d}-{trigger.method or 'trigger'}-class-{trigger.target}"


def plain(value: Any) -> Any:
    """Anything as what JSON knows."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return [plain(item) for item in sorted(value)]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # arrays and tensors
        return plain(value.tolist())
    return str(value)


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "status": verdict.status,
        "probability": verdict.probability,
        "target": verdict.target,
        "target_name": verdict.target_name,
        "reasons": verdict.reasons,
        "targets": verdict.targets,
        "calibrated": verdict.calibrated,
        "backdoors": verdict.backdoors,
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    positions = candidate.positions
    return {
        "method": candidate.method,
        "layer": candidate.layer,
        "channel": candidate.channel,
        "target": candidate.target,
        "score": candidate.score,
        "elevation": candidate.elevation,
        "elevations": candidate.elevations,
        "low": candidate.low,
        "high": candidate.high,
        "positions": None if positions is None else positions.nonzero().tolist(),
        "curve": _curve(candidate),
    }


def _curve(candidate: Candidate) -> dict[str, Any] | None:
    """A stimulation function as a small plot needs it: the target's logit and the best of the others."""
    curve, target = candidate.curve, candidate.target
    if curve is None or target is None:
        return None
    others = curve.logits.clone()
    others[:, target] = -math.inf
    lines = {"values": curve.values, "target": curve.logits[:, target], "best_other": others.amax(1)}
    return {name: [float(f"{number:.6g}") for number in line.tolist()] for name, line in lines.items()}


def _trigger(index: int, trigger: Trigger, written: bool) -> dict[str, Any]:
    stem = trigger_stem(index, trigger)
    return {
        "method": trigger.method,
        "kind": type(trigger).__name__,
        "purpose": trigger.purpose,
        "target": trigger.target,
        "source": trigger.source,
        "asr": trigger.asr,
        "held_out": trigger.held_out,
        "unseen": trigger.unseen,
        "pixels": trigger.pixels,
        "l1": trigger.l1,
        "layer": trigger.layer,
        "channel": trigger.channel,
        "anomaly_index": trigger.anomaly_index,
        "null_share": trigger.null_share,
        "natural_share": trigger.natural_share,
        "convicts": trigger.convicts,
        "reach": trigger.reach,
        "files": {"picture": f"{stem}.png", "arrays": f"{stem}.npz"} if written else None,
    }


def _evidence(evidence: Evidence) -> dict[str, Any]:
    return {
        "method": evidence.method,
        "name": evidence.name,
        "score": evidence.score,
        "threshold": evidence.threshold,
        "exceeds": evidence.exceeds,
        "target": evidence.target,
        "null": evidence.null,
        "by_class": evidence.by_class,
        "note": evidence.note,
    }


def _repair(repair: Repair) -> dict[str, Any]:
    return {
        "method": repair.method,
        "changes": [{"layer": c.layer, "channel": c.channel, "what": c.what} for c in repair.changes],
        "notes": repair.notes,
        "accuracy_before": repair.accuracy_before,
        "accuracy_after": repair.accuracy_after,
        "accuracy_images": repair.accuracy_images,
        "accuracy_before_interval": _interval(repair.accuracy_before, repair.accuracy_images),
        "accuracy_after_interval": _interval(repair.accuracy_after, repair.accuracy_images),
        "measured_on": repair.measured_on,
        "confusion_before": repair.confusion_before,
        "confusion_after": repair.confusion_after,
        "agreement": repair.agreement,
        "weights": repair.weights,
        "weights_changed": repair.weights_changed,
        "outcomes": [_outcome(outcome) for outcome in repair.outcomes],
        "rescan": _verdict(repair.rescan) if repair.rescan else None,
        "relearning": _relearning(repair.relearning) if repair.relearning else None,
        "exported": repair.exported,
    }


def _interval(share: float | None, count: int) -> tuple[float, float] | None:
    return None if share is None else wilson(share, count)


def _outcome(outcome: TriggerOutcome) -> dict[str, Any]:
    return {
        "method": outcome.method,
        "target": outcome.target,
        "before": outcome.before,
        "before_interval": _interval(outcome.before, outcome.images),
        "after": outcome.after,
        "after_interval": _interval(outcome.after, outcome.images),
        "images": outcome.images,
    }


def _relearning(found: Relearning) -> dict[str, Any]:
    return {
        "method": found.method,
        "target": found.target,
        "images": found.images,
        "measured": found.measured,
        "limit": found.limit,
        "target_steps": found.target_steps,
        "controls": [{"class": label, "steps": steps} for label, steps in found.controls.items()],
        "quick": found.quick,
    }


def _method(run: MethodRun) -> dict[str, Any]:
    return {
        "name": run.name,
        "stage": run.stage,
        "distribution": run.distribution,
        "version": run.version,
        "settings": run.settings,
        "status": run.status,
        "reason": run.reason,
        "chosen": run.chosen,
        "seconds": run.seconds,
        "memory": run.memory,
        "notes": run.notes,
    }


def without_measurements(document: Mapping[str, Any]) -> dict[str, Any]:
    """A report's object less what differs from run to run: times, memory, versions and places."""
    kept = {key: value for key, value in document.items() if key not in ("timings", "environment")}
    kept["methods"] = [_less(m, ("seconds", "memory")) for m in document["methods"]]
    kept["model"] = _less(document["model"], ("path",))
    return kept


def _less(mapping: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key not in names}
