"""CSV lists of images: a path a row, with a label or without."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from agnes.errors import Refused, UsageError
from agnes.reading.classes import Numbering, leading_number, number_classes
from agnes.reading.parts import Listing, open_regular
from agnes.text import printable

SUFFIXES = frozenset({".csv", ".tsv"})
MAX_LIST_BYTES = 64 * 2**20
_PATHS = frozenset({"path", "paths", "filename", "file_name", "file", "filepath", "file_path", "image", "image_path"})
_LABELS = frozenset({"label", "labels", "class", "classid", "class_id", "class_name", "target", "category"})


def list_csv(path: Path, known: Sequence[str] | None, base: Path | None = None) -> Listing:
    """The images that a list names, relative to its own folder or to `base`; nothing outside it."""
    source = printable(path)
    rows = _rows(path, source)
    if not rows:
        raise UsageError(f"{source}: an empty list; write a path a row, and a label if known")
    header = [cell.strip().lower() for cell in rows[0][1]]
    at, label_at, body = _columns(header, rows, source)
    root = (base or path.parent).resolve()
    files = tuple(_inside(root, _cell(row, at), f"{source} line {line}") for line, row in body)
    if not files:
        raise UsageError(f"{source}: a header and no images; write a path a row, and a label if known")
    roi = ("only whole images are read: regions of interest (Roi) left out",) if "roi.x1" in header else ()
    names = [] if label_at is None else [_cell(row, label_at) for _, row in body]
    if not any(names):
        return Listing(files, class_names=_clean(known), notes=roi)
    if not all(names):
        line = next(line for (line, _), name in zip(body, names, strict=True) if not name)
        raise UsageError(f"{source} line {line}: no label, though other rows have one; label all rows or none")
    numbering = _number(names, known, source)
    labels = tuple(numbering.labels[name] for name in names)
    return Listing(files, labels, numbering.class_names, numbering.rule, (numbering.note, *roi))


def _clean(known: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if known is None else tuple(printable(name) for name in known)


def _rows(path: Path, source: str) -> list[tuple[int, list[str]]]:
    """Line number and cells of every row that is not blank."""
    with open_regular(path, most=MAX_LIST_BYTES) as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig")
        first = next((line for line in text.splitlines() if line.strip()), "")
        delimiter = max(";\t,", key=first.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{source}: not a CSV list ({printable(error, 80)}); save it as CSV in UTF-8") from error


def _columns(
    header: list[str], rows: list[tuple[int, list[str]]], source: str
) -> tuple[int, int | None, list[tuple[int, list[str]]]]:
    """Where paths and labels stand, and the rows below the header; without a header, first and second."""
    at = next((i for i, cell in enumerate(header) if cell in _PATHS), None)
    label_at = next((i for i, cell in enumerate(header) if cell in _LABELS), None)
    if at is not None:
        return at, label_at, rows[1:]
    if label_at is not None:
        raise UsageError(f"{source}: no column holds the images; name one 'path' or 'filename'")
    return 0, (1 if len(header) > 1 else None), rows


def _cell(row: list[str], at: int) -> str:
    return row[at].strip() if at < len(row) else ""


def _inside(root: Path, named: str, where: str) -> Path:
    """The file a row names, which must lie below the root even once links are followed."""
    if not named:
        raise UsageError(f"{where}: no path; write one or leave the row out")
    absolute = PurePosixPath(named).is_absolute() or PureWindowsPath(named).drive or named.startswith("\\")
    try:
        target = (root / named).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, links in a circle
        raise UsageError(f"{where}: '{printable(named)}' is not a path; correct it") from error
    if absolute or not target.is_relative_to(root):
        raise Refused(
            f"{where}: '{printable(named)}' lies outside the list's folder; AGNES opens only what lies below it; "
            "move the images there"
        )
    return target


def _number(names: list[str], known: Sequence[str] | None, source: str) -> Numbering:
    """Labels of a list are all numbers or all names; a mixture, -1 or 3.0 is a mistake to be told."""
    if not (known and set(names) <= set(known)) and any(_is_numeric(name) for name in names):
        odd = next((name for name in names if not name.isdecimal() or leading_number(name) is None), None)
        if odd is not None:
            raise UsageError(f"{source}: label '{printable(odd)}' is not a class number; count classes from 0")
    return number_classes(names, names, known, source)


def _is_numeric(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
