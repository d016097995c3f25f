"""Repaired networks measured against the truth, after the fact and apart from whatever repaired them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agnes.api import open_network
from agnes.backend import Backend
from agnes.errors import AgnesError
from agnes.loading import LoadOptions
from agnes_zoo.attacks import from_description, success
from agnes_zoo.bench.scans import SCANS, Scan
from agnes_zoo.manifest import Manifest, held_out
from agnes_zoo.scoring.repairs import RepairRow
from agnes_zoo.training import as_tensors

if TYPE_CHECKING:
    import torch

    from agnes.network import Network


def rows(zoo: Path, manifest: Manifest, output: Path, scans: Sequence[Scan]) -> list[RepairRow]:
    """Every model before and after its repair."""
    held = {name: as_tensors(*held_out(zoo, name)) for name in manifest.data}
    return [_row(manifest.models[scan.name], scan, output, held) for scan in scans]


def _row(
    record: Mapping[str, Any], scan: Scan, output: Path, held: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
) -> RepairRow:
    accuracy, asr, reason = record["accuracy"], record["asr"], scan.reason
    measured = None
    if scan.repaired is not None:
        file = output / SCANS / scan.name / scan.repaired
        try:
            measured = measure(file, record, *held[record["data"]])
        except AgnesError as error:
            reason = f"the repaired network cannot be measured: {error}"
    after = measured or (accuracy, asr)
    return RepairRow(
        scan.name,
        record["arch"],
        record["data"],
        record["attack"],
        scan.status,
        measured is not None,
        accuracy,
        after[0],
        asr,
        after[1],
        scan.seconds,
        reason,
        scan.rescan,
    )


def measure(
    file: Path, record: Mapping[str, Any], images: torch.Tensor, labels: torch.Tensor
) -> tuple[float, float | None]:
    """Accuracy, and the true trigger's success where there is one, of the network in a file."""
    weights_only = file.suffix.lower() != ".onnx"
    options = LoadOptions(arch=record["arch"], input_shape=tuple(images.shape[1:])) if weights_only else LoadOptions()
    return measured(open_network(file, options), record, images, labels)


def measured(
    network: Network, record: Mapping[str, Any], images: torch.Tensor, labels: torch.Tensor
) -> tuple[float, float | None]:
    """Accuracy, and the true trigger's success where there is one."""
    from agnes.measuring import predictions

    backend = Backend.choose("cpu")
    right = float((predictions(network, images, backend) == labels).float().mean())
    if record["true_attack"] is None:
        return right, None
    attack = from_description(record["true_attack"])
    return right, success(predictions(network, attack.stamp(images, labels), backend), labels, attack)
