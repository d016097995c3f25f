"""The contract between the engine and its plugins: one hook per stage, and the events of a run.

An implementation names only the arguments it uses; hooks grow by new arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.detecting import Findings
    from agnes.engine import Request
    from agnes.loading import LoadOptions
    from agnes.network import Network
    from agnes.results import Candidate, Evidence, MethodRun, Repair, Report, Representatives, Trigger
    from agnes.samples import Samples

PROJECT = "agnes"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def load(path: Path, options: LoadOptions) -> Network | None:  # type: ignore[empty-body]
    """Open a model file as a Network; return None when the format is not yours, raise Refused when it is unsafe."""


@hookspec
def abstract(network: Network, samples: Samples, backend: Backend) -> Representatives:  # type: ignore[empty-body]
    """Group the neurons of each layer and name a representative of each group."""


@hookspec
def stimulate(
    network: Network, samples: Samples, representatives: Representatives | None, backend: Backend
) -> Sequence[Candidate]:  # type: ignore[empty-body]
    """Set neurons to values they never had and return those that move the output, best first."""


@hookspec
def invert(network: Network, samples: Samples, candidates: Sequence[Candidate], backend: Backend) -> Sequence[Trigger]:  # type: ignore[empty-body]
    """Reconstruct a trigger for each candidate or class that may have one."""


@hookspec
def diagnose(network: Network, samples: Samples, backend: Backend) -> Evidence | Sequence[Evidence]:  # type: ignore[empty-body]
    """Score the network without reconstructing a trigger."""


@hookspec
def mitigate(
    network: Network,
    samples: Samples,
    triggers: Sequence[Trigger],
    candidates: Sequence[Candidate],
    rescan: Callable[[Network], Findings] | None,  # what the scan finds in a changed copy; None: nobody scans again
    backend: Backend,
) -> Repair:  # type: ignore[empty-body]
    """Return a repaired copy of the network and the list of what was changed in it."""


@hookspec
def export(network: Network, path: Path) -> Path | None:  # type: ignore[empty-body]
    """Write the network to a file of your format; return None when the path's suffix is not yours."""


@hookspec
def execute(jobs: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:  # type: ignore[empty-body]
    """Run the scans of a fleet wherever you run them, and yield each report's JSON object as it ends."""


@hookspec
def run_started(request: Request, folder: Path | None) -> None:
    """A run begins; nothing is loaded yet."""


@hookspec
def stage_finished(stage: str, runs: Sequence[MethodRun], results: Sequence[Any]) -> None:
    """A stage has ended: how each of its methods went, and what they found together."""


@hookspec
def run_finished(report: Report, folder: Path | None) -> None:
    """The report is complete and, where there is a folder, written; further reports go beside it."""


STAGES: Mapping[str, str] = {  # hook -> the noun of its entry-point group, in the order of a run
    "load": "loader",
    "abstract": "abstraction",
    "stimulate": "stimulation",
    "invert": "inversion",
    "diagnose": "diagnosis",
    "mitigate": "mitigation",
    "export": "exporter",
    "execute": "executor",
}
OPTIONAL = frozenset({"rescan"})  # arguments that are None where the caller has none
METHOD_STAGES = ("abstraction", "stimulation", "inversion", "diagnosis", "mitigation")
HOOK_OF = {noun: hook for hook, noun in STAGES.items()}
GROUPS = (*STAGES.values(), "reporter", "command", "architecture")
