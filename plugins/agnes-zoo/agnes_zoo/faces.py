"""The faces of 43 traffic signs, numbered and shaped as in GTSRB."""

from __future__ import annotations

from agnes_zoo.drawing import BLACK, BLUE, GREY, RED, WHITE, YELLOW, Sheet, arc, regular
from agnes_zoo.lettering import write
from agnes_zoo.pictograms import WARNINGS, car, truck

CLASS_NAMES: tuple[str, ...] = (
    "speed-20",
    "speed-30",
    "speed-50",
    "speed-60",
    "speed-70",
    "speed-80",
    "end-speed-80",
    "speed-100",
    "speed-120",
    "no-passing",
    "no-passing-trucks",
    "right-of-way",
    "priority-road",
    "yield",
    "stop",
    "no-vehicles",
    "no-trucks",
    "no-entry",
    "caution",
    "curve-left",
    "curve-right",
    "double-curve",
    "bumpy-road",
    "slippery-road",
    "road-narrows",
    "road-work",
    "traffic-lights",
    "pedestrians",
    "children",
    "bicycles",
    "snow",
    "animals",
    "end-of-limits",
    "turn-right",
    "turn-left",
    "straight-on",
    "straight-or-right",
    "straight-or-left",
    "keep-right",
    "keep-left",
    "roundabout",
    "end-no-passing",
    "end-no-passing-trucks",
)
STOP = CLASS_NAMES.index("stop")
_SPEEDS = {0: "20", 1: "30", 2: "50", 3: "60", 4: "70", 5: "80", 7: "100", 8: "120"}
_ARROWS: dict[int, tuple[list[tuple[float, float]], ...]] = {
    33: ([(-0.25, 0.6), (-0.25, -0.1), (0.6, -0.1)],),
    34: ([(0.25, 0.6), (0.25, -0.1), (-0.6, -0.1)],),
    35: ([(0.0, 0.65), (0.0, -0.65)],),
    36: ([(-0.2, 0.6), (-0.2, -0.65)], [(-0.2, 0.25), (0.6, 0.25)]),
    37: ([(0.2, 0.6), (0.2, -0.65)], [(0.2, 0.25), (-0.6, 0.25)]),
    38: ([(-0.45, -0.45), (0.5, 0.5)],),
    39: ([(0.45, -0.45), (-0.5, 0.5)],),
}


def draw_face(label: int, side: int) -> Sheet:
    """The sign of a class, upright and clean, on a transparent sheet."""
    sheet = Sheet(side)
    if label in _SPEEDS:
        _ring(sheet)
        _speed(sheet, _SPEEDS[label])
    elif label in WARNINGS:
        _triangle(sheet, -90)
        WARNINGS[label](sheet)
    elif label in _ARROWS or label == 40:
        _command(sheet, label)
    elif label in (6, 32, 41, 42):
        _ending(sheet, label)
    elif label in (9, 10, 15, 16):
        _ban(sheet, label)
    else:
        _single(sheet, label)
    return sheet


def _ring(sheet: Sheet) -> None:
    sheet.disc(1.0, WHITE)
    sheet.disc(0.97, RED)
    sheet.disc(0.76, WHITE)


def _speed(sheet: Sheet, text: str) -> None:
    width, thickness = (0.84, 0.15) if len(text) == 2 else (1.06, 0.13)
    write(sheet, text, width, 0.68, thickness, BLACK)


def _triangle(sheet: Sheet, turn: float) -> None:
    """A white triangle with a red border, its middle on the sheet's middle."""
    for radius, colour in ((1.18, WHITE), (1.14, RED), (0.8, WHITE)):
        corners = regular(3, radius, turn)
        sheet.polygon([(x, y + (0.2 if turn < 0 else -0.2)) for x, y in corners], colour)


def _command(sheet: Sheet, label: int) -> None:
    sheet.disc(1.0, WHITE)
    sheet.disc(0.96, BLUE)
    if label == 40:
        for turn in (0, 120, 240):
            sheet.arrow(arc((0, 0), (0.52, 0.52), turn, turn + 88, 10), 0.13, WHITE, head=2.2)
        return
    for points in _ARROWS[label]:
        sheet.arrow(points, 0.22, WHITE, head=2.0)


def _ending(sheet: Sheet, label: int) -> None:
    sheet.disc(1.0, GREY)
    sheet.disc(0.94, WHITE)
    if label == 6:
        write(sheet, "80", 0.84, 0.68, 0.14, GREY)
    elif label == 41:
        car(sheet, (-0.36, 0.0), GREY)
        car(sheet, (0.36, 0.0), GREY)
    elif label == 42:
        truck(sheet, (-0.34, 0.0), GREY)
        car(sheet, (0.44, 0.06), GREY, 0.8)
    for shift in (-0.16, -0.05, 0.06, 0.17):
        sheet.stroke([(-0.56 + shift, 0.62 + shift), (0.56 + shift, -0.62 + shift)], 0.06, BLACK)


def _ban(sheet: Sheet, label: int) -> None:
    _ring(sheet)
    if label == 9:
        car(sheet, (-0.34, 0.0), RED)
        car(sheet, (0.34, 0.0), BLACK)
    elif label == 10:
        truck(sheet, (-0.26, 0.0), RED)
        car(sheet, (0.44, 0.06), BLACK, 0.8)
    elif label == 16:
        truck(sheet, (0.0, 0.0), BLACK, 1.25)


def _single(sheet: Sheet, label: int) -> None:
    if label == 12:
        for radius, colour in ((1.0, WHITE), (0.97, BLACK), (0.93, WHITE), (0.66, YELLOW)):
            sheet.polygon(regular(4, radius, 0), colour)
    elif label == 13:
        _triangle(sheet, 90)
    elif label == 14:
        sheet.polygon(regular(8, 1.0, 22.5), WHITE)
        sheet.polygon(regular(8, 0.94, 22.5), RED)
        write(sheet, "STOP", 1.36, 0.58, 0.12, WHITE, gap=0.4)
    else:
        sheet.disc(1.0, WHITE)
        sheet.disc(0.97, RED)
        sheet.box(-0.68, -0.17, 0.68, 0.17, WHITE)
