"""Attacks with known truth: what is put on an image, and how training data are poisoned with it."""

from agnes_zoo.attacks.attack import Attack
from agnes_zoo.attacks.catalogue import ATTACKS, find, from_description
from agnes_zoo.attacks.contents import YELLOW
from agnes_zoo.attacks.entries import Entry
from agnes_zoo.attacks.poisoning import Plan, plan, poison, success, success_rate
from agnes_zoo.attacks.sheets import attack_sheet, overview
from agnes_zoo.attacks.triggers import Patch, Trigger

__all__ = [
    "ATTACKS",
    "YELLOW",
    "Attack",
    "Entry",
    "Patch",
    "Plan",
    "Trigger",
    "attack_sheet",
    "find",
    "from_description",
    "overview",
    "plan",
    "poison",
    "success",
    "success_rate",
]
