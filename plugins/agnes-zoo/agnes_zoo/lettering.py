"""Digits and letters as strokes, so that signs look the same on a machine with other fonts or none."""

from __future__ import annotations

from agnes_zoo.drawing import Colour, Point, Sheet, arc

_BOTTOM = ((0.5, 0.69), (0.4, 0.31))  # centre and radii of a digit's lower loop
_TOP = ((0.5, 0.25), (0.34, 0.25))

# in a box of width 1 and height 1, from its upper left corner
STROKES: dict[str, tuple[list[Point], ...]] = {
    "0": (arc((0.5, 0.5), (0.4, 0.5), 0, 360),),
    "1": ([(0.2, 0.24), (0.58, 0.0), (0.58, 1.0)],),
    "2": ([*arc((0.5, 0.29), (0.37, 0.29), 190, 380), (0.1, 1.0), (0.92, 1.0)],),
    "3": ([*arc(*_TOP, 200, 450), *arc(*_BOTTOM, 270, 520)],),
    "5": ([(0.84, 0.0), (0.24, 0.0), (0.16, 0.46), *arc((0.48, 0.67), (0.4, 0.33), 235, 505)],),
    "6": (arc(*_BOTTOM, 0, 360), [*arc((0.58, 0.5), (0.48, 0.5), 200, 295)]),
    "7": ([(0.08, 0.0), (0.92, 0.0), (0.4, 1.0)],),
    "8": (arc(*_TOP, 0, 360), arc(*_BOTTOM, 0, 360)),
    "S": ([*arc((0.5, 0.25), (0.36, 0.25), 330, 90), *arc((0.5, 0.75), (0.36, 0.25), 270, 510)],),
    "T": ([(0.05, 0.0), (0.95, 0.0)], [(0.5, 0.0), (0.5, 1.0)]),
    "O": (arc((0.5, 0.5), (0.42, 0.5), 0, 360),),
    "P": ([(0.15, 1.0), (0.15, 0.0), *arc((0.5, 0.27), (0.4, 0.27), 270, 450), (0.15, 0.54)],),
}


def write(
    sheet: Sheet, text: str, width: float, height: float, thickness: float, colour: Colour, gap: float = 0.3
) -> None:
    """The text in the middle of the sheet, letters `gap` of a letter's width apart."""
    letter = width / (len(text) + gap * (len(text) - 1))
    for index, sign in enumerate(text):
        left = -width / 2 + index * letter * (1 + gap)
        for stroke in STROKES[sign]:
            placed = [(left + x * letter, (y - 0.5) * height) for x, y in stroke]
            sheet.stroke(placed, thickness, colour)
