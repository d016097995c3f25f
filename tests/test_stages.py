"""Running the methods of a stage."""

import time
from dataclasses import dataclass, field
from typing import ClassVar

import fakes
import pytest
import torch

from agnes import selection
from agnes.backend import Backend
from agnes.errors import AgnesError, OutOfTime
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.results import AdditiveTrigger, Candidate, Evidence, Noted, Repair, Representatives
from agnes.samples import Samples
from agnes.stages import Stages


@pytest.fixture(scope="module")
def network():
    return fakes.tiny_network()


def stages(network, *methods, time_budget=None):
    backend = Backend.choose("cpu", time_budget=time_budget)
    samples = Samples(torch.rand(4, 3, 8, 8), torch.arange(4))
    chosen = selection.select(fakes.registry(), network, methods, only=True)
    return Stages(chosen, backend, None, samples)


@dataclass(frozen=True)
class Clock(Method):
    """Tells how much time it was given."""

    name: str = "a"

    seen: ClassVar[dict[str, float]] = {}

    @hookimpl
    def diagnose(self, backend):
        self.seen[self.name] = backend.remaining()
        return Evidence("time", 0.0, 1.0)


@dataclass(frozen=True)
class Other(Clock):
    """A second one."""


def test_methods_of_a_stage_share_its_time(network):
    made = stages(network, Clock("first"), Other("second"), time_budget=100)
    made.diagnose(network)
    assert Clock.seen["first"] == pytest.approx(15, abs=2)  # 0.3 of 100 s, for two
    assert Clock.seen["second"] == pytest.approx(15, abs=2)


def test_without_a_budget_there_is_no_deadline(network):
    stages(network, Clock("free")).diagnose(network)
    assert Clock.seen["free"] == float("inf")


def test_results_carry_the_name_of_their_method(network):
    found = stages(network, Clock("x")).diagnose(network)
    assert [e.method for e in found] == ["Clock"]


@dataclass(frozen=True)
class Raises(Method):
    """Raises what it is told."""

    error: BaseException = field(default_factory=lambda: ValueError("no"))

    @hookimpl
    def stimulate(self):
        raise self.error


@pytest.mark.parametrize(("layer", "channel"), [("conv9", 0), ("0", 999), ("0", -1)])
def test_a_candidate_that_the_network_does_not_have_is_refused(network, layer, channel):
    @dataclass(frozen=True)
    class Elsewhere(Method):
        @hookimpl
        def stimulate(self):
            return [Candidate(layer, channel, 0, 1.0, 0.0, 1.0)]

    running = stages(network, Elsewhere())
    assert running.stimulate(network, ()) == ()
    (run,) = running.runs
    assert run.status == "failed"
    assert f"channel {channel} of layer {layer}, which the network does not have" in run.reason


PARTIAL = [Candidate("0", 1, 2, 3.0, 0.0, 1.0)]


@pytest.mark.parametrize(
    ("error", "reason", "kept"),
    [
        (ValueError("bad\nand more"), "ValueError: bad", 0),
        (AgnesError("labels are missing; give some"), "labels are missing; give some", 0),
        (MemoryError(), "MemoryError: ", 0),
        (SystemExit(0), "SystemExit: 0", 0),
        (OutOfTime("the time budget is spent", PARTIAL), "out of time after 1 result: the time budget is spent", 1),
        (OutOfTime("the time budget is spent"), "out of time after 0 results: the time budget is spent", 0),
        (OutOfTime("late", "nonsense"), "Raises of tests.test_stages returned str; stimulation gives Candidate", 0),
    ],
)
def test_whatever_a_method_raises_ends_with_it(network, error, reason, kept):
    made = stages(network, Raises(error))
    assert len(made.stimulate(network, ())) == kept
    assert (made.runs[0].status, made.runs[0].reason) == ("failed", reason)


def test_ctrl_c_is_not_a_methods_failure(network):
    with pytest.raises(KeyboardInterrupt):
        stages(network, Raises(KeyboardInterrupt())).stimulate(network, ())


@dataclass(frozen=True)
class Needy(Method):
    """Cannot run without a trigger."""

    needs: ClassVar[frozenset[str]] = frozenset({"triggers"})

    @hookimpl
    def mitigate(self):
        raise AssertionError("was called")


@dataclass(frozen=True)
class Picky(Method):
    """Takes no network; where it is told to, it cannot even say why."""

    speechless: bool = False

    def unmet(self, network):
        if self.speechless:
            raise ValueError("no words")
        return "needs a network with other layers"

    @hookimpl
    def diagnose(self):
        raise AssertionError("it was run")


def test_a_method_that_a_network_does_not_suit_is_skipped_for_the_reason_it_gives(network):
    made = stages(network, Picky())
    assert made.diagnose(network) == ()
    assert (made.runs[0].status, made.runs[0].reason) == ("skipped", "needs a network with other layers")


def test_a_method_that_cannot_say_whether_it_suits_has_failed(network):
    made = stages(network, Picky(speechless=True))
    assert made.diagnose(network) == ()
    assert made.runs[0].status == "failed"
    assert "no words" in made.runs[0].reason


def test_a_method_whose_needs_are_unmet_is_skipped_with_a_reason(network):
    made = stages(network, Needy())
    assert made.mitigate(network, (), ()) == ()
    assert (made.runs[0].status, made.runs[0].reason) == ("skipped", "needs a trigger that convicts")


