"""Which methods serve a run."""

from dataclasses import dataclass
from typing import ClassVar

import fakes
import pytest
import torch

from agnes import selection
from agnes.errors import UsageError
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.samples import Samples


@dataclass(frozen=True)
class ForConvolutions(Method):
    """Fits convolutions better than anything."""

    preference: ClassVar[int] = 5

    def suits(self, network):
        return "the network has convolutions" if "conv" in network.kinds else None

    @hookimpl
    def stimulate(self):
        return []


@dataclass(frozen=True)
class ForTransformers(ForConvolutions):
    """Fits what this network has not."""

    preference: ClassVar[int] = 9

    def suits(self, network):
        return "the network has attention" if "attention" in network.kinds else None


@dataclass(frozen=True)
class NeedsAttention(ForConvolutions):
    """Would fit, and cannot run."""

    preference: ClassVar[int] = 9
    needs: ClassVar[frozenset[str]] = frozenset({"attention"})


@pytest.fixture(scope="module")
def network():
    return fakes.tiny_network()


def chosen(found):
    return {method.stage: (method.name, method.why) for method in found.methods}


def test_the_method_that_fits_the_layers_best_is_chosen_and_says_why(network):
    house = [p for p in fakes.whole_house() if p.name != "needy"]
    extra = [
        fakes.plugin("for-conv", "stimulation", ForConvolutions),
        fakes.plugin("for-attention", "stimulation", ForTransformers),
        fakes.plugin("needs-attention", "stimulation", NeedsAttention),
    ]
    found = selection.select(fakes.registry(*house, *extra), network)
    assert chosen(found)["stimulation"] == ("for-conv", "chosen: the network has convolutions")


def test_a_named_method_keeps_others_of_its_stage_away(network):
    found = selection.select(fakes.registry(*fakes.whole_house()), network, ["suspects"])
    assert [m.name for m in found.of("stimulation")] == ["suspects"]
    assert chosen(found)["stimulation"][1] == "named"
    assert chosen(found)["inversion"] == ("triggers", "chosen: always")


def test_representatives_are_computed_only_for_those_who_ask(network):
    registry = fakes.registry(*fakes.whole_house())
    assert selection.select(registry, network, ["suspects"]).of("abstraction") == ()
    assert [m.name for m in selection.select(registry, network, ["needy"]).of("abstraction")] == ["groups"]


def test_a_method_gets_what_it_asks_of_an_earlier_stage_unless_the_user_set_it(network):
    registry = fakes.registry(*fakes.whole_house())
    assert selection.select(registry, network, ["needy"]).of("abstraction")[0].method.rate == 0.25
    found = selection.select(registry, network, ["needy"], {"groups": {"rate": 0.75}})
    assert found.of("abstraction")[0].method.rate == 0.75


def test_a_method_that_wants_to_be_named_is_never_chosen(network):
    assert selection.select(fakes.registry(*fakes.whole_house()), network).of("diagnosis") == ()


@dataclass(frozen=True)
class Looks(Method):
    """A diagnosis that suits every network."""

    def suits(self, network):
        return "each looks for another kind of trigger"

    @hookimpl
    def diagnose(self):
        return []


@dataclass(frozen=True)
class LooksFirst(Looks):
    """A diagnosis that is preferred."""

    preference: ClassVar[int] = 9


@dataclass(frozen=True)
class LooksElsewhere(Looks):
    """A diagnosis of what this network has not."""

    preference: ClassVar[int] = 9
    needs: ClassVar[frozenset[str]] = frozenset({"attention"})


@dataclass(frozen=True)
class Inverts(ForConvolutions):
    """An inversion for convolutions."""

    @hookimpl
    def invert(self):
        return []


@dataclass(frozen=True)
class Mends(ForConvolutions):
    """A repair for convolutions."""

    @hookimpl
    def mitigate(self):
        return []


@dataclass(frozen=True)
class MendsFirst(Mends):
    """A repair that is preferred."""

    preference: ClassVar[int] = 9


def test_all_diagnoses_that_suit_run_the_preferred_one_first(network):
    plugins = [
        fakes.plugin("looks", "diagnosis", Looks),
        fakes.plugin("elsewhere", "diagnosis", LooksElsewhere),
        fakes.plugin("first", "diagnosis", LooksFirst),
    ]
    found = selection.select(fakes.registry(*plugins), network).of("diagnosis")
    assert [(m.name, m.why) for m in found] == [
        ("first", "chosen: each looks for another kind of trigger"),
        ("looks", "chosen: each looks for another kind of trigger"),
    ]
    assert not any(m.fallback for m in found)


def test_all_inversions_that_suit_run_and_none_waits_for_another_to_fall_short(network):
    registry = fakes.registry(*fakes.whole_house(), fakes.plugin("inverts", "inversion", Inverts))
    found = selection.select(registry, network).of("inversion")
    assert [m.name for m in found] == ["inverts", "triggers"]
    assert not any(m.fallback for m in found)


def test_a_named_diagnosis_keeps_the_others_away(network):
    plugins = [fakes.plugin("looks", "diagnosis", Looks), fakes.plugin("first", "diagnosis", LooksFirst)]
    found = selection.select(fakes.registry(*plugins), network, ["looks"])
    assert [m.name for m in found.of("diagnosis")] == ["looks"]


@pytest.mark.parametrize(("stage", "kind", "most"), [("diagnosis", Looks, 5), ("inversion", Inverts, 4)])
def test_no_more_than_a_few_of_a_stage_run_by_themselves(network, stage, kind, most):
    plugins = [fakes.plugin(f"method-{number}", stage, kind) for number in range(6)]
    found = selection.select(fakes.registry(*plugins), network).of(stage)
    assert [m.name for m in found] == [f"method-{number}" for number in (5, 4, 3, 2, 1, 0)][:most]


