"""What stands on the warning triangles and between the rings, as small drawings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from agnes_zoo.drawing import BLACK, GREEN, RED, YELLOW, Colour, Point, Sheet, arc


def car(sheet: Sheet, centre: Point, colour: Colour, size: float = 1.0) -> None:
    """A car seen from behind."""
    x, y = centre
    s = 0.3 * size
    sheet.polygon([(x - 0.7 * s, y - 0.75 * s), (x + 0.7 * s, y - 0.75 * s), (x + s, y), (x - s, y)], colour)
    sheet.box(x - 1.1 * s, y - 0.1 * s, x + 1.1 * s, y + 0.6 * s, colour)
    for side in (-1, 1):
        sheet.box(x + side * 0.75 * s - 0.2 * s, y + 0.5 * s, x + side * 0.75 * s + 0.2 * s, y + s, colour)


def truck(sheet: Sheet, centre: Point, colour: Colour, size: float = 1.0) -> None:
    """A lorry seen from the side."""
    x, y = centre
    s = 0.34 * size
    sheet.box(x - 1.3 * s, y - 1.1 * s, x + 0.4 * s, y + 0.45 * s, colour)
    sheet.box(x + 0.52 * s, y - 0.5 * s, x + 1.35 * s, y + 0.45 * s, colour)
    for wheel in (-0.8, 0.9):
        sheet.disc(0.34 * s, colour, (x + wheel * s, y + 0.6 * s))


def person(sheet: Sheet, centre: Point, size: float = 1.0, lean: float = 0.0) -> None:
    """Somebody walking."""
    x, y = centre
    s = 0.5 * size
    sheet.disc(0.17 * s, BLACK, (x + lean * s, y - 0.85 * s))
    sheet.stroke([(x + 0.8 * lean * s, y - 0.55 * s), (x, y + 0.1 * s)], 0.3 * s, BLACK)
    sheet.stroke([(x, y + 0.1 * s), (x - 0.4 * s, y + 0.85 * s)], 0.18 * s, BLACK)
    sheet.stroke([(x, y + 0.1 * s), (x + 0.4 * s, y + 0.85 * s)], 0.18 * s, BLACK)
    sheet.stroke([(x - 0.4 * s, y - 0.05 * s), (x + 0.8 * lean * s, y - 0.5 * s), (x + 0.45 * s, y)], 0.13 * s, BLACK)


def priority(sheet: Sheet) -> None:
    sheet.arrow([(0, 0.48), (0, -0.5)], 0.17, BLACK, head=2.0)
    sheet.stroke([(-0.32, 0.12), (0.32, 0.12)], 0.12, BLACK)


def exclamation(sheet: Sheet) -> None:
    sheet.polygon([(-0.13, -0.5), (0.13, -0.5), (0.08, 0.2), (-0.08, 0.2)], BLACK)
    sheet.disc(0.11, BLACK, (0, 0.4))


def curve(sheet: Sheet, side: int) -> None:
    sheet.arrow([(-side * 0.12, 0.5), (-side * 0.12, 0.1), (side * 0.34, -0.22)], 0.16, BLACK, head=2.0)


def double_curve(sheet: Sheet) -> None:
    sheet.stroke([(0.16, 0.5), (0.16, 0.28), (-0.16, 0.02), (-0.16, -0.16), (0.12, -0.46)], 0.16, BLACK)


def bumps(sheet: Sheet) -> None:
    sheet.box(-0.48, 0.32, 0.48, 0.48, BLACK)
    for x in (-0.22, 0.22):
        sheet.polygon(arc((x, 0.34), (0.21, 0.3), 180, 360), BLACK)


def skid(sheet: Sheet) -> None:
    car(sheet, (0.0, -0.16), BLACK, 0.9)
    for side in (-0.2, 0.2):
        sheet.stroke([(side, 0.2), (side + 0.12, 0.3), (side - 0.1, 0.42), (side + 0.06, 0.52)], 0.09, BLACK)


def narrowing(sheet: Sheet) -> None:
    sheet.stroke([(-0.2, 0.5), (-0.2, -0.34)], 0.12, BLACK)
    sheet.stroke([(0.32, 0.5), (0.32, 0.2), (0.1, -0.02), (0.1, -0.34)], 0.12, BLACK)


def digger(sheet: Sheet) -> None:
    person(sheet, (-0.1, 0.08), 0.86, lean=0.5)
    sheet.stroke([(-0.14, 0.02), (0.3, 0.36)], 0.08, BLACK)
    sheet.polygon([(0.12, 0.52), (0.34, 0.26), (0.56, 0.52)], BLACK)


def lamps(sheet: Sheet) -> None:
    for y, colour in ((-0.26, RED), (0.1, YELLOW), (0.46, GREEN)):
        sheet.disc(0.165, colour, (0, y))


def walker(sheet: Sheet) -> None:
    person(sheet, (0.0, 0.04), 1.0)
    for x in (-0.42, -0.14, 0.14, 0.42):
        sheet.box(x - 0.08, 0.46, x + 0.08, 0.56, BLACK)


def children(sheet: Sheet) -> None:
    person(sheet, (-0.2, 0.14), 0.72, lean=-0.3)
    person(sheet, (0.22, 0.08), 0.86, lean=0.3)


def bicycle(sheet: Sheet) -> None:
    for x in (-0.28, 0.28):
        sheet.stroke(arc((x, 0.28), (0.19, 0.19), 0, 360), 0.07, BLACK)
    sheet.stroke([(-0.28, 0.28), (-0.12, -0.04), (0.18, -0.04), (0.02, 0.28), (-0.28, 0.28)], 0.07, BLACK)
    sheet.stroke([(0.28, 0.28), (0.14, -0.2), (0.28, -0.22)], 0.07, BLACK)
    sheet.stroke([(-0.2, -0.14), (-0.04, -0.14)], 0.08, BLACK)


def snowflake(sheet: Sheet) -> None:
    middle = (0.0, 0.1)
    for turn in (0, 60, 120):
        sheet.stroke(arc(middle, (0.42, 0.42), turn, turn + 180, 1), 0.09, BLACK)
    for turn in range(0, 360, 60):
        fork = arc(middle, (0.252, 0.252), turn, turn, 1)[0]
        for spread in (-35, 35):
            sheet.stroke([fork, arc(fork, (0.18, 0.18), turn + spread, turn + spread, 1)[0]], 0.06, BLACK)


def deer(sheet: Sheet) -> None:
    sheet.polygon(
        [(-0.42, 0.12), (0.1, -0.1), (0.3, -0.42), (0.46, -0.3), (0.3, 0.02), (0.16, 0.22), (-0.4, 0.3)], BLACK
    )
    for top, foot in (((-0.36, 0.2), (-0.5, 0.54)), ((-0.26, 0.22), (-0.2, 0.54)), ((0.12, 0.16), (0.42, 0.36))):
        sheet.stroke([top, foot], 0.08, BLACK)
    sheet.stroke([(0.3, -0.4), (0.14, -0.58)], 0.06, BLACK)


WARNINGS: dict[int, Callable[[Sheet], None]] = {  # by GTSRB's class numbers
    11: priority,
    18: exclamation,
    19: partial(curve, side=-1),
    20: partial(curve, side=1),
    21: double_curve,
    22: bumps,
    23: skid,
    24: narrowing,
    25: digger,
    26: lamps,
    27: walker,
    28: children,
    29: bicycle,
    30: snowflake,
    31: deer,
}
