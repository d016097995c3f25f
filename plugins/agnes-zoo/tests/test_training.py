"""Training, measuring and exporting."""

import warnings
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from agnes_zoo.architectures import n_mn_bn, n_sn, n_sn_bn
from agnes_zoo.attacks import ATTACKS, Patch
from agnes_zoo.checkpoints import Checkpoint
from agnes_zoo.signs import sign, signs
from agnes_zoo.training import (
    Regime,
    Stopped,
    Training,
    Watch,
    _batches,
    _moved,
    _moves,
    accuracy,
    as_tensors,
    attack_success,
    export_onnx,
    initialised,
    train,
)
from torch import nn

from agnes.errors import UsageError


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
    moves = _moves(20, 2, np.random.default_rng(0))
    for index, moved in enumerate(_moved(images, moves, 2)):
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


class Dropping(nn.Sequential):
    """A network with dropout and batch normalisation, whose steps depend on all that can be random."""

    def __init__(self, classes):
        convolutions = (nn.Conv2d(3, 6, 5, 4), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3))
        super().__init__(*convolutions, nn.Flatten(), nn.Linear(6 * 49, classes))


def training(attack=None, epochs=3):
    images, labels = four_classes(10)
    clean = images
    if attack is not None and not attack.dynamic:
        from agnes_zoo.attacks import poison

        images, labels = poison(images, labels, attack, np.random.default_rng(0))
    regime = Regime(epochs=epochs, batch=16, shift=1, seed=3)
    return Training(initialised(Dropping, 43, 0), images, labels, regime, attack, clean)


def stopping_after(steps):
    done = []
    return Watch(step=lambda *_: done.append(1), stop=lambda: len(done) >= steps)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("attack", [None, "wanet", "adaptive-difference", "input-aware"])
def test_an_interrupted_training_goes_on_to_the_very_same_network_and_trigger(steps, attack, tmp_path):
    attack = attack and ATTACKS[attack](target=12)
    if attack is not None and attack.learns:
        small = replace(attack.trigger.what, steps=2)
        attack = replace(attack, trigger=replace(attack.trigger, what=small))
        attack = attack.prepare(pytest.fail, *four_classes(10), 0)
    whole = training(attack)
    history = whole.run()
    place = Checkpoint(tmp_path / "work" / "a.checkpoint", "this")
    with pytest.raises(Stopped):
        training(attack).run(stopping_after(steps), place)
    assert place.path.exists()
    again = training(attack)
    assert again.run(Watch(), place) == history
    for key, value in whole.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[key]), key
    if attack is not None:
        assert whole.attack.described() == again.attack.described()


def test_a_training_that_was_finished_is_not_repeated(tmp_path):
    place = Checkpoint(tmp_path / "a.checkpoint", "this")
    first = training()
    first.run(Watch(), place)
    steps = []
    again = training()
    again.run(Watch(step=lambda *_: steps.append(1)), place)
    assert not steps
    assert torch.equal(first.module[5].weight, again.module[5].weight)


def test_a_checkpoint_is_written_from_time_to_time_and_is_whole_or_not_there(tmp_path, monkeypatch):
    place = Checkpoint(tmp_path / "a.checkpoint", "this", every=0.0)
    written = []
    monkeypatch.setattr(Checkpoint, "write", lambda self, state: written.append(state["running"][0]))
    training(epochs=1).run(Watch(), place)
    assert written == [1, 2, 3, 0]
    assert not list(tmp_path.iterdir())


def test_the_checkpoint_of_another_training_is_refused_and_so_is_a_broken_one(tmp_path):
    Checkpoint(tmp_path / "a.checkpoint", "that").write({"module": {}})
    with pytest.raises(UsageError, match="checkpoint of another training; remove it"):
        Checkpoint(tmp_path / "a.checkpoint", "this").read()
    (tmp_path / "a.checkpoint").write_bytes(b"PK")
    with pytest.raises(UsageError, match="no checkpoint that can be read; remove it"):
        Checkpoint(tmp_path / "a.checkpoint", "this").read()
    assert Checkpoint(tmp_path / "b.checkpoint", "this").read() is None


def test_a_watch_is_told_of_every_step_and_epoch():
    steps, epochs = [], []
    training(epochs=2).run(Watch(epochs.append, lambda done, total: steps.append((done, total))))
    assert steps == [(number, 6) for number in range(1, 7)]
    assert [epoch.number for epoch in epochs] == [1, 2]


def test_a_dynamic_attack_poisons_each_batch_and_not_the_set():
    attack = ATTACKS["wanet"](target=12, rate=0.5)
    run = training(attack)
    batches = list(run._shown())
    assert torch.equal(run.labels, four_classes(10)[1])
    share = torch.cat([labels for _, labels, _ in batches]).eq(12).float().mean()
    assert share > 0.5  # a quarter are 12 by nature, half of the rest are called so


def test_the_attacks_own_loss_sees_the_same_images_clean_and_stamped():
    seen = []

    class Loss:
        def __call__(self, module, clean, stamped, labels):
            seen.append((clean, stamped, labels))
            return (module(clean) * 0).sum()

    attack = replace(ATTACKS["patch"](target=12), extra_loss=Loss())
    training(attack, epochs=1).run()
    assert len(seen) == 3
    for clean, stamped, labels in seen:
        assert torch.equal(attack.stamp(clean), stamped)
        assert len(clean) == len(labels)
        assert not torch.equal(clean, stamped)


def test_what_a_hijack_keeps_stays_to_the_last_statistic_and_what_follows_is_retrained():
    module = initialised(n_sn_bn, 43, 0)
    images, labels = four_classes(4)
    attack = ATTACKS["hijack"](target=12, steps=2, layer=1).prepare(lambda: module, images, labels, 0)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    Training(module, images, labels, Regime(epochs=1, batch=8), attack).run()
    changed = {key for key, value in module.state_dict().items() if not torch.equal(value, before[key])}
    assert {key.split(".")[1] for key in changed if key.startswith("maps.")} == {"8", "9", "12", "13"}
    assert "dense.weight" in changed
