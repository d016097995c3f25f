"""Checks that a method of any stage passes by being run: what it leaves, what it repeats, what it takes."""

from __future__ import annotations

import contextlib
import io
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import pytest
import torch

from agnes.backend import Backend
from agnes.calling import call
from agnes.errors import OutOfTime
from agnes.hookspecs import HOOK_OF
from agnes.memory import MemoryMeter
from agnes.method import NEEDS
from agnes.network import Network
from agnes.samples import Samples
from agnes.selection import Chosen, Selection, offered_by, unmet_needs
from agnes.stages import Stages
from agnes.testing.inputs import (
    candidates_of,
    representatives_of,
    tiny_backend,
    tiny_network,
    tiny_samples,
    triggers_of,
)
from agnes.testing.method_checks import MethodChecks
from agnes.testing.watching import differences, fingerprint, global_facts, network_facts

_RUN: Mapping[str, Callable[[Stages, Network], Any]] = {
    "abstraction": lambda stages, network: stages.abstract(network),
    "stimulation": lambda stages, network: stages.stimulate(network, ()),
    "inversion": lambda stages, network: stages.invert(network, ()),
    "diagnosis": lambda stages, network: stages.diagnose(network),
    "mitigation": lambda stages, network: stages.mitigate(network, (), ()),
}


@dataclass(frozen=True)
class Ran:
    """One run of a method, and what it left behind."""

    network: Network = field(repr=False)
    samples: Samples = field(repr=False)
    results: Any = field(repr=False)
    touched: tuple[str, ...]  # of the network
    disturbed: tuple[str, ...]  # of what the whole process shares
    printed: str
    skipped: str = ""
    error: str = ""


