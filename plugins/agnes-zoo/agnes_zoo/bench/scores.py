"""Scores that somebody else's detector gave, read from a CSV file."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable
from pathlib import Path

from agnes.errors import UsageError
from agnes.text import printable
from agnes_zoo.bench.scans import Scan

_CALLED = 0.5  # a probability from here on counts as "backdoored"
_COLUMNS = ("model", "probability", "target", "seconds")


def read(path: Path, models: Iterable[str]) -> list[Scan]:
    """A score for every model of the zoo; anything else is an error that names the line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            lines = [
                {(k or "").strip(): (v or "").strip() for k, v in line.items() if k is not None} for line in reader
            ]
            columns = [(name or "").strip() for name in reader.fieldnames or ()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{printable(path)} cannot be read: {error}") from error
    for needed in _COLUMNS[:2]:
        if needed not in columns:
            raise UsageError(f"{printable(path)} has no column '{needed}'; it takes {', '.join(_COLUMNS)}")
    wanted = sorted(models)
    found: dict[str, Scan] = {}
    for number, line in enumerate(lines, 2):
        scan = _scan(line, wanted, f"{printable(path)}, line {number}")
        if scan.name in found:
            raise UsageError(f"{printable(path)}, line {number}: {scan.name} has a score already")
        found[scan.name] = scan
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UsageError(f"{printable(path)} has no score of {missing[0]} ({len(missing)} missing); score every model")
    return [found[name] for name in wanted]


def _scan(line: dict[str, str], wanted: list[str], where: str) -> Scan:
    name = _name(line["model"])
    if name not in wanted:
        raise UsageError(f"{where}: the zoo has no model '{printable(line['model'], 60)}'")
    probability = _number(line["probability"], "probability", where)
    if probability is None or not 0 <= probability <= 1:
        raise UsageError(
            f"{where}: a probability lies between 0 and 1, not {printable(line['probability'], 40) or 'nothing'}"
        )
    target = _number(line.get("target", ""), "target", where)
    if target is not None and (target < 0 or target != int(target)):
        raise UsageError(f"{where}: a target is the number of a class, not {target:g}")
    status = "backdoored" if probability >= _CALLED else "clean"
    targets = () if target is None else (int(target),)
    return Scan(name, status, probability, targets, _number(line.get("seconds", ""), "seconds", where))


def _name(said: str) -> str:
    """`model-0007`, `models/model-0007.onnx` and `7` are the same model."""
    stem = re.split(r"[/\\]", said)[-1].removesuffix(".onnx")
    return f"model-{int(stem):04d}" if stem.isdecimal() else stem


def _number(text: str, what: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{where}: {what} takes a number, not '{printable(text, 40)}'")
    return value
