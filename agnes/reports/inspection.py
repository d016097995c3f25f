"""A model file looked at: format, layers, kinds, parameters, and which methods apply."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agnes import settings
from agnes.hookspecs import METHOD_STAGES
from agnes.loading import LoadOptions, open_model
from agnes.registry import BrokenPlugin, Plugin, Registry
from agnes.reports.json import plain
from agnes.samples import read_samples
from agnes.selection import answer, check_names, offered_by, why_skipped
from agnes.text import counted, printable

if TYPE_CHECKING:
    from agnes.network import Network
    from agnes.samples import Samples

_BY_EARLIER_STAGES = frozenset({"representatives", "candidates", "triggers"})
_DATA = frozenset({"labels", "test_data"})
_LAYER = ("name", "kind", "shape", "norm", "norm_first", "activation")


def inspect(
    model: Path,
    load: LoadOptions,
    data: Path | None = None,
    block: Sequence[str] = (),
    assigned: settings.Assignments | None = None,
) -> dict[str, Any]:
    """What is in a model file, as plain values."""
    registry, assigned = Registry.discover(block), assigned or {}
    check_names(registry, (), assigned, {})
    opened = open_model(model, replace(load, images=data), registry, assigned)
    network = opened.network
    samples = None if data is None else read_samples(data, input_shape=network.input_shape)
    if samples is not None:
        samples.check_against(network.input_shape, network.class_count)
    return plain(
        {
            **opened.facts,
            "piecewise_linear": network.piecewise_linear,
            "layers": [{name: getattr(layer, name) for name in _LAYER} for layer in network.layers],
            "methods": [_applies(registry, plugin, network, samples, assigned) for plugin in _methods(registry)],
        }
    )


def _methods(registry: Registry) -> list[Plugin]:
    return [plugin for stage in METHOD_STAGES for plugin in registry.of_stage(stage)]


def _applies(
    registry: Registry, plugin: Plugin, network: Network, samples: Samples | None, assigned: settings.Assignments
) -> dict[str, Any]:
    """Whether a method can run on this network, and why not."""
    row = {"name": plugin.name, "stage": plugin.stage}
    try:
        method = registry.method(plugin)
    except BrokenPlugin as error:
        return {**row, "applies": False, "why": str(error)}
    offered = offered_by(network, samples) | _BY_EARLIER_STAGES
    if samples is None:
        offered |= _DATA  # not asked yet
    made = settings.build(method, plugin.name, assigned.get(plugin.name, {}))
    try:
        if reason := answer(plugin, why_skipped, made, network, offered):
            return {**row, "applies": False, "why": reason}
        return {**row, "applies": True, "why": answer(plugin, made.suits, network) or "when named"}
    except BrokenPlugin as error:
        return {**row, "applies": False, "why": str(error)}


def text(found: Mapping[str, Any]) -> str:
    """The same for the eye: the file, its layers, the methods."""
    head = (
        f"{printable(found['name'])}: {printable(found.get('format') or 'format unknown')}, opened by {found['loader']}"
    )
    facts = [(label.replace("_", " "), value) for label, value in _facts(found) if value not in ("", None)]
    layers = [(printable(x["name"], 40), x["kind"], _by(x["shape"]), ", ".join(_ends(x))) for x in found["layers"]]
    methods = [
        (m["name"], m["stage"], "applies" if m["applies"] else "no", printable(m["why"])) for m in found["methods"]
    ]
    parts = [head, _table(facts)]
    parts += ["", counted(len(layers), "layer"), _table(layers)] if layers else []
    parts += ["", "methods", _table(methods)] if methods else []
    return "\n".join(parts)


def _facts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is known of a file, the usual first, what only its loader knows after that, the proof at the end."""
    first = {
        "address": found.get("address"),
        "commit": found.get("commit"),
        "size": None if found["bytes"] is None else f"{found['bytes']:,} bytes",
        "sha256": found["sha256"],
        "input": f"{_by(found['input_shape'])} (channels, height, width), pixels in 0 to 1",
        "classes": f"{found['classes']}{_named(found['class_names'])}",
        "parameters": f"{found['parameters']:,}",
        "kinds": found["kinds"],
        "piecewise_linear": found["piecewise_linear"],
        "peeled_off": found["softmax_peeled"],
    }
    last = {"parity": _parity(found.get("parity")), "isolation": found.get("isolation")}
    own = {key: value for key, value in found.items() if key not in (_SHOWN | _ELSEWHERE | first.keys() | last.keys())}
    return [(printable(key, 40), _words(value)) for key, value in {**first, **own, **last}.items()]


_SHOWN = frozenset(
    ("name", "path", "loader", "format", "bytes", "input_shape", "class_names", "softmax_peeled", "layers")
)
_ELSEWHERE = frozenset(("methods", "weights"))  # told in a table, or too long to tell
_WIDTH = 110
_NAMES = 6  # of classes that are shown


def _words(value: Any) -> str:
    """A value in words; empty where there is nothing to say."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{printable(name, 60)} {_words(each)}" for name, each in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_words(each) for each in value)
    return printable(f"{value:.3g}" if isinstance(value, float) else value)


def _parity(parity: Any) -> str:
    """How far the network is from its file, and against what that was measured."""
    if not isinstance(parity, Mapping) or not isinstance(parity.get("relative"), float):
        return _words(parity)
    real = parity.get("real_images") or 0
    images = f"{counted(parity['images'] - real, 'random image')}" + (f" and {real} of yours" if real else "")
    differs = f"differs by {parity['relative']:.1g} relative from" if parity["relative"] else "the same as"
    return f"{differs} {printable(parity['reference'])}, on {images}"


def _named(names: Sequence[str]) -> str:
    if all(name == f"class {index}" for index, name in enumerate(names)):
        return ""
    shown = ", ".join(printable(name, 30) for name in names[:_NAMES])
    return f": {shown}" + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else "")


def _ends(layer: Mapping[str, Any]) -> list[str]:
    ends = ["batch_norm"] * bool(layer["norm"]) + [layer["activation"]] * bool(layer["activation"])
    return ends if layer["norm_first"] else ends[::-1]


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns, the last column wrapped under itself."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        start = "  " + "".join(f"{cell:<{width}}  " for cell, width in zip(row, widths, strict=False))
        lines += textwrap.wrap(row[-1], _WIDTH, initial_indent=start, subsequent_indent=" " * len(start)) or [
            start.rstrip()
        ]
    return "\n".join(lines)


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
