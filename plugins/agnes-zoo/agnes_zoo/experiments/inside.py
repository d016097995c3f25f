"""What goes on inside a network: channels, logits, triggers as pictures, what noise excites."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from agnes import measuring
from agnes.api import open_network
from agnes.calling import call
from agnes.errors import AgnesError
from agnes.layers import ACTIVATIONS, Layer, kind_of
from agnes.network import Network
from agnes.results import Trigger
from agnes_zoo.experiments.searching import Found, compromised, method
from agnes_zoo.experiments.subject import Subject

Values = dict[str, float | None]
Arrays = dict[str, np.ndarray]
_SHOWN = 4  # triggers in a picture
_PASSED = ACTIVATIONS | {"dropout", "identity"}
_HIGH, _LOW = 2.0, -2.0  # Z-scores of the change and of the variance that count (Koldenhof, table 5.2)


def raised(subject: Subject, found: Found) -> Values:
    """Activations and logits with the triggers of compromised neurons and with those of the others."""
    good = compromised(found)
    others = [t for t in found.triggers if t not in good]
    values: Values = {"compromised": float(len({(t.layer, t.channel) for t in good}))}
    for name, triggers in (("benign", others), ("compromised", good)):
        seen = [_raised(subject, trigger) for trigger in triggers if trigger.layer is not None]
        for position, metric in enumerate(("increase", "logit_before", "logit_after")):
            known = [each[position] for each in seen]
            values[f"{name}_{metric}"] = (max(known) if position == 0 else statistics.mean(known)) if known else None
    return values


def _raised(subject: Subject, trigger: Trigger) -> tuple[float, float, float]:
    """(after - before) / before of the neuron, and the target's logit before and after."""
    images, network = subject.held_out.images[:100], subject.network
    layer = network.layer(str(trigger.layer))
    with torch.no_grad():
        pairs = []
        for shown in (images, trigger.apply(images)):
            maps = layer.by_channel(network.read(shown, [layer])[layer.name])[:, trigger.channel or 0]
            pairs.append((float(maps.mean()), float(network(shown)[:, trigger.target].mean())))
    (before, logit_before), (after, logit_after) = pairs
    return (after - before) / max(abs(before), 1e-6), logit_before, logit_after


def channels(subject: Subject) -> tuple[Values, Arrays]:
    """Z-scores of the true trigger's change and of the variance that candidates are chosen by, channel by channel."""
    true = subject.true_trigger
    if true is None:
        raise AgnesError("this network has no trigger with one target")
    network, images = subject.network, subject.samples.images
    layers = [layer for layer in network.layers if layer.kind == "conv"]
    benign, triggered = (_maps(network, layers, shown) for shown in (images, true.apply(images)))
    changes = [(after - before).norm(dim=2).mean(0) for before, after in zip(benign, triggered, strict=True)]
    tac = torch.cat([measuring.z_scores(each) for each in changes])
    variance = torch.cat([measuring.z_scores(maps.norm(dim=2).var(0)) for maps in benign])
    candidates = call(
        "stimulate",
        "variance",
        method("variance", "stimulation", {}),
        network=network,
        samples=subject.samples,
        representatives=None,
        backend=subject.backend,
    )
    both = torch.stack([tac, variance]).double()
    return (
        {
            "largest_tac": float(tac.max()),
            "high_tac": float((tac >= _HIGH).sum()),
            "low_variance": float((variance < _LOW).sum()),
            "both": float(((tac > 0) & (variance < _LOW)).sum()),
            "candidates": float(len(candidates)),
            "correlation": float(torch.corrcoef(both)[0, 1]),
        },
        {"points": both.T.float().numpy()},
    )


def _maps(network: Network, layers: Sequence[Layer], images: torch.Tensor) -> list[torch.Tensor]:
    """Of each layer the maps before the activation, after the normalisation (Koldenhof, section 4.1)."""
    values, nodes = _read(network, images), {node.name: node for node in network.module.graph.nodes}
    found = []
    for layer in layers:
        node = nodes[layer.node]
        while kind_of(network.module, node) in _PASSED:
            node = node.all_input_nodes[0]
        found.append(layer.by_channel(values[node.name]).cpu())
    return found


