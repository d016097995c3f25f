"""Writing a repaired network back to a file, by whichever exporter knows the format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agnes import settings
from agnes.calling import call
from agnes.registry import Registry

if TYPE_CHECKING:
    from agnes.network import Network

_FALLBACK = (".onnx", ".safetensors")  # where nobody writes the format that the model came in


def export(
    network: Network, stem: Path, suffix: str, registry: Registry, assigned: settings.Assignments
) -> tuple[Path | None, str]:
    """The file written, in the model's own format where an exporter knows it; or None and why there is none."""
    reasons = []
    for ending in dict.fromkeys((suffix, *_FALLBACK)):
        for plugin in registry.of_stage("exporter"):
            try:
                exporter = settings.build(registry.method(plugin), plugin.name, assigned.get(plugin.name, {}))
                results = call(
                    "export", plugin.name, exporter, network=network, path=stem.with_name(stem.name + ending)
                )
            except (Exception, SystemExit) as error:  # a report without its repaired file is better than none
                reasons.append(f"{plugin.name}: {str(error).strip().partition(chr(10))[0] or type(error).__name__}")
                continue
            if results is not None:
                return Path(results), "; ".join(reasons)
    return None, "; ".join(reasons) or "no installed exporter writes this format"
