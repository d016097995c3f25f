"""What `agnes zoo list` tells."""

from __future__ import annotations

import json
from typing import Any

import torch

from agnes.registry import Plugin, Registry
from agnes.text import printable
from agnes_zoo import recipes
from agnes_zoo.attacks import ATTACKS
from agnes_zoo.data import NAMES

CLASSES = 43  # at which parameters are counted


def everything() -> dict[str, list[dict[str, Any]]]:
    """Architectures, attacks, data sets and recipes."""
    registry = Registry.discover()
    return {
        "architectures": [_architecture(plugin) for plugin in registry.of_stage("architecture")],
        "attacks": [{"name": e.name, "says": e.says, "paper": e.paper} for e in ATTACKS.values()],
        "data": [{"name": name, "says": says} for name, says in NAMES.items()],
        "recipes": [_recipe(name) for name in recipes.names()],
    }


def _architecture(plugin: Plugin) -> dict[str, Any]:
    found: dict[str, Any] = {"name": plugin.name, "distribution": plugin.distribution, "parameters": None, "says": ""}
    try:
        make = plugin.load()
        with torch.device("meta"):
            module = make(CLASSES)
    except Exception as error:  # one that cannot be made hides no other
        return {**found, "says": f"cannot be made: {printable(error, 80)}"}
    says = (make.__doc__ or "").strip().partition("\n")[0]
    return {**found, "parameters": sum(p.numel() for p in module.parameters()), "says": says}


def _recipe(name: str) -> dict[str, Any]:
    recipe = recipes.read(name)
    trojaned = sum(entry.plan.attack is not None for entry in recipe.entries)
    return {"name": name, "clean": len(recipe.entries) - trojaned, "trojaned": trojaned}


def as_json(found: dict[str, Any]) -> str:
    return json.dumps({"parameters_at_classes": CLASSES, **found}, indent=1)


def as_text(found: dict[str, Any]) -> str:
    """In columns."""
    lines = [f"architectures (parameters at {CLASSES} classes)"]
    lines += [
        f"  {a['name']:<14} {'' if a['parameters'] is None else format(a['parameters'], ','):>12}  {a['says']}"
        for a in found["architectures"]
    ]
    lines += ["attacks", *(f"  {a['name']:<24} {a['says']} ({a['paper']})" for a in found["attacks"])]
    lines += ["data sets (--data also takes a path)", *(f"  {d['name']:<14} {d['says']}" for d in found["data"])]
    lines += ["recipes", *(f"  {r['name']:<14} {r['clean']} clean, {r['trojaned']} trojaned" for r in found["recipes"])]
    return "\n".join(lines)