def _read(network: Network, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """What every node of the graph gives."""
    values: dict[str, torch.Tensor] = {}

    class Reading(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            values[n.name] = super().run_node(n)
            return values[n.name]

    with torch.no_grad():
        Reading(network.module).run(images.to(network.device))
    return values


def pictures(subject: Subject, found: Found, bound: float) -> tuple[Values, Arrays]:
    """The true trigger and the best reconstructed ones on a grey image."""
    best = sorted((t for t in found.triggers if t.asr >= bound), key=lambda t: -t.asr)[:_SHOWN]
    grey = torch.full((1, *subject.network.input_shape), 0.5)
    shown: list[Trigger] = [*([subject.true_trigger] if subject.true_trigger is not None else []), *best]
    right = [float(t.target == subject.target) for t in best]
    values: Values = {"valid": float(len(best)), "right": statistics.mean(right) if right else None}
    if not shown:
        return values, {}
    images = torch.cat([t.apply(grey).cpu() for t in shown])
    return values, {"images": (images * 255).round().byte().permute(0, 2, 3, 1).numpy()}


def confusion(subject: Subject, found: Found, bound: float, top_p: int) -> tuple[Values, Arrays]:
    """The confusion matrix of images under all working masks, and where its false positives lie."""
    labels, classes = subject.held_out.labels, subject.network.class_count
    assert labels is not None
    matrix = torch.zeros(classes, classes, dtype=torch.int64)
    working = [t for t in found.triggers if t.asr >= bound]
    for trigger in working:
        seen = measuring.predictions(subject.network, trigger.apply(subject.held_out.images), subject.backend).cpu()
        matrix += torch.bincount(labels * classes + seen, minlength=classes * classes).view(classes, classes)
    wrong = matrix.clone().fill_diagonal_(0).sum(0).sort(descending=True).values.double()
    most = max(1, round(top_p * classes / 43))
    total = float(wrong.sum())
    values: Values = {
        "masks": float(len(working)),
        "wrong": total / max(float(matrix.sum()), 1.0),
        "in_top": float(wrong[:most].sum()) / total if total else None,
        "classes": float((wrong > 0.1 * total).sum()) if total else 0.0,
    }
    return values, {"matrix": matrix.numpy()}


def overactivation(subject: Subject, twin: Subject) -> Values:
    """The figures of the paper's Table 2.2, through the method itself; and with normal noise, as the paper may mean."""
    instance, around_zero = (
        method("overactivation", "diagnosis", {"overactivation": {"reference": str(twin.file), "noise": noise}})
        for noise in ("uniform", "normal")
    )
    networks = (subject.network, open_network(twin.file))
    evidence = call(
        "diagnose",
        "overactivation",
        instance,
        network=subject.network,
        samples=subject.samples,
        backend=subject.backend,
    )
    suspect, clean = (instance.values(network, subject.backend).double() for network in networks)
    normal, clean_normal = (around_zero.values(network, subject.backend).double() for network in networks)
    return {
        "max_backdoor": float(suspect.max()),
        "max_clean": float(clean.max()),
        "max_ratio": float(suspect.max() / clean.max().clamp(min=1e-12)),
        "mean_backdoor": float(suspect.mean()),
        "mean_clean": float(clean.mean()),
        "mean_ratio": evidence.score,
        "larger": _of_200(suspect > clean),
        "normal_mean_backdoor": float(normal.mean()),
        "normal_mean_ratio": float(normal.mean() / clean_normal.mean().clamp(min=1e-12)),
        "normal_larger": _of_200(normal > clean_normal),
    }


def _of_200(which: torch.Tensor) -> float:
    return 200 * float(which.double().mean())
