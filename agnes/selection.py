"""Which methods serve a run: those the user named, and for the other stages the one that suits the network."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from agnes import settings
from agnes.errors import UsageError, suggestion
from agnes.hookspecs import HOOK_OF, METHOD_STAGES
from agnes.method import NEEDS, settings_in
from agnes.registry import BrokenPlugin, Plugin, Registry
from agnes.results import MethodRun

if TYPE_CHECKING:
    from agnes.network import Network
    from agnes.samples import Samples

NAMED = "named"
_TAKEN = {  # methods at most, where the engine chooses; one for the other stages
    "inversion": 4,  # each for another kind of trigger
    "diagnosis": 5,
    "mitigation": 3,  # one after the other, while they fall short
}


@dataclass(frozen=True)
class Chosen:
    """A method of this run: its instance, or why there is none."""

    name: str
    stage: str
    distribution: str
    version: str
    method: Any = field(repr=False)
    why: str = NAMED
    broken: str = ""  # why it cannot be used at all
    fallback: bool = False  # run only where the methods of its stage before it fell short

    @property
    def needs(self) -> frozenset[str]:
        return frozenset() if self.broken else self.method.needs

    def run(self, status: Any, reason: str = "", seconds: float = 0.0) -> MethodRun:
        """How it went, for the report."""
        values = {} if self.broken else settings_in(self.method)
        return MethodRun(
            self.name, self.stage, self.distribution, self.version, values, status, reason, seconds, self.why
        )


@dataclass(frozen=True)
class Selection:
    """The methods of a run by stage, and the plugins that could not be considered."""

    methods: tuple[Chosen, ...]
    broken: tuple[str, ...] = ()

    def of(self, stage: str) -> tuple[Chosen, ...]:
        return tuple(m for m in self.methods if m.stage == stage)


def select(
    registry: Registry,
    network: Network,
    named: Sequence[Any] = (),
    assigned: settings.Assignments | None = None,
    only: bool = False,
) -> Selection:
    """The methods named, and unless `only` one for each stage that no named method serves."""
    assigned = assigned or {}
    chosen = [_named(registry, wanted, assigned) for wanted in named]
    broken: list[str] = []
    if not only:
        for stage in ("stimulation", "inversion", "mitigation", "diagnosis", "abstraction"):
            if any(c.stage == stage for c in chosen):
                continue
            if stage == "abstraction" and not any("representatives" in c.needs for c in chosen):
                continue  # nobody asks for representatives: do not compute them
            wanted = {getattr(c.method, "wants", "") for c in chosen if not c.broken} - {""}
            chosen += _automatic(registry, stage, network, assigned, broken, wanted)
    chosen = _grant(chosen, assigned)
    chosen.sort(key=lambda c: METHOD_STAGES.index(c.stage))
    return Selection(tuple(chosen), tuple(broken))


def check_names(
    registry: Registry,
    named: Sequence[Any],
    assigned: settings.Assignments,
    config: settings.Assignments,
    only: bool = False,
) -> None:
    """Refuse, before anything runs, names and settings that nobody owns; `assigned` was typed, `config` is a file's."""
    if only and not named:
        raise UsageError("only the stages of named methods were asked for, and no method is named; add --plugin NAME")
    known = {p.name for p in (*registry.plugins, *registry.blocked)}
    known |= {_instance_name(n, registry) for n in named if not isinstance(n, str)}
    for owner in {**config, **assigned}:
        if owner not in known:
            raise UsageError(f"there is no plugin '{owner}' to set anything of{suggestion(owner, known)}")
    for name in named:
        if isinstance(name, str):
            registry.named(name, METHOD_STAGES)
    for owner, fields in settings.merged(config, assigned).items():
        for plugin in registry.plugins:
            if plugin.name == owner and plugin.stage in HOOK_OF:
                with contextlib.suppress(BrokenPlugin):  # told where it is used
                    settings.typed(registry.method(plugin), owner, fields)


def unmet_needs(needs: frozenset[str], offered: frozenset[str]) -> str:
    """Why a method is skipped; empty when nothing is missing."""
    missing = [NEEDS.get(need, f"'{need}', which this AGNES does not know") for need in sorted(needs - offered)]
    return f"needs {' and '.join(missing)}" if missing else ""


def why_skipped(method: Any, network: Network, offered: frozenset[str]) -> str:
    """Why a method is skipped on a network, by the needs it declares and by what it says itself; empty: it is not."""
    return unmet_needs(method.needs, offered) or method.unmet(network) or ""


