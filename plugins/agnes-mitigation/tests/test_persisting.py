"""Promises of training that is begun anew at lower rates, and that hands back nothing that is no repair."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from agnes_mitigation import retrain, watching
from agnes_mitigation.ft_sam import FtSam
from agnes_mitigation.i_bau import IBau
from agnes_mitigation.retrain import Retrain, false_positives
from agnes_mitigation.unlearn import Unlearn
from agnes_mitigation.watching import Material, Watch, divide

from agnes.errors import OutOfTime
from agnes.testing import tiny_backend

METHODS = (Retrain(steps=6, rounds=1), Unlearn(steps=6), FtSam(steps=6), IBau(rounds=1, search=2, steps=3))


def state(network):
    return {name: value.clone() for name, value in network.module.state_dict().items()}


def convicting(planted):
    return replace(planted.trigger, convicts=True)


def mitigated(method, planted, samples, backend, triggers=None):
    needed = [planted.trigger] if "triggers" in method.needs else []
    given = {"rescan": None} if isinstance(method, Retrain) else {}
    triggers = tuple(needed if triggers is None else triggers)
    return method.mitigate(network=planted.network, samples=samples, triggers=triggers, backend=backend, **given)


class Scripted(torch.optim.Optimizer):
    """In place of any optimiser: above the harmless rate a step wipes the network out, below it ends the backdoor."""

    harmless = 0.0
    rates: ClassVar[list[float]] = []

    def __init__(self, parameters, lr, **_):
        super().__init__(parameters, {"lr": lr})
        self.keeps = lr <= Scripted.harmless * 1.01
        Scripted.rates.append(pytest.approx(lr))

    @torch.no_grad()
    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            if self.keeps and parameter.dim() == 4:
                parameter[5] = 0  # the planted channel
            elif not self.keeps:
                parameter.zero_()


@pytest.mark.parametrize("method", [*METHODS, FtSam(steps=3, rho=0.0)], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize(("harmless", "tried"), [(1.0, 1), (0.3, 2), (0.1, 3), (0.0, 3)])
def test_training_is_begun_again_at_a_lower_rate_where_no_state_keeps_accuracy(
    method, harmless, tried, planted, backend, monkeypatch
):
    monkeypatch.setattr(torch.optim, "Adam", Scripted)
    monkeypatch.setattr(torch.optim, "SGD", Scripted)
    monkeypatch.setattr(Scripted, "harmless", harmless * method.rate)
    monkeypatch.setattr(Scripted, "rates", [])
    repair = mitigated(method, planted, planted.samples, backend)
    rates = [factor * method.rate for factor in (1.0, 0.3, 0.1)][:tried]
    assert Scripted.rates == rates
    assert bool(repair.changes) == (harmless > 0)
    said = f"trained at a rate of {', then '.join(f'{rate:g}' for rate in rates)}; kept "
    said += f"step {method.rounds if isinstance(method, IBau) else method.steps} at a rate of {rates[-1]:g}"
    assert any((said if harmless else said.partition("step")[0] + "no state") in note for note in repair.notes)


class Idle(Scripted):
    """In place of any optimiser: it moves weights that neither the trigger nor any class hangs on."""

    @torch.no_grad()
    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            parameter.mul_(1.001)


@pytest.mark.parametrize("gone", [0.5, 0.0])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_a_network_whose_trigger_works_on_comes_back_as_it_was_unless_told_otherwise(
    method, gone, planted, backend, monkeypatch
):
    monkeypatch.setattr(torch.optim, "Adam", Idle)
    monkeypatch.setattr(torch.optim, "SGD", Idle)
    repair = mitigated(replace(method, gone=gone), planted, planted.samples, backend, [convicting(planted)])
    assert bool(repair.changes) == (gone == 0)
    said = "the triggers' success, 100% before, is 100% after it: no repair, and nothing was changed"
    assert (repair.notes[-1] == said) == (gone > 0)
    assert not any("no state was better" in note for note in repair.notes)


@pytest.mark.parametrize("method", [FtSam(steps=3), IBau(rounds=1, search=2, steps=3)], ids=lambda m: type(m).__name__)
def test_methods_that_learn_from_no_trigger_mind_none_that_convicts_nobody(method, planted, backend, monkeypatch):
    monkeypatch.setattr(torch.optim, "Adam", Idle)
    monkeypatch.setattr(torch.optim, "SGD", Idle)
    repair = mitigated(method, planted, planted.samples, backend, [planted.trigger])
    assert repair.changes


def test_training_is_begun_anew_as_often_as_said(planted, backend, monkeypatch):
    monkeypatch.setattr(torch.optim, "SGD", Idle)
    for again, rates in ((0, "0.03"), (1, "0.03, then 0.009"), (2, "0.03, then 0.009, then 0.003")):
        repair = mitigated(Unlearn(steps=2, again=again), planted, planted.samples, backend)
        assert any(f"trained at a rate of {rates}; kept" in note for note in repair.notes)


@pytest.mark.parametrize(("left", "kept"), [((1.0, 0.0), True), ((1.0, 0.1), False), ((0.5, 0.5), True)])
def test_of_several_triggers_the_mean_success_has_to_fall_by_half(left, kept, planted, backend, monkeypatch):
    after, triggers = planted.network.copy(), (planted.trigger, replace(planted.trigger, target=1))
    success = {(id(planted.network), 0): 1.0, (id(planted.network), 1): 1.0}
    success |= {(id(after), number): share for number, share in enumerate(left)}
    monkeypatch.setattr(
        watching.measuring, "attack_success", lambda n, t, *_: (success[id(n), [*map(id, triggers)].index(id(t))], 9)
    )
    material = divide(planted.network, planted.samples, 0.25, 1, backend)
    found, why = FtSam().worth(planted.network, after, triggers, material, backend)
    assert (found is after) == kept == (why == "")
    assert kept or all(torch.equal(value, state(planted.network)[name]) for name, value in state(found).items())


def test_training_without_known_triggers_is_kept_whatever_comes_of_them(planted, backend):
    after, material = planted.network.copy(), divide(planted.network, planted.samples, 0.25, 1, backend)
    assert FtSam().worth(planted.network, after, (), material, backend) == (after, "")


def test_whether_it_is_a_repair_is_measured_though_no_time_is_left(planted, backend):
    after, material = planted.network.copy(), divide(planted.network, planted.samples, 0.25, 1, backend)
    spent = replace(backend, deadline=time.monotonic() - 1)
    found, why = FtSam().worth(planted.network, after, (planted.trigger,), material, spent)
    assert found is not after
    assert "no repair" in why


def test_a_trigger_that_no_held_out_image_shows_is_measured_on_those_learnt_from(planted, backend):
    samples = planted.samples
    held_out = samples.subset(samples.labels == planted.trigger.target)  # none of another class
    learnt = samples.subset(samples.labels != planted.trigger.target)
    material, idle = Material(learnt, held_out, ()), planted.network.copy()
    watch = Watch(idle, held_out, (planted.trigger,), 0.02, backend, learnt=learnt)
    watch.look(1)
    assert watch.success == 1.0
    assert not watch.content
    assert FtSam().worth(planted.network, idle, (planted.trigger,), material, backend)[0] is not idle


def test_images_learnt_from_are_not_looked_at_where_the_held_out_ones_show_the_trigger(planted, backend, monkeypatch):
    held_out, learnt, seen = planted.samples, planted.samples.subset(slice(0, 9)), []
    monkeypatch.setattr(watching.measuring, "attack_success", lambda n, t, part, b: seen.append(part) or (0.5, 7))
    assert watching.successes(planted.network, (planted.trigger,), (held_out, learnt), backend) == [0.5]
    assert seen == [held_out]


def test_the_best_state_is_kept_when_time_runs_out_between_two_rates(planted, backend):
    copy = planted.network.copy()
    watch = Watch(copy, planted.samples, (planted.trigger,), 0.02, backend)
    first = copy.module.get_submodule("first").weight

    def train(rate):
        if rate < 1:
            raise OutOfTime("the time budget is spent")
        watch.look(0)
        with torch.no_grad():
            first[5] *= 0.999  # the planted channel: the trigger still works
        watch.look(1)
        watch.put_best()

    kept = first * 1.0
    kept[5] *= 0.999
    late, note = FtSam().persistently(train, 1.0, watch)
    assert late
    assert note.endswith("kept step 1 at a rate of 1")
    torch.testing.assert_close(copy.module.get_submodule("first").weight, kept)


def test_training_is_not_begun_again_once_time_has_run_out(planted):
    watch = Watch(planted.network.copy(), planted.samples, (), 0.02, tiny_backend())
    late = OutOfTime("the time budget is spent")
    assert FtSam().persistently(lambda _: late, 1.0, watch) == (late, "trained at a rate of 1; kept no state")


@pytest.mark.parametrize(("success", "kept"), [((0.4, 0.0, 0.0), 1.0), ((0.9, 0.4, 0.0), 0.3), ((0.6, 0.9, 0.9), 1.0)])
def test_training_begins_anew_while_a_trigger_works_and_the_best_state_of_all_is_kept(
    success, kept, planted, backend, monkeypatch
):
    now = [1.0]
    monkeypatch.setattr(watching, "attack_success", lambda *_: now[0])
    copy, weight = planted.network.copy(), dict(planted.network.module.named_parameters())["first.weight"]
    mine = copy.module.get_submodule("first").weight
    watch = Watch(copy, planted.samples, (planted.trigger,), 0.02, backend)
    watch.look(0)

    def train(rate):
        assert torch.equal(mine, weight)
        with torch.no_grad():
            mine.mul_(1 + rate / 1000)
        now[0] = dict(zip((1.0, 0.3, 0.1), success, strict=True))[rate]
        watch.look(7)
        watch.put_best()

    _, note = FtSam().persistently(train, 1.0, watch)
    torch.testing.assert_close(mine, weight * (1 + kept / 1000), rtol=1e-6, atol=0)
    assert note.endswith(f"kept step 7 at a rate of {kept:g}")


def test_the_images_of_a_round_are_chosen_once_though_it_is_begun_again(planted, backend, monkeypatch):
    monkeypatch.setattr(torch.optim, "SGD", Scripted)
    monkeypatch.setattr(Scripted, "harmless", 0.0)
    chosen = []
    monkeypatch.setattr(retrain, "false_positives", lambda *a: chosen.append(a) or false_positives(*a))
    mitigated(Retrain(steps=3, rounds=3), planted, planted.samples, backend)
    assert len(chosen) == 1
