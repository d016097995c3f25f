"""The plot of a bench: the ROC curve and the reliability diagram, side by side."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from agnes_zoo.scoring import metrics

_SIDE, _MARGIN, _OVER = 400, 70, 3  # of one diagram, around it, and how much finer it is drawn
_INK, _FAINT, _LINE, _CLEAN = (40, 40, 40), (225, 225, 225), (178, 24, 43), (33, 102, 172)

Point = tuple[float, float]


def picture(scores: np.ndarray, truth: np.ndarray, auc: float | None) -> bytes:
    """Both diagrams as the bytes of a .png."""
    sheet = Image.new("RGB", (2 * (_SIDE + 2 * _MARGIN) * _OVER, (_SIDE + 2 * _MARGIN) * _OVER), "white")
    draw = ImageDraw.Draw(sheet)
    known = "" if auc is None else f", AUC {auc:.3f}"
    left = _frame(draw, 0, f"ROC{known}", "false positive rate", "true positive rate")
    fpr, tpr = metrics.roc(scores, truth)
    _curve(draw, left, [(0, 0), (1, 1)], _INK, 1)
    if auc is not None:
        _curve(draw, left, list(zip(fpr.tolist(), tpr.tolist(), strict=True)), _LINE, 3)
    right = _frame(draw, 1, "Reliability", "probability of a backdoor", "share trojaned")
    _curve(draw, right, [(0, 0), (1, 1)], _INK, 1)
    _bins(draw, right, metrics.calibration(scores, truth))
    buffer = io.BytesIO()
    small = (sheet.width // _OVER, sheet.height // _OVER)
    sheet.resize(small, Image.Resampling.LANCZOS).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _frame(draw: ImageDraw.ImageDraw, column: int, title: str, across: str, up: str) -> Callable[[Point], Point]:
    """Axes with a grid; where a point of the diagram lies on the sheet."""
    x0, y0 = (column * (_SIDE + 2 * _MARGIN) + _MARGIN) * _OVER, _MARGIN * _OVER
    side = _SIDE * _OVER

    def place(point: Point) -> Point:
        return x0 + point[0] * side, y0 + (1 - point[1]) * side

    for tick in range(6):
        at = tick / 5
        draw.line([place((at, 0)), place((at, 1))], _FAINT, _OVER)
        draw.line([place((0, at)), place((1, at))], _FAINT, _OVER)
        _text(draw, place((at, 0)), f"{at:.1f}", "mt", 13, drop=6)
        _text(draw, place((0, at)), f"{at:.1f} ", "rm", 13)
    draw.rectangle([place((0, 1)), place((1, 0))], outline=_INK, width=_OVER)
    _text(draw, place((0.5, 1)), title, "mb", 17, drop=-8)
    _text(draw, place((0.5, 0)), across, "mt", 14, drop=28)
    _text(draw, place((0, 1)), up, "lb", 14, drop=-8)
    return place


def _text(draw: ImageDraw.ImageDraw, at: Point, text: str, anchor: str, size: int, drop: int = 0) -> None:
    font = ImageFont.load_default(size * _OVER)
    draw.text((at[0], at[1] + drop * _OVER), text, fill=_INK, anchor=anchor, font=font)


def _curve(
    draw: ImageDraw.ImageDraw, place: Callable[[Point], Point], points: Sequence[Point], colour: tuple, width: int
) -> None:
    draw.line([place(point) for point in points], colour, width * _OVER, joint="curve")


def _bins(draw: ImageDraw.ImageDraw, place: Callable[[Point], Point], bins: Sequence[tuple[float, float, int]]) -> None:
    """A disc for each bin, its area by how many models it holds."""
    most = max((count for _, _, count in bins), default=1)
    for probability, share, count in bins:
        x, y = place((probability, share))
        radius = (4 + 10 * (count / most) ** 0.5) * _OVER
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=_CLEAN)
        _text(draw, (x, y - radius), str(count), "mb", 12, drop=-2)