def offered_by(network: Network, samples: Samples | None) -> frozenset[str]:
    """What a network and the data offer to methods."""
    facts = {
        "labels": samples is not None and samples.labels is not None,
        "test_data": samples is not None and samples.test is not None and samples.test.labels is not None,
        "batch_norm": "batch_norm" in network.kinds,
        "conv": "conv" in network.kinds,
        "piecewise_linear": network.piecewise_linear,
        "gradients": True,
    }
    return frozenset(need for need, there in facts.items() if there)


def _named(registry: Registry, wanted: Any, assigned: settings.Assignments) -> Chosen:
    if not isinstance(wanted, str):
        return _instance(registry, wanted, assigned)
    plugin = registry.named(wanted, METHOD_STAGES)
    try:
        method = settings.build(registry.method(plugin), plugin.name, assigned.get(plugin.name, {}))
    except BrokenPlugin as error:
        return Chosen(plugin.name, plugin.stage, plugin.distribution, plugin.version, None, NAMED, str(error))
    return Chosen(plugin.name, plugin.stage, plugin.distribution, plugin.version, method)


def _instance(registry: Registry, method: Any, assigned: settings.Assignments) -> Chosen:
    """A method handed in from Python, known to the registry or not."""
    stage = next((s for s in METHOD_STAGES if callable(getattr(method, HOOK_OF[s], None))), None)
    if stage is None:
        raise UsageError(f"{type(method).__name__} implements no hook of a stage; see agnes.hookspecs")
    name = _instance_name(method, registry)
    plugin = next((p for p in registry.of_stage(stage) if p.name == name), None)
    method = replace(method, **settings.typed(type(method), name, assigned.get(name, {})))
    if plugin is None:
        return Chosen(name, stage, type(method).__module__, "", method)
    return Chosen(name, stage, plugin.distribution, plugin.version, method)


def _instance_name(method: Any, registry: Registry) -> str:
    target = f"{type(method).__module__}:{type(method).__qualname__}"
    return next((p.name for p in registry.plugins if p.target == target), type(method).__name__)


def _automatic(
    registry: Registry,
    stage: str,
    network: Network,
    assigned: settings.Assignments,
    broken: list[str],
    wanted: Set[str] = frozenset(),
) -> list[Chosen]:
    """Of the methods of a stage that suit the network, one that a chosen method wants or else the preferred one.

    Of inversion and diagnosis the others too, as each looks for another kind of trigger; of mitigation the next ones,
    to be tried in this order.
    """
    suitable: list[tuple[bool, int, Plugin, Any, str]] = []
    offered = offered_by(network, None) | {"labels", "test_data", "representatives", "candidates", "triggers"}
    for plugin in registry.of_stage(stage):
        try:
            method = settings.build(registry.method(plugin), plugin.name, assigned.get(plugin.name, {}))
            why = answer(plugin, method.suits, network)
        except BrokenPlugin as error:
            broken.append(str(error))
            continue
        if why and method.needs <= offered:
            suitable.append((plugin.name in wanted, method.preference, plugin, method, why))
    suitable.sort(key=lambda s: (s[0], s[1], s[2].name), reverse=True)
    fallbacks = range(1, _TAKEN["mitigation"]) if stage == "mitigation" else ()
    return [
        Chosen(
            plugin.name,
            stage,
            plugin.distribution,
            plugin.version,
            method,
            f"chosen: {why}",
            fallback=place in fallbacks,
        )
        for place, (*_, plugin, method, why) in enumerate(suitable[: _TAKEN.get(stage, 1)])
    ]


def answer(plugin: Plugin | Chosen, question: Any, *about: Any) -> Any:
    """What a plugin answers about itself; a plugin that cannot answer is broken."""
    try:
        return question(*about)
    except Exception as error:
        raise BrokenPlugin(
            f"plugin '{plugin.name}' of {plugin.distribution} cannot say what {question.__name__}() asks: "
            f"{type(error).__name__}: {error}"
        ) from error


def _grant(chosen: Sequence[Chosen], assigned: settings.Assignments) -> list[Chosen]:
    """Pass on what methods ask of an earlier stage, unless the user set it."""
    granted = list(chosen)
    for place, asker in enumerate(chosen):
        try:
            asked: Mapping[str, Mapping[str, Any]] = {} if asker.broken else answer(asker, asker.method.asks)
        except BrokenPlugin as error:
            granted[place] = replace(asker, broken=str(error))
            continue
        for stage, fields in asked.items():
            for index, other in enumerate(granted):
                if other.stage != stage or other.broken:
                    continue
                wanted = {k: v for k, v in fields.items() if k in settings_in(other.method)}
                wanted = {k: v for k, v in wanted.items() if k not in assigned.get(other.name, {})}
                granted[index] = replace(other, method=replace(other.method, **wanted))
    return granted
