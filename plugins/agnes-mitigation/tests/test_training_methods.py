"""Promises of the methods that train: what they learn from, what they keep, and what they leave."""

from __future__ import annotations

import copy as copying
from dataclasses import replace

import pytest
import torch
from agnes_mitigation import watching
from agnes_mitigation.ft_sam import FtSam
from agnes_mitigation.i_bau import IBau
from agnes_mitigation.retrain import Retrain, false_positives
from agnes_mitigation.training import augmented, batches, sharpest, shuffled, stamped
from agnes_mitigation.unlearn import Unlearn
from agnes_mitigation.watching import Watch, changes_between, divide
from agnes_mitigation.withstand import Withstand
from torch.nn import functional

from agnes import measuring
from agnes.detecting import Findings
from agnes.errors import OutOfTime
from agnes.learning import bytes_per_image, gradients, trainable
from agnes.results import Verdict
from agnes.testing import tiny_backend, tiny_network, tiny_samples


def state(network):
    return {name: value.clone() for name, value in network.module.state_dict().items()}


METHODS = (
    Retrain(steps=6, rounds=1),
    Unlearn(steps=6),
    FtSam(steps=6),
    IBau(rounds=1, search=2, steps=3),
    Withstand(steps=6),
)


def mitigated(method, planted, samples, backend):
    given = {"triggers": (planted.trigger,)} if "triggers" in method.needs else {}
    given |= {"rescan": None} if isinstance(method, Retrain) else {}
    given |= {"triggers": ()} if isinstance(method, (Withstand, FtSam, IBau)) else {}
    return method.mitigate(network=planted.network, samples=samples, backend=backend, **given)


def test_images_are_selected_by_a_confusion_matrix_made_by_hand():
    # rows: true class; columns: seen as     0  1  2  3
    matrix = torch.tensor([[2, 0, 3, 0], [1, 2, 3, 0], [0, 0, 4, 0], [1, 1, 0, 0]])
    labels = torch.tensor([row for row in range(4) for column in range(4) for _ in range(int(matrix[row, column]))])
    seen = torch.tensor([column for row in range(4) for column in range(4) for _ in range(int(matrix[row, column]))])
    # false positives: class 0 two, class 1 one, class 2 six, class 3 none
    first = false_positives(seen, labels, 4, 1)
    assert len(first) == 6
    assert set(seen[first].tolist()) == {2}
    assert not (labels[first] == 2).any()
    assert len(false_positives(seen, labels, 4, 2)) == 8
    assert len(false_positives(seen, labels, 4, 4)) == 9
    assert len(false_positives(labels, labels, 4, 4)) == 0


def test_retraining_ends_a_planted_backdoor_and_keeps_accuracy(planted, backend):
    repair = Retrain(steps=60).mitigate(planted.network, planted.samples, (planted.trigger,), None, backend)
    assert measuring.attack_success(repair.network, planted.trigger, planted.samples, backend)[0] <= 0.05
    assert measuring.accuracy(repair.network, planted.samples, backend)[0] >= 0.9
    assert repair.notes[-1].endswith("of the triggers 0 still work")


def scanner(*answers):
    """A re-scan that finds these triggers, and the networks that it was shown."""
    shown = []

    def rescan(network):
        shown.append(network)
        found = answers[min(len(shown), len(answers)) - 1]
        return Findings(triggers=tuple(found), verdict=Verdict("backdoored" if found else "clean", 0.5))

    return rescan, shown


def test_retraining_goes_on_while_a_re_scan_finds_a_trigger(planted, backend):
    other = replace(planted.trigger, convicts=True, pattern=planted.trigger.pattern.flip(2))
    rescan, shown = scanner([other], [])
    repair = Retrain(steps=60).mitigate(planted.network, planted.samples, (planted.trigger,), rescan, backend)
    assert len(shown) == 2
    assert "0 still work; a re-scan finds 1 trigger" in repair.notes[-2]
    assert "a re-scan finds 0 triggers" in repair.notes[-1]


def test_what_a_re_scan_finds_is_learnt_in_the_next_round(planted, backend, monkeypatch):
    other = replace(planted.trigger, convicts=True, mask=planted.trigger.mask.flip(1))
    learnt = []
    chosen = Retrain._chosen

    def watched(self, network, material, triggers, backend):
        learnt.append(list(triggers))
        return chosen(self, network, material, triggers, backend)

    monkeypatch.setattr(Retrain, "_chosen", watched)
    rescan, _ = scanner([other], [])
    Retrain(steps=4, rounds=2).mitigate(planted.network, planted.samples, (planted.trigger,), rescan, backend)
    assert learnt[0] == [planted.trigger]
    assert learnt[1][1] is other


