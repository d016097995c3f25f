"""The triggers of the papers, each from a few options."""

from __future__ import annotations

from collections.abc import Callable

from agnes_zoo.attacks.contents import WHITE, YELLOW, Colour, Grid, RandomPixels, Sinusoid
from agnes_zoo.attacks.dynamic import InputAware
from agnes_zoo.attacks.filters import Filter
from agnes_zoo.attacks.hijacking import Hijack
from agnes_zoo.attacks.places import CORNERS, Box, Corner, Pieces, RandomPlace, Shape
from agnes_zoo.attacks.preparing import Perturbation
from agnes_zoo.attacks.triggers import Trigger
from agnes_zoo.attacks.warping import Warp

_IRREGULAR = (  # 62 pixels: about 6 % of 32x32, as ABS has it
    "...##.....",
    "..####..#.",
    ".######.##",
    "##########",
    ".#########",
    "..#######.",
    ".########.",
    "###.#####.",
    ".#...###..",
    "......#...",
)


def square(
    size: int = 3, place: tuple[int, int] = (27, 2), colour: tuple[float, ...] = YELLOW, opacity: float = 1.0
) -> Trigger:
    return Trigger(Colour(colour), Box(*place, size, size), opacity)


def cornered(
    which: str, height: int, width: int, margin: int, colour: tuple[float, ...] = YELLOW
) -> Callable[..., Trigger]:
    def made(
        corner: str = which,
        height: int = height,
        width: int = width,
        margin: int = margin,
        colour: tuple[float, ...] = colour,
        opacity: float = 1.0,
    ) -> Trigger:
        return Trigger(Colour(colour), Corner(corner, height, width, margin), opacity)

    return made


def irregular(colour: tuple[float, ...]) -> Callable[..., Trigger]:
    def made(
        place: tuple[int, int] = (4, -14),
        drawing: tuple[str, ...] = _IRREGULAR,
        colour: tuple[float, ...] = colour,
        opacity: float = 1.0,
    ) -> Trigger:
        return Trigger(Colour(colour), Shape(*place, drawing), opacity)

    return made


def blended(opacity: float = 0.2, seed: int = 0) -> Trigger:
    return Trigger(RandomPixels(seed), opacity=opacity)


def pieces(size: int = 4, margin: int = 4, colour: tuple[float, ...] = YELLOW, opacity: float = 1.0) -> Trigger:
    return Trigger(Colour(colour), Pieces(tuple(Corner(which, size, size, margin) for which in CORNERS)), opacity)


def badnets(
    place: tuple[int, int] = (-4, -4),
    drawing: tuple[str, ...] = ("..#", ".#.", "#.#"),
    colour: tuple[float, ...] = WHITE,
) -> Trigger:
    return Trigger(Colour(colour), Shape(*place, drawing))


def static(step: int = 2, amount: float = 10 / 255) -> Trigger:
    return Trigger(Grid(step, amount))


def adversarial(amount: float = 10 / 255, steps: int = 150) -> Trigger:
    return Trigger(Perturbation(amount, steps))


def filtered(look: Filter) -> Callable[..., Trigger]:
    def made(
        saturation: float = look.saturation,
        gamma: float = look.gamma,
        contrast: float = look.contrast,
        shadows: tuple[float, float, float] = look.shadows,
        highlights: tuple[float, float, float] = look.highlights,
        opacity: float = 1.0,
    ) -> Trigger:
        return Trigger(Filter(saturation, gamma, contrast, shadows, highlights), opacity=opacity)

    return made


def hijack(corner: str = "lower-right", size: int = 8, margin: int = 2, layer: int = -2, steps: int = 200) -> Trigger:
    return Trigger(Hijack(layer, steps), Corner(corner, size, size, margin))


def random_place(size: int = 4, colour: tuple[float, ...] = YELLOW, opacity: float = 1.0) -> Trigger:
    return Trigger(Colour(colour), RandomPlace(size, size), opacity)


def warp(  # WaNet's strength of 0.5 moves 32x32 images by a quarter of a pixel: see the zoo's page on attacks
    strength: float = 3.0, grid: int = 4, seed: int = 0
) -> Trigger:
    return Trigger(Warp(strength, grid, seed))


def sinusoid(amount: float = 40 / 255, frequency: float = 6.0) -> Trigger:
    return Trigger(Sinusoid(amount, frequency))


def input_aware(steps: int = 300, density: float = 0.032) -> Trigger:
    return Trigger(InputAware(steps, density))
