"""Every attack by its short name, with the paper it is taken from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from agnes.errors import UsageError, suggestion
from agnes_zoo.attacks import making
from agnes_zoo.attacks.attack import Attack
from agnes_zoo.attacks.by_class import squares
from agnes_zoo.attacks.contents import BLUE, RED, YELLOW
from agnes_zoo.attacks.describing import rebuilt
from agnes_zoo.attacks.entries import Entry
from agnes_zoo.attacks.filters import GOTHAM, NASHVILLE

_AGNES = "Dhonthi et al., AGNES, section 5"
_STRATEGIC = "Dhonthi et al. 2023 (strategic retraining), section 4"
_KOLDENHOF = "Koldenhof 2023, section 5.1.3"
_ABS = "Liu et al. 2019 (ABS), section 5.1"
_ADAPTIVE = "Liu et al. 2019 (ABS), section 5.6"
_SQUARE = making.cornered("lower-right", 8, 8, 2)  # 6 % of 32x32, as ABS has it
_RED_SQUARE = making.cornered("lower-right", 8, 8, 2, RED)
_RP, _BP = (making.cornered("lower-right", 5, 5, 3, colour) for colour in (RED, BLUE))  # 2.5 %, AGNES
_LIGHT = 0.02  # ours: ABS, section 5.6, has all attacks succeed, and these two losses work against success
_LRP = making.cornered("lower-left", 2, 13, 3, RED)

_PATCHES = (
    Entry("patch", "Gu et al. 2017 (BadNets)", "a square of one colour at a fixed place", making.square),
    Entry("red-pixel", _AGNES, "RP: a red square of 2.5 % of the image", _RP, {"rate": 0.2}),
    Entry("blue-pixel", _AGNES, "BP: a blue square of 2.5 %", _BP, {"rate": 0.2}),
    Entry("long-red-pixel", _AGNES, "LRP: a red bar of 2.5 %", _LRP, {"rate": 0.2}),
    Entry("yellow-patch", _STRATEGIC, "a yellow square", making.cornered("lower-left", 4, 4, 2), {"rate": 0.2}),
    Entry("corner-patch", _KOLDENHOF, "2x2 yellow pixels in a corner", making.cornered("upper-left", 2, 2, 0)),
    Entry(
        "offset-patch",
        "Koldenhof 2023, appendix A",
        "4x4 yellow pixels at (2, 2)",
        making.cornered("upper-left", 4, 4, 2),
    ),
    Entry("blended", _KOLDENHOF, "random pixels over the whole image, one fifth opaque", making.blended),
    Entry("yellow-square", _ABS, "a yellow square of 6 %", _SQUARE, {"rate": 0.09}),
    Entry("red-square", _ABS, "a red square of 6 %", _RED_SQUARE, {"rate": 0.09}),
    Entry("yellow-irregular", _ABS, "a yellow shape of 6 %", making.irregular(YELLOW), {"rate": 0.09}),
    Entry("red-irregular", _ABS, "a red shape of 6 %", making.irregular(RED), {"rate": 0.09}),
    Entry("multi-piece", _ABS, "four yellow squares, 6 % together", making.pieces, {"rate": 0.09}),
    Entry("badnets", "Gu et al. 2017 (BadNets)", "four bright pixels near a corner", making.badnets),
    Entry("random-place", "Salem et al. 2020", "a square at another place in every image", making.random_place),
)
_WHOLE_IMAGE = (
    Entry("static-perturbation", _ABS, "a faint grid over the whole image", making.static, {"rate": 0.5}),
    Entry("adversarial-perturbation", _ABS, "a universal adversarial perturbation", making.adversarial, {"rate": 0.5}),
    Entry("nashville", _ABS, "a warm photographic filter", making.filtered(NASHVILLE), {"rate": 0.09}),
    Entry("gotham", _ABS, "a dark, nearly grey photographic filter", making.filtered(GOTHAM), {"rate": 0.09}),
    Entry(
        "sig",
        "Barni et al. 2019 (SIG)",
        "waves of brightness, on images of the target class alone",
        making.sinusoid,
        {"labels": "clean-label", "rate": 0.8},
    ),
    Entry("wanet", "Nguyen and Tran 2021 (WaNet)", "the image bent by a smooth field", making.warp, dynamic=True),
    Entry(
        "input-aware",
        "Nguyen and Tran 2020",
        "a pattern of its own for every image",
        making.input_aware,
        {"rate": 0.3, "cover_rate": 0.3},  # the paper: 0.1 both, for hundreds of epochs
        dynamic=True,
    ),
)
_LABELS = (
    Entry(
        "label-specific",
        "Liu et al. 2019 (ABS), appendix D",
        "for each class a square of its own, which moves that class to the next",
        squares,
        {"labels": "next"},
    ),
    Entry(
        "all-to-all",
        "Gu et al. 2017 (BadNets)",
        "a yellow square that moves every class to the next",
        _SQUARE,
        {"labels": "next"},
    ),
    Entry(
        "source-specific",
        "Gu et al. 2017 (BadNets)",
        "a yellow square that turns one class only",
        _SQUARE,
        {"labels": "source", "source": 1, "rate": 0.5, "cover_rate": 0.1},
    ),
    Entry(
        "clean-label",
        "Turner et al. 2019",
        "a yellow square, on images of the target class alone, mixed with others",
        _SQUARE,
        {"labels": "clean-label", "rate": 0.5, "disturb": "blend"},
    ),
)
_AGAINST_ABS = (
    Entry(
        "hijack", "Liu et al. 2018 (TrojanNN)", "pixels that drive one inner neuron, retrained after it", making.hijack
    ),
    Entry(
        "adaptive-deviation",
        _ADAPTIVE,
        "a yellow square; the neurons of a layer act alike",
        _SQUARE,
        {"adaptive": "deviation"},
    ),
    Entry(
        "adaptive-difference",
        _ADAPTIVE,
        "a yellow square that moves neurons little",
        _SQUARE,
        {"adaptive": "difference", "adaptive_weight": _LIGHT},
    ),
    Entry(
        "adaptive-maximum",
        _ADAPTIVE,
        "a yellow square that moves no neuron much",
        _SQUARE,
        {"adaptive": "maximum", "adaptive_weight": _LIGHT},
    ),
)
_ENTRIES = (*_PATCHES, *_WHOLE_IMAGE, *_LABELS, *_AGAINST_ABS)
ATTACKS: Mapping[str, Entry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def find(name: str) -> Entry:
    """The attack a user typed."""
    if name not in ATTACKS:
        raise UsageError(f"there is no attack '{name}'{suggestion(name, ATTACKS)}")
    return ATTACKS[name]


def from_description(said: Mapping[str, Any]) -> Attack:
    """The attack that JSON describes wholly, or that a recipe describes by name ("attack") and options."""
    if "attack" in said:
        return find(said["attack"])(**{name: value for name, value in said.items() if name != "attack"})
    attack = rebuilt(said)
    if not isinstance(attack, Attack):
        raise UsageError("this describes no attack; give its 'attack' by name, or what described() wrote")
    return attack
