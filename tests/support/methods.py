"""Small methods that keep the contract, one for each stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from agnes.errors import OutOfTime, Refused
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.network import Network
from agnes.results import AdditiveTrigger, Candidate, Change, Evidence, Repair, Representatives
from agnes.testing import LoaderChecks
from agnes.testing import networks as tiny


@dataclass(frozen=True)
class Groups(Method):
    """Every channel is a cluster."""

    @hookimpl
    def abstract(self, network, backend):
        clusters, positions = {}, {}
        for layer in network.layers:
            numbers = torch.arange(layer.channels).reshape(
                [-1 if d == layer.channel_dim else 1 for d in range(len(layer.shape))]
            )
            clusters[layer.name] = numbers.expand(layer.shape).contiguous()
            positions[layer.name] = torch.ones(layer.shape, dtype=torch.bool)
        return Representatives(clusters, positions)


@dataclass(frozen=True)
class Suspects(Method):
    """Suspects one channel, drawn by the seed."""

    score: float = 2.0  # of its candidate

    needs: ClassVar[frozenset[str]] = frozenset({"labels", "representatives"})

    @hookimpl
    def stimulate(self, network, samples, representatives, backend):
        assert samples.labels is not None
        assert representatives.positions
        backend.check()
        channel = int(torch.randint(network.layers[0].channels, (), generator=backend.generator("suspects")))
        return [Candidate(network.layers[0].name, channel, None, self.score, 1.0, 2.0)]


@dataclass(frozen=True)
class Stains(Method):
    """A stain for every class."""

    needs: ClassVar[frozenset[str]] = frozenset({"candidates"})

    @hookimpl
    def invert(self, network, samples, candidates, backend):
        delta = backend.normal(*network.input_shape, purpose="stain") * 0.1
        made = []
        with backend.progress("stains", network.class_count) as tick:
            for target in range(network.class_count):
                made.append(AdditiveTrigger(target=target, asr=0.5, held_out=2, delta=delta, layer=candidates[0].layer))
                try:
                    tick(1)
                except OutOfTime as error:
                    raise OutOfTime(str(error), partial=made) from error
        return made


@dataclass(frozen=True)
class Scores(Method):
    """The spread of the logits."""

    @hookimpl
    def diagnose(self, network, samples, backend):
        return Evidence("spread", float(backend.map(network, samples.images).std()), 1e6)


@dataclass(frozen=True)
class Silences(Method):
    """Sets one channel's weights to zero."""

    needs: ClassVar[frozenset[str]] = frozenset({"triggers"})

    @hookimpl
    def mitigate(self, network):
        repaired, layer = network.copy(), network.layers[0]
        repaired.module.get_parameter(layer.weight)[0] = 0
        return Repair(repaired, (Change(layer.name, 0, "set to zero"),))


@dataclass(frozen=True)
class Opens(Method):
    """Opens weights of the network 'plain'."""

    @hookimpl
    def load(self, path, options):
        if path.suffix != ".plain":
            return None
        try:
            weights = torch.load(path, weights_only=True)
            module = tiny.plain(1)
            module.load_state_dict(weights)
        except Exception as error:
            raise Refused(f"refused: {path.name} holds no weights of 'plain'") from error
        return Network.of(module, tiny.INPUT_SHAPE)


@dataclass(frozen=True)
class Writes(Method):
    """Writes a network as a picklable list of weights."""

    @hookimpl
    def export(self, network, path):
        if path.suffix != ".plain":
            return None
        torch.save(network.module.state_dict(), path)
        return path


@dataclass(frozen=True)
class Hears(Method):
    """Listens."""

    @hookimpl
    def stage_finished(self, stage):
        pass


class OpensChecks(LoaderChecks):
    """The checks of the loader, with a file that it opens."""

    method = Opens()

    def good(self, folder):
        path = folder / "model.plain"
        torch.save(tiny.plain(3).state_dict(), path)
        return path


def breaching(base: type, method: Any, **attributes: Any) -> Any:
    """The checks of a method on one network."""
    return type("Breaching", (base,), {"method": method, "networks": ("plain",), **attributes})()