def test_of_all_rounds_the_one_with_the_fewest_triggers_left_is_kept(planted, backend):
    other = replace(planted.trigger, convicts=True)
    rescan, shown = scanner([other], [other, other], [other, other])
    states = []

    def remembering(network):
        states.append(state(network))
        return rescan(network)

    repair = Retrain(steps=60, rounds=3).mitigate(
        planted.network, planted.samples, (planted.trigger,), remembering, backend
    )
    assert len(shown) == 3
    assert all(torch.equal(value, states[0][name]) for name, value in state(repair.network).items())


def test_triggers_that_do_not_convict_do_not_keep_it_going(planted, backend):
    rescan, shown = scanner([replace(planted.trigger, convicts=False)])
    Retrain(steps=60).mitigate(planted.network, planted.samples, (planted.trigger,), rescan, backend)
    assert len(shown) == 1


def test_unlearning_ends_a_planted_backdoor(planted, backend):
    repair = Unlearn(steps=60).mitigate(planted.network, planted.samples, (planted.trigger,), backend)
    assert measuring.attack_success(repair.network, planted.trigger, planted.samples, backend)[0] <= 0.05
    assert measuring.accuracy(repair.network, planted.samples, backend)[0] >= 0.9


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_what_is_not_in_the_change_list_is_bit_identical(method, planted, backend):
    before = state(planted.network)
    repair = mitigated(method, planted, planted.samples, backend)
    listed = {change.layer for change in repair.changes}
    after = state(repair.network)
    differing = {name.rpartition(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert differing == listed
    assert all(torch.equal(value, before[name]) for name, value in state(planted.network).items())


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_unknown_labels_are_the_networks_own_and_the_note_says_so(method, planted, backend):
    repair = mitigated(method, planted, replace(planted.samples, labels=None, test=None), backend)
    assert any("own predictions" in note for note in repair.notes)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_the_test_part_decides_nothing(method, planted, backend):
    spoilt = replace(planted.samples.test, labels=(planted.samples.test.labels + 1) % planted.network.class_count)
    one = mitigated(method, planted, planted.samples, backend)
    other = mitigated(method, planted, planted.samples.with_test(spoilt), backend)
    assert all(torch.equal(value, state(other.network)[name]) for name, value in state(one.network).items())


def test_batch_norm_keeps_its_statistics(backend):
    network = tiny_network("residual")
    repair = FtSam(steps=3, max_accuracy_drop=1.0).mitigate(network, tiny_samples(network, each=4), (), backend)
    before, after = state(network), state(repair.network)
    assert repair.changes
    assert all(torch.equal(after[name], before[name]) for name in before if "running" in name or "tracked" in name)


def test_a_network_that_loses_accuracy_goes_back_to_its_best_state(planted, backend):
    repair = FtSam(steps=30, rate=50.0, rho=0.0).mitigate(planted.network, planted.samples, (), backend)
    assert repair.changes == ()
    assert "nothing was changed" in repair.notes[-1]


def test_a_watch_prefers_accuracy_kept_then_success_gone_then_training(planted, backend):
    copy = planted.network.copy()
    watch = Watch(copy, planted.samples, (planted.trigger,), 0.02, backend)
    watch.look(0)
    path = copying.deepcopy(copy.module.state_dict())
    with torch.no_grad():
        copy.module.logits.weight.zero_()
    watch.look(1)  # no success, no accuracy
    copy.module.load_state_dict(path)
    with torch.no_grad():
        copy.module.first.weight[5] = 0
    watch.look(2)
    watch.put_best()
    assert (watch.step, watch.success, watch.lost) == (2, 0.0, 0.0)
    assert not copy.module.first.weight[5].any()


@pytest.mark.parametrize(("left", "kept"), [(1, 3), (2, 2)])
def test_a_watch_takes_one_misled_image_for_none_and_keeps_the_later_state(planted, backend, monkeypatch, left, kept):
    successes = iter([1.0, 0.5, 0.0, left / len(planted.samples)])
    monkeypatch.setattr(watching, "attack_success", lambda *_: next(successes))
    watch = Watch(planted.network.copy(), planted.samples, (planted.trigger,), 0.02, backend)
    for step in range(4):
        watch.look(step)
    assert watch.step == kept


def test_images_are_split_by_class_and_few_are_noted(planted, backend):
    material = divide(planted.network, planted.samples, 0.25, 10, backend)
    assert len(material.held_out) == 6
    assert sorted(material.held_out.labels.tolist()) == list(range(6))
    assert "10 a class would be better" in material.notes[0]
    assert divide(planted.network, planted.samples, 0.25, 4, backend).notes == ()


def test_gradients_in_chunks_are_those_of_the_whole_batch():
    network = tiny_network("residual").copy()
    samples = tiny_samples(network, each=4)
    parameters = [p.requires_grad_(True) for p in trainable(network)]

    def loss(images, labels):
        return functional.cross_entropy(network(images), labels)

    whole = torch.autograd.grad(loss(samples.images, samples.labels), parameters)
    found = gradients(loss, parameters, samples.images, samples.labels, tiny_backend(memory=1000), 400.0)
    for one, other in zip(found, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_sharpest_move_is_the_best_of_many_within_the_radius():
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(6, generator=generator), torch.randn(3, generator=generator)]
    slopes = [torch.randn(6, generator=generator), torch.randn(3, generator=generator)]
    move = torch.cat(sharpest(weights, slopes, 0.5))
    flat, slope = torch.cat(weights), torch.cat(slopes)
    assert float((move / flat).norm()) == pytest.approx(0.5, rel=1e-4)
    tried = torch.randn(5000, 9, generator=generator)
    tried = 0.5 * tried / tried.norm(dim=1, keepdim=True) * flat
    assert float(move @ slope) >= float((tried @ slope).max())


def test_every_image_is_seen_once_before_any_is_seen_again():
    draws = shuffled(7, 3, torch.Generator().manual_seed(0))
    seen = torch.cat([next(draws) for _ in range(7)]).tolist()
    assert [sorted(seen[start : start + 7]) for start in (0, 7, 14)] == [list(range(7))] * 3


def test_augmented_images_stay_images_and_are_never_mirrored():
    images = torch.zeros(50, 3, 32, 32)
    images[:, :, :, :16] = 0.5  # dark on the right
    changed = augmented(images, torch.Generator().manual_seed(0))
    assert bool((changed >= 0).all() and (changed <= 1).all())
    assert bool((changed[:, :, :, :12].mean((1, 2, 3)) > changed[:, :, :, 20:].mean((1, 2, 3)) + 0.3).all())
    assert not torch.equal(changed[0], changed[1])


def test_of_images_laid_over_others_the_teacher_alone_says_what_they_are(planted, backend):
    material = divide(planted.network, planted.samples, 0.25, 1, backend)
    learner = Withstand(batch=32, augment=False, teacher=0.0)
    draw = torch.Generator().manual_seed(0)
    images, wanted = next(batches(material, material.rows, learner, planted.network, draw, backend, mixed=0.5))
    known = (images[:, None] == material.images[None]).flatten(2).all(2).any(1)
    assert float(known.float().mean()) == pytest.approx(0.5, abs=0.2)
    assert bool((wanted[known].amax(1) == 1).all())
    said = planted.network(images[~known]).softmax(1)
    torch.testing.assert_close(wanted[~known], said)


def test_each_image_takes_the_trigger_of_its_number(planted):
    images = planted.samples.images[:3]
    found = stamped(images, (planted.trigger,), torch.tensor([-1, 0, -1]))
    assert torch.equal(found[[0, 2]], images[[0, 2]])
    assert torch.equal(found[1], planted.apply(images[1:2])[0])


def test_weights_that_a_file_brought_as_plain_tensors_are_trained_too():
    network = tiny_network("plain").copy()
    module = network.module.get_submodule(network.layers[0].module)
    weight = module.weight.detach().clone()
    del module.weight
    module.register_buffer("weight", weight)
    assert any(tensor is module.weight for tensor in trainable(network))


def test_what_an_image_takes_grows_with_the_network():
    backend = tiny_backend()
    few, many = (bytes_per_image(tiny_network(name), backend) for name in ("fully_connected", "residual"))
    assert 3 * 4 * 3 * 12 * 12 <= few < many


def test_a_change_list_names_the_modules_whose_tensors_differ():
    network = tiny_network("batch_norm")
    copy = network.copy()
    layer = network.layers[0]
    with torch.no_grad():
        copy.module.get_submodule(layer.module).weight.mul_(1.1)
    (change,) = changes_between(network, copy, "trained")
    assert change.layer == layer.module
    assert "weight by 10.00% of its size" in change.what


def test_when_time_runs_out_the_best_state_is_handed_over(planted):
    spent = []

    class Ending:
        def begin(self, what, total):
            spent.append(what)

        def tick(self, amount):
            if spent[-1] == "unlearning":
                spent.append("unlearning")
                if len(spent) > 12:
                    raise OutOfTime("the time budget is spent")

        def end(self):
            pass

    with pytest.raises(OutOfTime) as caught:
        Unlearn(steps=100).mitigate(
            planted.network, planted.samples, (planted.trigger,), replace(tiny_backend(), progress_to=Ending())
        )
    assert caught.value.partial.network.parameter_count == planted.network.parameter_count
