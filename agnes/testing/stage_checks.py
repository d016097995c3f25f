"""What each stage promises of its results, checked beside what every method promises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from agnes.network import Network
from agnes.results import Candidate, Change, Evidence, Repair, Representatives, Trigger
from agnes.samples import Samples
from agnes.testing.running_checks import RunningChecks
from agnes.testing.watching import bits


class AbstractionChecks(RunningChecks):
    """Representatives: a cluster for every neuron of a layer, one representative at least for every cluster."""

    stage = "abstraction"

    def check(self, results: Any, network: Network, samples: Samples) -> None:
        (found,) = _items(results, Representatives)
        assert found.clusters, "no layer has clusters"
        assert found.clusters.keys() == found.positions.keys(), "clusters and positions name different layers"
        for name, clusters in found.clusters.items():
            shape = network.layer(name).shape
            positions = found.positions[name]
            assert tuple(clusters.shape) == shape, f"clusters of '{name}' are {tuple(clusters.shape)}, its maps {shape}"
            assert tuple(positions.shape) == shape, f"positions of '{name}' are {tuple(positions.shape)}, not {shape}"
            assert clusters.dtype == torch.int64, f"clusters of '{name}' are {clusters.dtype}, not int64"
            assert positions.dtype == torch.bool, f"positions of '{name}' are {positions.dtype}, not bool"
            assert int(clusters.min()) >= 0, f"a neuron of '{name}' has no cluster; give it one of its own"
            without = set(clusters.unique().tolist()) - set(clusters[positions].tolist())
            assert not without, f"clusters {sorted(without)[:5]} of '{name}' have no representative"
        if found.abstract_network is not None:
            logits = found.abstract_network(samples.images)
            assert logits.shape == (len(samples), network.class_count), "the abstract network has other classes"
            assert bool(logits.isfinite().all()), "the abstract network's logits are not all numbers"


class StimulationChecks(RunningChecks):
    """Candidates: channels that exist, best first, with the values that move them."""

    stage = "stimulation"

    def check(self, results: Any, network: Network, samples: Samples) -> None:
        candidates = _items(results, Candidate)
        for candidate in candidates:
            layer = network.layer(candidate.layer)
            assert 0 <= candidate.channel < layer.channels, f"{layer.name} has no channel {candidate.channel}"
            if candidate.target is not None:
                _check_class(candidate.target, network, "a candidate's target")
            assert math.isfinite(candidate.score), f"the score of a candidate is {candidate.score}"
            assert not math.isnan(candidate.low + candidate.high), "low and high are not both numbers"
            assert len(candidate.elevations) in (0, network.class_count), "elevations: one for each class, or none"
            assert all(math.isfinite(value) for value in candidate.elevations), "an elevation is not finite"
            if candidate.positions is not None:
                _check_positions(candidate.positions, layer)
        scores = [candidate.score for candidate in candidates]
        assert scores == sorted(scores, reverse=True), "candidates are not best first"


class InversionChecks(RunningChecks):
    """Triggers: images stay images under them, and what they say of themselves can be so."""

    stage = "inversion"

    def check(self, results: Any, network: Network, samples: Samples) -> None:
        for trigger in _items(results, Trigger):
            _check_class(trigger.target, network, "a trigger's target")
            if trigger.source is not None:
                _check_class(trigger.source, network, "a trigger's source")
            assert 0 <= trigger.asr <= 1, f"an attack success of {trigger.asr} is no share"
            assert trigger.held_out >= 0, f"{trigger.held_out} held-out images cannot be"
            assert trigger.layer is not None or trigger.channel is None, "a trigger names a channel and no layer"
            if trigger.layer is not None and trigger.channel is not None:
                layer = network.layer(trigger.layer)
                assert 0 <= trigger.channel < layer.channels, f"{layer.name} has no channel {trigger.channel}"
            _check_application(trigger, network, samples)


class DiagnosisChecks(RunningChecks):
    """Evidence: finite scores and thresholds."""

    stage = "diagnosis"

    def check(self, results: Any, network: Network, samples: Samples) -> None:
        for evidence in _items(results, Evidence):
            assert evidence.name, "evidence has no name"
            for value in (evidence.score, evidence.threshold, *evidence.null):
                assert math.isfinite(value), f"{evidence.name}: {value} is not finite"
            if evidence.target is not None:
                _check_class(evidence.target, network, "the evidence's target")


class MitigationChecks(RunningChecks):
    """Repairs: a copy that works, and a true list of what was changed."""

    stage = "mitigation"

    def check(self, results: Any, network: Network, samples: Samples) -> None:
        for repair in _items(results, Repair):
            repaired = repair.network
            assert repaired is not network, "the repaired network is the one that was given; repair network.copy()"
            shared = _storages(network) & _storages(repaired)
            assert not shared, f"the repaired network shares {len(shared)} tensors with the one that was given"
            assert repaired.input_shape == network.input_shape, "the repaired network takes other images"
            assert repaired.class_names == network.class_names, "the repaired network has other classes"
            assert repaired.parameter_count <= network.parameter_count, "the repaired network has more parameters"
            training = [name for name, part in repaired.module.named_modules() if part.training]
            assert not training, f"the repaired network is in training mode at '{training[0]}'"
            logits = repaired(samples.images)
            assert logits.shape == (len(samples), network.class_count), "the repaired network has other logits"
            assert bool(logits.isfinite().all()), "the repaired network's logits are not all numbers"
            _check_changes(repair, network)


def _items(results: Any, wanted: type) -> Sequence[Any]:
    """One result or a sequence of them, as the engine takes them."""
    items = [results] if isinstance(results, wanted) else results
    assert isinstance(items, (list, tuple)), f"{type(results).__name__} is neither {wanted.__name__} nor a list of them"
    for item in items:
        assert isinstance(item, wanted), f"{type(item).__name__} stands among the results, not {wanted.__name__}"
    return items


def _check_class(label: int, network: Network, what: str) -> None:
    assert isinstance(label, int), f"{what} is of type {type(label).__name__}, not int"
    assert 0 <= label < network.class_count, f"{what} is {label}; the network has {network.class_count} classes"


def _check_positions(positions: torch.Tensor, layer: Any) -> None:
    shape = layer.shape[: layer.channel_dim] + layer.shape[layer.channel_dim + 1 :]
    assert positions.dtype == torch.bool, f"positions are {positions.dtype}, not bool"
    assert tuple(positions.shape) == shape, f"positions are {tuple(positions.shape)}, a map of {layer.name} {shape}"


def _check_application(trigger: Trigger, network: Network, samples: Samples) -> None:
    images = torch.cat([samples.images, torch.zeros_like(samples.images[:1]), torch.ones_like(samples.images[:1])])
    before = images.clone()
    stamped = trigger.apply(images)
    assert torch.equal(images, before), "apply changes the images it is given; make new ones"
    assert stamped.shape == images.shape, f"apply makes {tuple(stamped.shape)} of {tuple(images.shape)}"
    assert bool((stamped >= 0).all() and (stamped <= 1).all()), "apply leaves [0, 1]"
    assert torch.equal(stamped, trigger.apply(images)), "apply gives other images the second time"
    assert not stamped.requires_grad, "apply's images carry gradients; detach the trigger's tensors"
    assert tuple(trigger.change().shape) == network.input_shape[1:], "change() is not height x width"
    assert 0 <= trigger.pixels <= trigger.change().numel(), "pixels cannot be"
    assert math.isfinite(trigger.l1), "l1 is not finite"
    arrays = trigger.arrays()
    assert arrays, "arrays() is empty; nobody else could apply the trigger"
    assert all(array.dtype != object for array in arrays.values()), "arrays() holds objects; write numbers"


def _check_changes(repair: Repair, network: Network) -> None:
    assert all(isinstance(change, Change) for change in repair.changes), "changes are not of type Change"
    before = {name: bits(tensor) for name, tensor in network.module.state_dict().items()}
    after = {name: bits(tensor) for name, tensor in repair.network.module.state_dict().items()}
    if before != after:
        assert repair.changes, "weights were changed and the repair lists no change"
    else:
        assert not repair.changes, "the repair lists changes and no weight was changed"


def _storages(network: Network) -> set[int]:
    tensors = network.module.state_dict().values()
    return {tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()}
