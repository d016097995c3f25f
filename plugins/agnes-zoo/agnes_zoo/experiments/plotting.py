"""The plot of a table: bars or lines beside the paper's, dots, a matrix or pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from agnes_zoo.experiments.running import Figure, Outcome

_INK, _OURS, _PAPER = (40, 40, 40), (178, 24, 43), (146, 167, 190)
_ROW, _BAR, _LEFT, _TOP, _WIDE, _RIGHT = 22, 16, 330, 60, 420, 190  # of a bar chart, in pixels
_COUNTED = 10_000  # a number from it on is written out
_PANEL, _GAP = 300, 60  # of dots and matrices
_CELL = 96  # of a picture


def plot(outcome: Outcome) -> bytes:
    """The bytes of a .png."""
    kind = outcome.table.plot
    if kind in ("dots", "heat", "pictures") and outcome.arrays:
        sheet = {"dots": _dots, "heat": _heat, "pictures": _pictures}[kind](outcome)
    else:
        sheet = _bars(outcome)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _bars(outcome: Outcome) -> Image.Image:
    """For each figure a bar, ours over the paper's, hollow where below 0; each column on a scale of its own."""
    figures = [f for f in outcome.figures if f.value is not None or f.paper is not None]
    scale = {f.column: _scale([g for g in figures if g.column == f.column]) for f in figures}
    sheet, draw = _sheet(_LEFT + _WIDE + _RIGHT, _TOP + _ROW * max(len(figures), 1) + 30, _title(outcome))
    _text(draw, (_LEFT, 34), "ours", _OURS)
    _text(draw, (_LEFT + 50, 34), "the paper's", _PAPER)
    for number, figure in enumerate(figures):
        top = _TOP + number * _ROW
        _text(draw, (_LEFT - 10, top + _BAR // 2), f"{figure.row}: {figure.column}", anchor="rm")
        for value, colour, offset in ((figure.value, _OURS, 0), (figure.paper, _PAPER, _BAR // 2)):
            if value is not None:
                length = max(1, round(_WIDE * abs(value) / scale[figure.column]))
                box = [_LEFT, top + offset, _LEFT + length, top + offset + _BAR // 2 - 1]
                draw.rectangle(box, fill=colour if value >= 0 else None, outline=colour)
        values = " / ".join(_written(value) for value in (figure.value, figure.paper))
        _text(draw, (_LEFT + _WIDE + 10, top + _BAR // 2), values, anchor="lm")
    return sheet


def _written(value: float | None) -> str:
    """A figure beside its bar."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= _COUNTED else f"{value:.3g}"


def _scale(figures: Sequence[Figure]) -> float:
    """What fills the width: the largest value of a column, and no less than 1, so that a small share looks small."""
    return max([1.0, *(abs(v) for f in figures for v in (f.value, f.paper) if v is not None)])


def _dots(outcome: Outcome) -> Image.Image:
    """Change against variance, a panel for each network."""
    panels = {name: each["points"] for name, each in _first_of_rows(outcome).items() if "points" in each}
    sheet, draw = _panels(outcome, len(panels))
    for number, (name, points) in enumerate(panels.items()):
        left = _GAP + number * (_PANEL + _GAP)
        low, high = points.min(0), points.max(0)
        span = np.where(high > low, high - low, 1.0)
        _frame(draw, left, name)
        for x, y in ((points - low) / span).tolist():
            at = left + x * _PANEL, _TOP + (1 - y) * _PANEL
            draw.ellipse([at[0] - 2, at[1] - 2, at[0] + 2, at[1] + 2], fill=_OURS)
        level = (-2.0 - low[1]) / span[1]  # below it a channel is a candidate
        if 0 <= level <= 1:
            at_height = _TOP + (1 - level) * _PANEL
            draw.line([left, at_height, left + _PANEL, at_height], fill=_INK)
        _text(draw, (left, _TOP + _PANEL + 8), f"TAC Z {low[0]:.1f} to {high[0]:.1f}; variance Z up")
    return sheet


def _heat(outcome: Outcome) -> Image.Image:
    """Confusion matrices: labels down, predictions across."""
    panels = {name: each["matrix"] for name, each in _first_of_rows(outcome).items() if "matrix" in each}
    sheet, draw = _panels(outcome, len(panels))
    for number, (name, matrix) in enumerate(panels.items()):
        left = _GAP + number * (_PANEL + _GAP)
        shade = 255 - (np.sqrt(matrix / max(int(matrix.max()), 1)) * 255).round().astype(np.uint8)
        picture = Image.fromarray(shade).resize((_PANEL, _PANEL), Image.Resampling.NEAREST)
        sheet.paste(picture.convert("RGB"), (left, _TOP))
        _frame(draw, left, name)
        _text(draw, (left, _TOP + _PANEL + 8), "label down, prediction across")
    return sheet


def _pictures(outcome: Outcome) -> Image.Image:
    """A line of triggers for each network: the true one, then those reconstructed."""
    lines = {", ".join(name): each["images"] for name, each in outcome.arrays.items() if "images" in each}
    most = max((len(images) for images in lines.values()), default=1)
    sheet, draw = _sheet(_LEFT + most * (_CELL + 8) + 20, _TOP + max(len(lines), 1) * (_CELL + 8), _title(outcome))
    _text(draw, (_LEFT, 34), "the true trigger first, then those reconstructed")
    for number, (name, images) in enumerate(lines.items()):
        top = _TOP + number * (_CELL + 8)
        _text(draw, (_LEFT - 10, top + _CELL // 2), name, anchor="rm")
        for place, image in enumerate(images):
            picture = Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0]).convert("RGB")
            sheet.paste(picture.resize((_CELL, _CELL), Image.Resampling.NEAREST), (_LEFT + place * (_CELL + 8), top))
    return sheet


def _first_of_rows(outcome: Outcome) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of each row once, whatever probe they came from."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for (row, _), arrays in outcome.arrays.items():
        found.setdefault(row, dict(arrays))
    return found


def _panels(outcome: Outcome, count: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    return _sheet(_GAP + max(count, 1) * (_PANEL + _GAP), _TOP + _PANEL + 40, _title(outcome))


def _frame(draw: ImageDraw.ImageDraw, left: int, name: str) -> None:
    draw.rectangle([left, _TOP, left + _PANEL, _TOP + _PANEL], outline=_INK)
    _text(draw, (left, _TOP - 20), name)


def _title(outcome: Outcome) -> str:
    return f"{outcome.table.where}: {outcome.table.title} ({outcome.scale.name})"


def _sheet(width: int, height: int, title: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    sheet = Image.new("RGB", (max(width, 20 + 8 * len(title)), height), "white")
    draw = ImageDraw.Draw(sheet)
    _text(draw, (10, 8), title, size=16)
    return sheet, draw


def _text(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    colour: tuple[int, int, int] = _INK,
    anchor: str = "la",
    size: int = 12,
) -> None:
    draw.text(at, text, fill=colour, anchor=anchor, font=ImageFont.load_default(size))