def test_one_repair_runs_and_two_others_wait_for_it_to_fall_short(network):
    plugins = [fakes.plugin(f"mends-{number}", "mitigation", Mends) for number in range(4)]
    found = selection.select(fakes.registry(*plugins, fakes.plugin("first", "mitigation", MendsFirst)), network)
    assert [(m.name, m.fallback) for m in found.of("mitigation")] == [
        ("first", False),
        ("mends-3", True),
        ("mends-2", True),
    ]


def test_of_stimulations_one_runs_by_itself(network):
    plugins = [fakes.plugin(f"method-{number}", "stimulation", ForConvolutions) for number in range(3)]
    assert len(selection.select(fakes.registry(*plugins), network).of("stimulation")) == 1


def test_several_methods_of_a_stage_run_side_by_side(network):
    found = selection.select(fakes.registry(*fakes.whole_house()), network, ["suspects", "needy"])
    assert [m.name for m in found.of("stimulation")] == ["suspects", "needy"]


def test_a_broken_plugin_is_kept_out_of_the_choice_and_reported(network):
    torn = fakes.plugin("torn", "inversion", ImportError("gone"))
    found = selection.select(fakes.registry(*fakes.whole_house(), torn), network)
    assert chosen(found)["inversion"][0] == "triggers"
    assert "torn" in found.broken[0]


def test_a_method_object_is_known_by_its_plugins_name(network):
    found = selection.select(
        fakes.registry(*fakes.whole_house()), network, [fakes.FakeStimulation(target=5)], only=True
    )
    assert [(m.name, m.method.target) for m in found.methods] == [("suspects", 5)]


def test_a_method_object_of_no_plugin_runs_under_its_class_name(network):
    found = selection.select(fakes.registry(), network, [ForConvolutions()], only=True)
    assert [(m.name, m.stage) for m in found.methods] == [("ForConvolutions", "stimulation")]


def test_an_object_without_a_hook_is_refused(network):
    with pytest.raises(UsageError, match="implements no hook"):
        selection.select(fakes.registry(), network, [object()])


def test_what_a_network_and_the_data_offer(network):
    images = torch.zeros(2, 3, 8, 8)
    bare = Samples(images)
    labelled = Samples(images, torch.tensor([0, 1]))
    assert selection.offered_by(network, None) == {"batch_norm", "conv", "gradients", "piecewise_linear"}
    assert selection.offered_by(network, bare) == selection.offered_by(network, None)
    assert selection.offered_by(network, labelled) - selection.offered_by(network, bare) == {"labels"}
    tested = labelled.with_test(labelled)
    assert selection.offered_by(network, tested) - selection.offered_by(network, labelled) == {"test_data"}


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        (set(), ""),
        ({"labels"}, "needs labelled images"),
        ({"labels", "conv"}, "needs convolutions in the network and labelled images"),
        ({"magic"}, "needs 'magic', which this AGNES does not know"),
    ],
)
def test_an_unmet_need_is_told_in_words(needs, reason):
    assert selection.unmet_needs(frozenset(needs), frozenset()) == reason


@dataclass(frozen=True)
class Speechless(ForConvolutions):
    """Raises when asked about itself."""

    def suits(self, network):
        raise KeyError("conv")

    def asks(self):
        raise ValueError("nothing")


def test_a_plugin_that_cannot_say_whether_it_suits_is_left_out_and_reported(network):
    speechless = fakes.plugin("speechless", "stimulation", Speechless)
    house = [p for p in fakes.whole_house() if p.name != "needy"]
    found = selection.select(fakes.registry(*house, speechless), network)
    assert chosen(found)["stimulation"][0] == "suspects"
    assert "speechless" in found.broken[0]


def test_a_named_plugin_that_cannot_say_what_it_asks_for_is_broken(network):
    found = selection.select(fakes.registry(), network, [Speechless()], only=True)
    assert "ValueError: nothing" in found.methods[0].broken


def test_a_wrong_type_in_a_configuration_file_is_refused_before_anything_runs():
    registry = fakes.registry(*fakes.whole_house())
    with pytest.raises(UsageError, match=r"suspects\.target takes a whole number"):
        selection.check_names(registry, [], {}, {"suspects": {"target": "two"}})


@dataclass(frozen=True)
class Merges(Method):
    """An abstraction that is chosen where it is wanted."""

    def suits(self, network):
        return "the network can be merged"

    @hookimpl
    def abstract(self):
        return None


@dataclass(frozen=True)
class WantsMerged(ForConvolutions):
    """Prefers one abstraction to the preferred one."""

    needs: ClassVar[frozenset[str]] = frozenset({"representatives"})
    wants: ClassVar[str] = "merges"


@dataclass(frozen=True)
class Preferred(Merges):
    """An abstraction that is chosen otherwise."""

    preference: ClassVar[int] = 3


@pytest.mark.parametrize(("named", "expected"), [("wants", "merges"), ("needs", "preferred")])
def test_the_abstraction_that_a_chosen_method_wants_comes_before_the_preferred_one(network, named, expected):
    @dataclass(frozen=True)
    class NeedsAny(ForConvolutions):
        """Takes representatives of any kind."""

        needs: ClassVar[frozenset[str]] = frozenset({"representatives"})

    registry = fakes.registry(
        fakes.plugin("merges", "abstraction", Merges),
        fakes.plugin("preferred", "abstraction", Preferred),
        fakes.plugin("wants", "stimulation", WantsMerged),
        fakes.plugin("needs", "stimulation", NeedsAny),
    )
    assert [m.name for m in selection.select(registry, network, [named]).of("abstraction")] == [expected]
