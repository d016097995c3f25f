"""What a repair did, counted."""

import torch
from torch import nn

from agnes import certifying
from agnes.network import Network
from agnes.samples import Samples
from agnes.testing import plant, tiny_network, tiny_samples


def test_a_confusion_matrix_is_what_counting_one_by_one_gives(cpu):
    network = tiny_network("batch_norm")
    samples = tiny_samples(network, each=6)
    matrix = torch.zeros(network.class_count, network.class_count, dtype=torch.int64)
    for image, label in zip(samples.images, samples.labels.tolist(), strict=True):
        matrix[label, int(network(image[None])[0].argmax())] += 1
    found = certifying.confusion(network, samples, cpu)
    assert {(true, seen): count for true, seen, count in found} == {
        (true, seen): int(matrix[true, seen]) for true, seen in matrix.nonzero().tolist()
    }
    assert list(found) == sorted(found)


def test_a_confusion_matrix_is_of_the_test_part_where_there_is_one(cpu):
    planted = plant(each=3)
    samples = planted.samples.subset([0]).with_test(planted.samples)
    assert certifying.confusion(planted.network, samples, cpu) == tuple((label, label, 3) for label in range(6))


def test_without_labels_there_is_no_confusion_matrix(cpu):
    network = tiny_network("plain")
    assert certifying.confusion(network, tiny_samples(network, labelled=False), cpu) == ()


def test_weights_that_differ_are_counted_one_by_one():
    network = tiny_network("batch_norm")
    copy = network.copy()
    assert certifying.weights_changed(network, copy) == 0
    layer = copy.layers[0]
    with torch.no_grad():
        copy.module.get_parameter(layer.weight)[0] += 1
        copy.module.get_submodule(layer.norm).running_mean += 1  # a statistic, no weight
    assert certifying.weights_changed(network, copy) == network.module.get_parameter(layer.weight)[0].numel()


def test_weights_that_are_gone_count_as_changed():
    wide, narrow = (
        Network.of(nn.Sequential(nn.Flatten(), nn.Linear(12, width), nn.ReLU(), nn.Linear(width, 2)), (3, 2, 2))
        for width in (5, 4)
    )
    assert certifying.weights_changed(wide, narrow) >= 12 * 5 + 5 + 5 * 2


def test_weights_that_a_file_brought_as_plain_tensors_count_too():
    network = tiny_network("plain").copy()
    module = network.module.get_submodule(network.layers[0].module)
    weight = module.weight.detach().clone()
    del module.weight
    module.register_buffer("weight", weight)
    other = network.copy()
    other.module.get_submodule(network.layers[0].module).weight += 1
    assert certifying.weights_changed(network, other) == weight.numel()


def test_agreement_is_the_share_of_equal_answers_and_asks_for_no_labels(cpu):
    network = tiny_network("plain")
    samples = tiny_samples(network, each=4, labelled=False)
    other = network.copy()
    with torch.no_grad():
        for parameter in other.module.parameters():
            parameter.zero_()  # every image goes to class 0
    expected = float((network(samples.images).argmax(1) == 0).float().mean())
    assert certifying.agreement(network, other, samples, cpu) == expected
    assert certifying.agreement(network, network, Samples(samples.images), cpu) == 1.0
