"""Training, measuring and exporting."""

import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from agnes_zoo.architectures import n_mn_bn, n_sn, n_sn_bn
from agnes_zoo.attacks import Patch
from agnes_zoo.signs import sign, signs
from agnes_zoo.training import _batches, _shifted, accuracy, as_tensors, attack_success, export_onnx, initialised, train
from torch import nn


class Fixed(nn.Module):
    """Sends an image with a yellow upper left pixel to class 2, every other one to class 0."""

    def forward(self, images):
        yellow = (images[:, 0, 0, 0] == 1) & (images[:, 1, 0, 0] == 1) & (images[:, 2, 0, 0] == 0)
        return nn.functional.one_hot(yellow.long() * 2, 3).float()


def four_classes(count=30):
    rng = np.random.default_rng(1)
    labels = np.tile([12, 14, 15, 35], count)
    return as_tensors(np.stack([sign(int(label), rng) for label in labels]), labels)


def trained(seed=0, epochs=3):
    data = four_classes()
    module = initialised(n_sn_bn, 43, seed)
    before = accuracy(module, *data)
    seen = []
    history = train(module, *data, epochs=epochs, seed=seed, batch=16, shift=1, progress=seen.append)
    return module, history, seen, before, accuracy(module, *data)


def test_pixels_become_channels_first_floats():
    images = np.arange(2 * 2 * 3 * 3, dtype=np.uint8).reshape(2, 2, 3, 3)
    pixels, labels = as_tensors(images, np.array([1, 0], dtype=np.int16))
    assert pixels[1, 2, 0, 1] == pytest.approx(images[1, 0, 1, 2] / 255)
    assert labels.dtype == torch.int64


def test_a_tiny_training_improves_accuracy_and_tells_each_epoch():
    module, history, seen, before, after = trained(epochs=6)
    assert before < 0.3
    assert after > 0.6
    assert list(history) == seen
    assert [epoch.number for epoch in history] == list(range(1, 7))
    assert history[-1].loss < history[0].loss
    assert not module.training


def test_the_same_seed_trains_the_same_network_and_another_seed_another():
    first, again, other = (trained(seed, epochs=1)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["dense.weight"], other["dense.weight"])


def test_training_leaves_the_global_generator_as_it_was():
    before = torch.get_rng_state()
    trained(epochs=1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("count", "sizes"), [(10, [4, 4, 2]), (9, [4, 5]), (3, [3]), (1, [1])])
def test_no_batch_but_the_only_one_holds_a_single_image(count, sizes):
    assert [part.stop - part.start for part in _batches(count, 4)] == sizes


def test_shifting_moves_whole_images_by_no_more_than_asked():
    images = torch.rand(20, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    wide = nn.functional.pad(images, (2, 2, 2, 2), mode="replicate")
    for index, moved in enumerate(_shifted(images, 2, np.random.default_rng(0))):
        offered = [wide[index, :, y : y + 6, x : x + 7] for y in range(5) for x in range(5)]
        assert any(torch.equal(moved, one) for one in offered)


def test_accuracy_and_attack_success_are_shares_of_the_right_images():
    images, labels = torch.zeros(4, 3, 5, 5), torch.tensor([0, 1, 2, 0])
    patch = Patch(1, (0, 0))
    assert accuracy(Fixed(), images, labels) == 0.5
    assert attack_success(Fixed(), images, labels, patch, target=2) == 1
    assert attack_success(Fixed(), images, labels, Patch(1, (3, 3)), target=2) == 0


def test_measuring_uses_eval_mode_and_puts_the_mode_back():
    module = initialised(n_mn_bn, 43, 0).train()
    means = module.maps[1].running_mean.clone()
    accuracy(module, *as_tensors(*signs(1, seed=0)))
    assert module.training
    assert torch.equal(module.maps[1].running_mean, means)


@pytest.mark.parametrize("build", [n_sn, n_mn_bn])
def test_the_exported_file_answers_as_the_module_does(build, tmp_path):
    module = initialised(build, 43, 0)
    images, labels = as_tensors(*signs(1, seed=0))
    train(module, images, labels, epochs=1, seed=0)  # statistics other than the first
    module.train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = export_onnx(module, tmp_path / "model.onnx")
    assert module.training
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    module.eval()
    for count in (1, 5):
        (logits,) = session.run(["logits"], {"image": images[:count].numpy()})
        assert np.abs(logits - module(images[:count]).detach().numpy()).max() < 1e-5


def test_the_exported_file_keeps_batch_normalisation_and_names_no_source_file(tmp_path):
    path = export_onnx(initialised(n_mn_bn, 43, 0), tmp_path / "model.onnx")
    graph = onnx.load(path).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("BatchNormalization") == kinds.count("Conv") == 5
    assert b".py" not in path.read_bytes()
