"""A sheet to draw a sign's face on, in coordinates from -1 to 1, x to the right and y down."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]

RED: Colour = (196, 28, 36)
BLUE: Colour = (18, 84, 176)
YELLOW: Colour = (248, 190, 24)
GREEN: Colour = (20, 150, 70)
WHITE: Colour = (244, 244, 240)
GREY: Colour = (120, 122, 124)
BLACK: Colour = (22, 22, 24)

_MARGIN = 1.08  # a sign's edge stays inside the sheet


class Sheet:
    """A transparent sheet drawn several times larger than it is read."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.image = Image.new("RGBA", (side, side), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self.image)

    def _place(self, points: Iterable[Point]) -> list[Point]:
        half = self.side / 2
        return [(half + x * half / _MARGIN, half + y * half / _MARGIN) for x, y in points]

    def polygon(self, points: Iterable[Point], colour: Colour) -> None:
        """A filled shape."""
        self._draw.polygon(self._place(points), fill=(*colour, 255))

    def disc(self, radius: float, colour: Colour, centre: Point = (0.0, 0.0)) -> None:
        """A filled circle."""
        x, y = centre
        box = self._place([(x - radius, y - radius), (x + radius, y + radius)])
        self._draw.ellipse([*box[0], *box[1]], fill=(*colour, 255))

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """A filled upright rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def stroke(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """A line through the points, with round ends and joints."""
        placed = self._place(points)
        thick = width * self.side / 2 / _MARGIN
        self._draw.line(placed, fill=(*colour, 255), width=max(1, round(thick)))
        for x, y in placed:
            box = (x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2)
            self._draw.ellipse(box, fill=(*colour, 255))

    def arrow(self, points: Sequence[Point], width: float, colour: Colour, head: float = 2.6) -> None:
        """A line that ends in an arrow head; the head's length and width are `head` times the line's width."""
        (x0, y0), (x1, y1) = points[-2], points[-1]
        length = math.hypot(x1 - x0, y1 - y0)
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        reach, half = head * width, head * width * 0.6
        neck = (x1 - dx * reach, y1 - dy * reach)
        self.stroke([*points[:-1], neck], width, colour)
        left, right = (neck[0] - dy * half, neck[1] + dx * half), (neck[0] + dy * half, neck[1] - dx * half)
        self.polygon([left, (x1, y1), right], colour)

    def reduced(self, side: int) -> np.ndarray:
        """The sheet scaled down: red, green, blue times coverage, and coverage; float32, 4 x side x side in [0, 1]."""
        small = np.asarray(self.image.resize((side, side), Image.Resampling.BOX), dtype=np.float32) / 255
        small[..., :3] *= small[..., 3:]
        return np.ascontiguousarray(small.transpose(2, 0, 1))


def arc(centre: Point, radii: Point, start: float, end: float, steps: int = 24) -> list[Point]:
    """Points along an ellipse; angles in degrees, 0 to the right, growing clockwise."""
    angles = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
    return [(centre[0] + radii[0] * math.cos(a), centre[1] + radii[1] * math.sin(a)) for a in angles]


def regular(sides: int, radius: float, turn: float) -> list[Point]:
    """The corners of a regular polygon, the first at `turn` degrees."""
    return arc((0.0, 0.0), (radius, radius), turn, turn + 360, sides)[:-1]
