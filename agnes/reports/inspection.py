"""A model file looked at: format, layers, kinds, parameters, and which methods apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agnes import settings
from agnes.hookspecs import METHOD_STAGES
from agnes.loading import LoadOptions, open_model
from agnes.registry import BrokenPlugin, Registry
from agnes.reports.json import plain
from agnes.samples import read_samples
from agnes.selection import answer, offered_by, unmet_needs
from agnes.text import counted, printable

if TYPE_CHECKING:
    from agnes.network import Network
    from agnes.samples import Samples

_BY_EARLIER_STAGES = frozenset({"representatives", "candidates", "triggers"})
_DATA = frozenset({"labels", "test_data"})


def inspect(
    model: Path,
    load: LoadOptions,
    data: Path | None = None,
    block: Sequence[str] = (),
    assigned: settings.Assignments | None = None,
) -> dict[str, Any]:
    """What is in a model file, as plain values."""
    registry = Registry.discover(block)
    opened = open_model(model, load, registry, assigned)
    network = opened.network
    samples = None if data is None else read_samples(data, input_shape=network.input_shape)
    if samples is not None:
        samples.check_against(network.input_shape, network.class_count)
    return plain(
        {
            **opened.facts,
            "piecewise_linear": network.piecewise_linear,
            "layers": [{"name": layer.name, "kind": layer.kind, "shape": layer.shape} for layer in network.layers],
            "methods": [_applies(registry, plugin, network, samples) for plugin in _methods(registry)],
        }
    )


def _methods(registry: Registry) -> list[Any]:
    return [plugin for stage in METHOD_STAGES for plugin in registry.of_stage(stage)]


def _applies(registry: Registry, plugin: Any, network: Network, samples: Samples | None) -> dict[str, Any]:
    """Whether a method can run on this network, and why not."""
    row = {"name": plugin.name, "stage": plugin.stage}
    try:
        method = registry.method(plugin)
    except BrokenPlugin as error:
        return {**row, "applies": False, "why": str(error)}
    offered = offered_by(network, samples) | _BY_EARLIER_STAGES
    if samples is None:
        offered |= _DATA  # not asked yet
    reason = unmet_needs(method.needs, offered)
    if reason:
        return {**row, "applies": False, "why": reason}
    try:
        return {**row, "applies": True, "why": answer(plugin, method().suits, network) or "when named"}
    except BrokenPlugin as error:
        return {**row, "applies": False, "why": str(error)}


def text(found: Mapping[str, Any]) -> str:
    """The same for the eye."""
    shape = "x".join(map(str, found["input_shape"]))
    lines = [
        f"{printable(found['name'])}: {found.get('format', 'unknown format')}, opened by {found['loader']}",
        f"  input       {shape} (channels, height, width), pixels in 0 to 1",
        f"  classes     {found['classes']}",
        f"  parameters  {found['parameters']:,}",
        f"  kinds       {', '.join(found['kinds'])}",
        f"  piecewise linear: {'yes' if found['piecewise_linear'] else 'no'}",
    ]
    lines += [f"  {key:<11} {_short(found[key])}" for key in sorted(set(found) - _SHOWN)]
    lines.append(f"  {counted(len(found['layers']), 'layer')}")
    lines += [f"    {layer['name']:<28} {layer['kind']:<10} {_shape(layer['shape'])}" for layer in found["layers"]]
    lines.append("  methods")
    for method in found["methods"]:
        mark = "applies" if method["applies"] else "no"
        lines.append(f"    {method['name']:<16} {method['stage']:<12} {mark:<8} {printable(method['why'])}")
    return "\n".join(lines)


_SHOWN = {
    "name", "loader", "format", "input_shape", "classes", "class_names", "parameters", "kinds", "layers", "methods",
    "piecewise_linear",
}  # fmt: skip


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return printable(", ".join(f"{k} {v}" for k, v in value.items()))
    return printable(value)


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
