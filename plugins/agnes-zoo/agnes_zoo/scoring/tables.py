"""Scores as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

TITLES = {
    "auc": "AUC",
    "tpr_at_0_fpr": "TPR at 0 % FPR",
    "tpr_at_5_fpr": "TPR at 5 % FPR",
    "brier": "Brier score",
    "calibration_error": "expected calibration error",
    "target_accuracy": "target class right",
    "called_backdoored_of_trojaned": "trojaned models called backdoored",
    "called_backdoored_of_clean": "clean models called backdoored",
    "accuracy_before": "accuracy before",
    "accuracy_after": "accuracy after",
    "accuracy_lost": "accuracy lost",
    "asr_before": "true ASR before",
    "asr_after": "true ASR after",
    "removed": "true ASR at most 10 % after",
    "models": "models",
    "trojaned": "trojaned",
    "called_backdoored": "called backdoored",
    "called_interval": "as a share, 95 %",
    "auc_interval": "AUC, 95 %",
    "repaired": "repaired",
    "mean_probability": "mean probability",
    "inconclusive": "inconclusive",
    "failed": "failed",
    "seconds": "median s",
}


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows under their names; what is not known is empty."""
    to = io.StringIO()
    writer = csv.DictWriter(to, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return to.getvalue()


def measures(found: Mapping[str, Mapping[str, Any]]) -> str:
    """One line a measure, with its interval."""
    lines = [(TITLES[name], number(m["value"]), interval(m["interval"])) for name, m in found.items()]
    return table(("measure", "value", "95 % interval"), lines)


def kinds(title: str, groups: Sequence[Mapping[str, Any]]) -> str:
    """One line a kind of model."""
    if not groups:
        return ""
    columns = [name for name in groups[0] if name != "name"]
    lines = [(group["name"], *(_cell(group[name]) for name in columns)) for group in groups]
    return table((title, *(TITLES[name] for name in columns)), lines)


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left and the others to the right."""
    rule = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join(["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(line) + " |" for line in lines)]) + "\n"


def _cell(value: Any) -> str:
    return interval(value) if isinstance(value, (tuple, list)) else number(value)


def number(value: float | int | bool | None) -> str:
    """Three digits after the point, whole numbers as they are, nothing for what is not known."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"


def interval(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else f"{number(float(bounds[0]))} to {number(float(bounds[1]))}"


def _spread(found: Mapping[str, float | None]) -> str:
    known = found["median"] is not None
    return f"median {number(found['median'])}, most {number(found['most'])}" if known else "not known"


def detection(summary: Mapping[str, Any], zoo: str, how: str) -> str:
    """table.md of a bench of detection."""
    parts = [
        f"# Detection on {zoo}\n",
        f"{summary['models']} models, {summary['clean']} clean and {summary['trojaned']} trojaned; {how}.",
        f"{summary['inconclusive']} verdicts are inconclusive, {summary['failed']} scans failed; "
        f"{summary['without_probability']} models have no probability and count as 0.5.",
        f"Seconds a model: {_spread(summary['seconds'])}. Peak memory, MiB: {_spread(summary['memory_mib'])}.\n",
        measures(summary["measures"]),
        "An attack's AUC is against all clean models.\n",
        kinds("attack", summary["by_attack"]),
        kinds("architecture", summary["by_arch"]),
        kinds("data", summary["by_data"]),
    ]
    return "\n".join(parts)


def repair(summary: Mapping[str, Any], zoo: str) -> str:
    """table.md of a bench of repair."""
    parts = [
        f"# Repair on {zoo}\n",
        f"{summary['models']} models, {summary['trojaned']} trojaned; {summary['repaired']} were repaired, "
        f"{summary['repaired_of_trojaned']} of them trojaned; {summary['unmeasured']} could not be measured. "
        "A model that was not repaired counts as it was.\n",
        "## All trojaned models\n",
        measures(summary["all_trojaned"]),
        "## Trojaned models that were repaired\n",
        measures(summary["repaired_trojaned"]),
        "## Clean models\n",
        measures(summary["clean"]),
        _bar(summary["bar"]),
        kinds("attack", summary["by_attack"]),
    ]
    return "\n".join(parts)


def _bar(said: Mapping[str, Mapping[str, Any]]) -> str:
    """How many networks reach the bar, and how honest the certificates are."""
    names = {
        "reached": "true ASR below 5 % and at most 2 points of accuracy lost",
        "success_reported": "re-scan clean",
        "dishonest": "re-scan clean, true ASR above 20 %",
    }
    lines = [
        (title, f"{said[name]['count']} of {said[name]['of']}", interval(said[name]["interval"]))
        for name, title in names.items()
    ]
    return table(("trojaned models", "models", "95 % interval"), lines)
