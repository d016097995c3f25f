"""What a class's own images do in a trigger's place."""

import pytest
import torch
from torch import nn

from agnes.backend import Backend
from agnes.natural import OTHERS, STRONG, against_own, own_share
from agnes.network import Network
from agnes.results import AdditiveTrigger, MaskTrigger
from agnes.samples import Samples

SIDE, CLASSES, TARGET = 8, 4, 2


class Corner(nn.Module):
    """Class 2 is a bright corner of 2 x 2; the other classes are told by the brightness of the opposite one."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)  # so that there is something to be a network
        with torch.no_grad():
            self.conv.weight.fill_(1.0)
            self.conv.bias.zero_()

    def forward(self, images):
        images = self.conv(images)
        own, other = images[:, 0, :2, :2].mean((1, 2)), images[:, 0, -2:, -2:].mean((1, 2))
        steps = torch.stack([-(other - at).abs() for at in (0.0, 0.4, 0.85)], dim=1)  # class 3 is the least sure
        return torch.cat([steps[:, :2], (4 * own - 2.02)[:, None], steps[:, 2:]], dim=1)


@pytest.fixture
def network():
    return Network.of(Corner().eval(), (1, SIDE, SIDE))


@pytest.fixture
def samples():
    images = torch.zeros(8, 1, SIDE, SIDE)
    labels = torch.arange(8) % CLASSES
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, -2:, -2:] = {0: 0.0, 1: 0.4, 2: 0.0, 3: 0.8}[label]
        image[:, :2, :2] = 1.0 if label == TARGET else 0.0
    return Samples(images, labels)


@pytest.fixture
def backend():
    return Backend.choose("cpu")


def patch(rows, columns, **options):
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, rows, columns] = 1.0
    return MaskTrigger(target=TARGET, asr=1.0, held_out=6, mask=mask, pattern=torch.ones(1, SIDE, SIDE), **options)


def test_a_trigger_on_what_tells_the_class_is_its_own_feature(network, samples, backend):
    assert own_share(network, patch(slice(0, 2), slice(0, 2)), samples, backend) == 1.0


def test_a_trigger_elsewhere_is_none(network, samples, backend):
    assert own_share(network, patch(slice(4, 6), slice(0, 2)), samples, backend) == 0.0


def test_the_share_is_that_of_a_plain_loop(network, samples, backend):
    trigger = patch(slice(0, 1), slice(0, 3))
    moved = []
    for image, label in zip(samples.images, samples.labels, strict=True):
        for own in samples.images[samples.labels == TARGET]:
            if label != TARGET:
                borne = image.clone()
                borne[:, 0, :3] = own[:, 0, :3]
                moved.append(int(network(borne[None]).argmax()) == TARGET)
    assert own_share(network, trigger, samples, backend) == pytest.approx(sum(moved) / len(moved))
    assert 0 < sum(moved) < len(moved)


def test_an_added_pattern_lies_where_it_changes_much(network, samples, backend):
    delta = torch.full((1, SIDE, SIDE), 0.9 * STRONG)
    delta[:, 4:6, :2] = 1.0
    assert own_share(network, AdditiveTrigger(target=TARGET, asr=1.0, held_out=6, delta=delta), samples, backend) == 0.0
    delta[:, :2, :2] = -1.0
    assert own_share(network, AdditiveTrigger(target=TARGET, asr=1.0, held_out=6, delta=delta), samples, backend) == 1.0


def test_a_large_place_an_empty_one_or_no_image_of_the_class_say_nothing(network, samples, backend):
    assert own_share(network, patch(slice(0, 5), slice(0, 5)), samples, backend) is None
    assert own_share(network, patch(slice(0, 0), slice(0, 0)), samples, backend) is None
    others = samples.subset((samples.labels != TARGET).nonzero().flatten())
    assert own_share(network, patch(slice(0, 2), slice(0, 2)), others, backend) is None


def test_images_of_the_source_alone_are_looked_at_where_there_is_one(network, samples, backend):
    shares = [own_share(network, patch(slice(0, 1), slice(0, 3), source=c), samples, backend) for c in (0, 1, 3)]
    assert shares == [0.0, 0.0, 1.0]


def test_of_many_images_some_of_every_class_are_looked_at(network, samples, backend):
    many = Samples(samples.images.repeat(60, 1, 1, 1), samples.labels.repeat(60))
    ordered = many.subset(many.labels.argsort(stable=True))
    assert OTHERS < 120
    assert own_share(network, patch(slice(0, 1), slice(0, 3)), ordered, backend) == pytest.approx(1 / 3)


def test_triggers_that_are_not_suspected_are_left_as_they_are(network, samples, backend):
    triggers = (patch(slice(0, 2), slice(0, 2)), patch(slice(4, 6), slice(0, 2)))
    found = against_own(network, triggers, [1], samples, backend)
    assert [t.natural_share for t in found] == [None, 0.0]
    assert against_own(network, triggers, [], samples, backend) == triggers


def test_without_labels_the_networks_own_answers_say_what_an_image_is(network, samples, backend):
    (found,) = against_own(network, (patch(slice(0, 2), slice(0, 2)),), [0], Samples(samples.images), backend)
    assert found.natural_share == 1.0