class RunningChecks(MethodChecks):
    """Every method runs on the tiny networks that meet its needs, on one image a class."""

    networks: ClassVar[Sequence[str]] = (  # names from agnes.testing.networks.networks()
        "plain",
        "residual",
        "dense",
        "depthwise",
        "fully_connected",
        "written_as_calls",
    )
    memory_budget: ClassVar[int] = 4 << 20  # bytes, for the check of memory
    memory_tolerance: ClassVar[float] = 1.5  # chunks are sized by two measurements and may miss the budget by this

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "network_name" in metafunc.fixturenames:
            metafunc.parametrize("network_name", self.networks)

    def check(self, results: Any, network: Network, samples: Samples) -> None:
        """What the stage promises of its results; each stage has its own."""
        raise NotImplementedError

    @classmethod
    def given(cls, network: Network, samples: Samples) -> dict[str, Any]:
        """The results of earlier stages: those the method needs, and no others."""
        needs = cls.method.needs
        everything = {
            "stimulation": {"representatives": representatives_of(network) if "representatives" in needs else None},
            "inversion": {"candidates": candidates_of(network, samples) if "candidates" in needs else ()},
            "mitigation": {
                "candidates": candidates_of(network, samples) if "candidates" in needs else (),
                "triggers": triggers_of(network) if "triggers" in needs else (),
            },
        }
        return everything.get(cls.stage, {})

    @classmethod
    def why_not(cls, network: Network, samples: Samples) -> str:
        """Why the engine would skip the method here."""
        given = {name for name, value in cls.given(network, samples).items() if value}
        return unmet_needs(cls.method.needs, offered_by(network, samples) | given)

    @classmethod
    def samples_for(cls, network: Network, each: int = 1) -> Samples:
        """Labelled images, with a test part only for a method that needs one."""
        return tiny_samples(network, each=each, test="test_data" in cls.method.needs)

    @classmethod
    def run(cls, network: Network, samples: Samples, backend: Backend) -> Any:
        """The method, called as the engine calls it."""
        given = cls.given(network, samples)
        arguments = {"network": network, "samples": samples, "backend": backend, **given}
        with _one_thread(), backend.computing():
            return call(HOOK_OF[cls.stage], cls.name(), cls.method, **arguments)

    @classmethod
    def first_network(cls) -> tuple[Network, Samples]:
        """The first network that the method can be run on."""
        for name in cls.networks:
            network = tiny_network(name)
            samples = cls.samples_for(network)
            if not cls.why_not(network, samples):
                return network, samples
        raise AssertionError(f"{cls.name()} needs {sorted(cls.method.needs)}, which none of {cls.networks} offers")

    def test_it_runs_on_what_meets_its_needs(self, network_name: str) -> None:
        ran = _ran(type(self), network_name)
        if ran.skipped:
            pytest.skip(ran.skipped)
        assert not ran.error, f"{self.name()} on the network '{network_name}': {ran.error}"

    def test_its_results_are_what_its_stage_promises(self, network_name: str) -> None:
        ran = _done(type(self), network_name)
        self.check(ran.results, ran.network, ran.samples)

    def test_the_network_is_left_as_it_was(self, network_name: str) -> None:
        touched = _done(type(self), network_name).touched
        assert not touched, f"{self.name()} changed {', '.join(touched)}; work on network.copy() or put it back"

    def test_nothing_shared_is_touched_and_nothing_printed(self, network_name: str) -> None:
        ran = _done(type(self), network_name)
        assert not ran.disturbed, (
            f"{self.name()} changed {', '.join(ran.disturbed)}; draw from backend.generator(purpose)"
        )
        assert not ran.printed, f"{self.name()} printed {ran.printed[:80]!r}; tick backend.progress instead"

    def test_it_says_of_every_network_whether_it_suits(self, network_name: str) -> None:
        network = tiny_network(network_name)
        before = network_facts(network)
        why = self.method.suits(network)
        assert why is None or (isinstance(why, str) and why), f"{self.name()}.suits gives a reason or None, not {why!r}"
        assert not differences(before, network_facts(network)), f"{self.name()}.suits changed the network"

    def test_the_same_seed_gives_the_same_result(self) -> None:
        results = []
        for disturbance in (1, 2):
            network, samples = self.first_network()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(disturbance)  # a global state must not matter
                results.append(fingerprint(self.run(network, samples, tiny_backend(seed=7))))
        assert results[0] == results[1], f"{self.name()} differs from run to run; draw from backend.generator(purpose)"

    def test_memory_stays_in_budget(self) -> None:
        """Beyond the budget there may be weights with gradients and moments, and a few copies of the images."""
        network, _ = self.first_network()
        samples = self.samples_for(network, each=8)
        backend = tiny_backend(self.memory_budget)
        with MemoryMeter(backend.device) as meter:
            self.run(network, samples, backend)
        weights = sum(tensor.nbytes for tensor in network.module.state_dict().values())
        allowed = self.memory_tolerance * self.memory_budget + 8 * weights + 4 * samples.images.nbytes
        held = f"held {meter.peak:,} bytes at once and may hold {allowed:,.0f}"
        assert meter.peak <= allowed, f"{self.name()} {held}; put the work in backend.map or backend.chunked"

    def test_a_spent_time_budget_ends_it(self) -> None:
        network, samples = self.first_network()
        try:
            results = self.run(network, samples, tiny_backend(time_budget=0))
        except OutOfTime as error:
            results = error.partial
        if results is not None:
            self.check(results, network, samples)

    def test_what_it_needs_and_is_not_there_skips_it_with_a_reason(self) -> None:
        """Unlabelled images and nothing from earlier stages: skipped for what it needs, or run to its end."""
        network, _ = self.first_network()
        samples = tiny_samples(network, each=1, labelled=False)
        chosen = Chosen(self.name(), self.stage, "checks", "0", self.method)
        stages = Stages(Selection((chosen,)), tiny_backend(), None, samples)
        with _one_thread():
            _RUN[self.stage](stages, network)
        (run,) = stages.runs
        missing = self.method.needs - offered_by(network, samples)
        assert run.status == ("skipped" if missing else "ok"), f"{self.name()}: {run.status}: {run.reason}"
        assert all(NEEDS[need] in run.reason for need in missing)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """On networks this small more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@cache
def _ran(checks: type[RunningChecks], network_name: str) -> Ran:
    """Run once for all checks that only look at what came of it."""
    network = tiny_network(network_name)
    next(network.module.parameters()).grad = torch.ones_like(next(network.module.parameters()))
    samples = checks.samples_for(network)
    skipped = checks.why_not(network, samples)
    if skipped:
        return Ran(network, samples, None, (), (), "", skipped)
    before, shared, printed = network_facts(network), global_facts(), io.StringIO()
    results, error = None, ""
    pixels = fingerprint(samples)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            results = checks.run(network, samples, tiny_backend())
    except Exception as failure:
        where = traceback.extract_tb(failure.__traceback__)[-1]
        error = f"{type(failure).__name__}: {failure} ({where.filename}:{where.lineno})"
    disturbed = differences(shared, global_facts())
    if fingerprint(samples) != pixels:
        disturbed.append("the images it was given")
    touched = differences(before, network_facts(network))
    return Ran(network, samples, results, tuple(touched), tuple(disturbed), printed.getvalue(), "", error)


def _done(checks: type[RunningChecks], network_name: str) -> Ran:
    ran = _ran(checks, network_name)
    if ran.skipped or ran.error:
        pytest.skip(ran.skipped or "it did not run")
    return ran
