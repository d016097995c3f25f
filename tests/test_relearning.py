"""Whether a repaired network takes its backdoor up again."""

from dataclasses import replace

import pytest
import torch

from agnes import measuring, relearning
from agnes.errors import OutOfTime
from agnes.relearning import relearn
from agnes.results import Relearning
from agnes.testing import plant, tiny_backend


@pytest.fixture(scope="module")
def planted():
    return plant(each=8)


@pytest.fixture
def backend():
    return tiny_backend()


def repaired(planted, reading):
    """The planted network, the backdoor's channel read so loudly by the target's logit."""
    copy = planted.network.copy()
    with torch.no_grad():
        copy.module.logits.weight.view(6, 8, 16)[planted.target, planted.channel] = reading
        if not reading:
            copy.module.first.weight[planted.channel] = 0
    return copy


def test_a_backdoor_that_is_still_there_takes_no_step(planted, backend):
    found = relearn(planted.network, planted.trigger, planted.samples.test, backend)
    assert found.target_steps == 0
    assert found.quick
    assert found.target == planted.target
    assert planted.target not in found.controls


def test_a_backdoor_that_is_only_muffled_comes_back_quickly(planted, backend):
    muffled = repaired(planted, 8)
    assert measuring.attack_success(muffled, planted.trigger, planted.samples, backend)[0] == 0
    assert relearn(muffled, planted.trigger, planted.samples.test, backend).quick


def test_a_backdoor_that_is_gone_is_no_quicker_than_anything_new(planted, backend):
    found = relearn(repaired(planted, 0), planted.trigger, planted.samples.test, backend)
    assert not found.quick
    assert found.target_steps is None or found.target_steps > 5


def test_the_network_is_left_alone_and_the_answer_is_repeatable(planted, backend):
    before = {name: value.clone() for name, value in planted.network.module.state_dict().items()}
    one, other = (relearn(repaired(planted, 8), planted.trigger, planted.samples.test, backend) for _ in range(2))
    assert one == other
    relearn(planted.network, planted.trigger, planted.samples.test, backend)
    after = planted.network.module.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not any(parameter.requires_grad for parameter in planted.network.module.parameters())


def test_no_image_is_both_learnt_from_and_measured(planted, backend, monkeypatch):
    seen = []
    monkeypatch.setattr(relearning, "_steps", lambda n, t, c, learnt, further, b: seen.append((learnt, further)) or 3)
    found = relearn(planted.network, planted.trigger, planted.samples, backend)
    learnt, further = seen[0]
    assert (len(learnt), len(further)) == (found.images, found.measured) == (8, 32)
    assert not any(torch.equal(one, other) for one in learnt.images for other in further.images)
    assert planted.target not in {*learnt.labels.tolist(), *further.labels.tolist()}
    assert len(found.controls) == relearning.CONTROLS


def test_a_label_specific_trigger_is_taught_on_its_source(planted, backend, monkeypatch):
    seen = []
    monkeypatch.setattr(relearning, "_steps", lambda n, t, c, learnt, further, b: seen.append((learnt, further)) or 3)
    found = relearn(planted.network, replace(planted.trigger, source=1), planted.samples, backend)
    assert {label for part in seen[0] for label in part.labels.tolist()} == {1}
    assert 1 not in found.controls


def test_too_few_images_give_no_answer(planted, backend):
    assert relearn(planted.network, planted.trigger, planted.samples.subset([0, 1, 2]), backend) is None


def test_the_deadline_is_kept(planted):
    with pytest.raises(OutOfTime):
        relearn(repaired(planted, 0), planted.trigger, planted.samples, tiny_backend(time_budget=1e-6))


@pytest.mark.parametrize(
    ("target", "controls", "quick"),
    [
        (0, (1, 2, 3), True),
        (4, (8, 9, 20), True),
        (5, (8, 9, 20), False),
        (10, (None, None, 3), True),
        (11, (None, None, 3), False),
        (None, (None, None, None), False),
        (2, (4, 6), True),
        (3, (4, 6), False),
        (0, (0, 0, 0), True),
        (1, (), False),
    ],
)
def test_quick_is_half_the_steps_of_the_median_control(target, controls, quick):
    assert Relearning(0, "m", 8, 32, 20, target, dict(enumerate(controls, 1))).quick is quick