@pytest.mark.parametrize(("needs", "seen"), [({"triggers"}, [True]), (set(), [True, False])])
def test_a_method_that_needs_triggers_gets_those_that_convict_and_any_other_all(network, needs, seen):
    given = []

    @dataclass(frozen=True)
    class Takes(Method):
        """Notes which triggers it was given."""

        @hookimpl
        def mitigate(self, network, triggers):
            given.extend(trigger.convicts for trigger in triggers)
            return Repair(network.copy(), ())

    Takes.needs = frozenset(needs)
    delta = torch.zeros(network.input_shape)
    known = [
        AdditiveTrigger(target=0, asr=0.9, held_out=5, delta=delta, convicts=convicts) for convicts in (True, False)
    ]
    assert len(stages(network, Takes()).mitigate(network, known, ())) == 1
    assert given == seen


def test_candidates_of_all_methods_come_best_first(network):
    @dataclass(frozen=True)
    class Gives(Method):
        """Gives candidates."""

        scores: tuple[float, ...] = ()

        @hookimpl
        def stimulate(self):
            return [Candidate("0", 0, 0, s, 0.0, 1.0) for s in self.scores]

    @dataclass(frozen=True)
    class GivesToo(Gives):
        """Gives more."""

    found = stages(network, Gives((1.0, 5.0)), GivesToo((3.0,))).stimulate(network, ())
    assert [(c.score, c.method) for c in found] == [(5.0, "Gives"), (3.0, "GivesToo"), (1.0, "Gives")]


def test_times_are_kept_for_each_stage(network):
    @dataclass(frozen=True)
    class Sleeps(Method):
        """Sleeps."""

        @hookimpl
        def diagnose(self):
            time.sleep(0.05)
            return Evidence("rest", 0.0, 1.0)

    made = stages(network, Sleeps())
    made.diagnose(network)
    assert made.timings["diagnosis"] >= made.runs[0].seconds >= 0.05


@dataclass(frozen=True)
class Scores(Method):
    """Gives what it is told."""

    score: float = 0.0
    target: int | None = None
    by_class: tuple[float, ...] = ()

    @hookimpl
    def diagnose(self):
        return Evidence("score", self.score, 1.0, target=self.target, by_class=self.by_class)


@dataclass(frozen=True)
class Wears(Method):
    """With a trigger for a class or for images of its own."""

    target: int = 0
    side: int = 8

    @hookimpl
    def diagnose(self):
        delta = torch.zeros(3, self.side, self.side)
        return Evidence(
            "score", 0.0, 1.0, trigger=AdditiveTrigger(target=self.target, asr=1.0, held_out=3, delta=delta)
        )


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (Scores(float("nan")), "not finite"),
        (Scores(float("inf")), "not finite"),
        (Scores(0.0, 99), "class 99 of 8"),
        (Scores(0.0, 3, (1.0,) * 50), "50 scores for 8 classes"),
        (Scores(0.0, 3, (*[1.0] * 7, float("nan"))), "not finite"),
        (Wears(target=99), "class 99 of 8"),
        (Wears(side=2), "size"),
    ],
)
def test_a_result_that_nobody_could_use_is_the_methods_failure(network, method, reason):
    made = stages(network, method)
    assert made.diagnose(network) == ()
    assert made.runs[0].status == "failed"
    assert reason in made.runs[0].reason


@dataclass(frozen=True)
class Speaks(Method):
    """Gives candidates and says something of them."""

    @hookimpl
    def stimulate(self):
        return Noted([Candidate("0", 0, 0, 1.0, 0.0, 1.0)], ("one layer was left out",))


@dataclass(frozen=True)
class Groups(Method):
    """Says something of its representatives."""

    @hookimpl
    def abstract(self):
        return Representatives({}, {}, notes=("past its time limit",))


def test_what_a_method_says_of_its_results_is_kept_with_its_run(network):
    made = stages(network, Speaks(), Groups())
    made.abstract(network)
    (found,) = made.stimulate(network, ())
    assert found.method == "Speaks"
    assert {run.name: run.notes for run in made.runs} == {
        "Speaks": ("one layer was left out",),
        "Groups": ("past its time limit",),
    }


def test_the_memory_of_each_method_is_kept_and_the_peak_of_all(network):
    made = stages(network, Speaks())
    made.stimulate(network, ())
    if made.runs[0].memory is None:
        pytest.skip("the system does not say")
    assert 1 << 20 < made.runs[0].memory <= made.peak
    assert made.again().peak == made.peak


@dataclass(frozen=True)
class Mends(Method):
    """Repairs with what there is."""

    needs: ClassVar[frozenset[str]] = frozenset()
    preference: ClassVar[int] = 1

    def suits(self, network):
        return "it suits all"

    @hookimpl
    def mitigate(self):
        return []


@dataclass(frozen=True)
class Learns(Mends):
    """Preferred, and in want of three images a class."""

    preference: ClassVar[int] = 2
    wants_images: ClassVar[int] = 3


@pytest.mark.parametrize(("each", "first"), [(2, "mends"), (3, "learns")])
def test_a_repair_that_wants_more_images_than_there_are_is_tried_last(network, each, first):
    registry = fakes.registry(fakes.plugin("mends", "mitigation", Mends), fakes.plugin("learns", "mitigation", Learns))
    count = each * network.class_count
    images = Samples(torch.rand(count, 3, 8, 8), torch.arange(count) % network.class_count)
    made = Stages(selection.select(registry, network), Backend.choose("cpu"), None, images)
    made.mitigate(network, (), (), lambda repairs: "one is enough")
    assert [(run.name, run.status) for run in made.runs] == [
        (first, "ok"),
        ("learns" if first == "mends" else "mends", "skipped"),
    ]


def test_named_repairs_run_as_they_were_named_however_few_the_images(network):
    made = stages(network, Learns(), Mends())
    made.mitigate(network, (), ())
    assert [(run.name, run.status) for run in made.runs] == [("Learns", "ok"), ("Mends", "ok")]
