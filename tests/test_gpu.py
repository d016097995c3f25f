"""Promises kept on a CUDA device too: the same code gives the CPU's numbers."""

from __future__ import annotations

import itertools

import pytest
import torch

from agnes.backend import Backend
from agnes.measuring import accuracy, attack_success, predictions
from agnes.memory import MemoryMeter
from agnes.network import Network
from agnes.results import AdditiveTrigger
from agnes.samples import Samples
from agnes.testing.networks import INPUT_SHAPE, networks

pytestmark = pytest.mark.gpu
IMAGES = torch.rand(7, *INPUT_SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def gpu() -> Backend:
    return Backend.choose("cuda", seed=3)


def close(on_gpu: torch.Tensor, on_cpu: torch.Tensor) -> None:
    assert on_gpu.device.type == "cuda"
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(networks()))
def test_every_layer_goes_on_as_on_the_cpu(gpu, name):
    here = Network.of(networks()[name](0), INPUT_SHAPE, mean=[0.4], std=[0.3])
    there = here.to(gpu.device)
    assert there.device == gpu.device
    assert there.to("cuda") is there
    with gpu.computing():
        images = IMAGES.to(gpu.device)
        close(there(images), here(IMAGES))
        close(there.fold_batch_norm()(images), here(IMAGES))
        for layer in here.layers:
            state = here.until(layer, IMAGES).take([4, 0, 0])
            value = state.value.roll(1, 0) * 1.5
            moved = there.until(layer, images).take([4, 0, 0])
            close(moved.value, state.value)
            close(there.after(layer, moved, value.to(gpu.device)), here.after(layer, state, value))


def test_a_module_on_the_device_becomes_a_network_there(gpu):
    module = networks()["residual"](0)
    expected = module(IMAGES).detach()
    network = Network.of(module.to(gpu.device), INPUT_SHAPE, std=[0.5])
    assert network.device == gpu.device
    with gpu.computing():
        close(network(IMAGES.to(gpu.device) * 0.5), expected)


@pytest.mark.parametrize("budget", [1, 100_000, 1 << 30])
def test_chunks_of_any_size_give_the_whole(gpu, budget):
    network = Network.of(networks()["dense"](0), INPUT_SHAPE)
    images = IMAGES.repeat(9, 1, 1, 1)
    backend = Backend(gpu.device, memory=budget)
    with backend.computing():
        close(backend.map(network.to(gpu.device), images), network(images))  # images still on the CPU


def test_memory_is_counted_as_it_is_allocated(gpu):
    with MemoryMeter(gpu.device) as meter:
        held = torch.zeros(1 << 20, device=gpu.device)
    assert 4 << 20 <= meter.peak <= 5 << 20
    del held


def test_running_out_of_the_devices_memory_loses_nothing(gpu):
    total = torch.cuda.get_device_properties(gpu.device).total_memory
    each = total // 3  # two fit, three do not

    def work(start: int, stop: int) -> list[int]:
        torch.empty((stop - start) * each, dtype=torch.uint8, device=gpu.device)
        return list(range(start, stop))

    backend = Backend(gpu.device, memory=100 * total)
    assert list(itertools.chain(*backend.chunked(work, 8))) == list(range(8))


def test_noise_is_the_same_on_every_device(gpu):
    cpu = Backend.choose("cpu", seed=3)
    assert torch.equal(gpu.normal(4, 5, purpose="start").cpu(), cpu.normal(4, 5, purpose="start"))
    ours = torch.rand(3, device=gpu.device, generator=gpu.generator("x"))
    assert torch.equal(ours, torch.rand(3, device=gpu.device, generator=gpu.generator("x")))


@pytest.mark.parametrize(
    ("precision", "least", "most"), [("float32", 0, 1e-6), ("tf32", 1e-6, 3e-3), ("bfloat16", 1e-4, 3e-2)]
)
def test_precision_is_what_was_asked_for(gpu, precision, least, most):
    left, right = torch.randn(2, 512, 512, generator=torch.Generator().manual_seed(0))
    exact = left.double() @ right.double()
    backend = Backend.choose("cuda", precision=precision)
    if precision == "tf32" and torch.cuda.get_device_capability(gpu.device) < (8, 0):
        pytest.skip("the device has no tf32")
    with backend.computing():
        result = left.to(gpu.device) @ right.to(gpu.device)
    error = float((result.cpu().double() - exact).abs().max() / exact.abs().max())
    assert least <= error <= most


def test_measuring_gives_the_same_shares(gpu):
    network = Network.of(networks()["plain"](0), INPUT_SHAPE)
    samples = Samples(IMAGES, torch.tensor([0, 1, 2, 3, 4, 0, 1]))
    trigger = AdditiveTrigger(target=1, asr=0.0, held_out=0, delta=IMAGES[0] - 0.5)
    cpu = Backend.choose("cpu")
    moved = network.to(gpu.device)
    with gpu.computing():
        assert predictions(moved, IMAGES, gpu).tolist() == predictions(network, IMAGES, cpu).tolist()
        assert accuracy(moved, samples, gpu) == accuracy(network, samples, cpu)
        assert attack_success(moved, trigger, samples, gpu) == attack_success(network, trigger, samples, cpu)
        assert attack_success(moved, trigger, samples.to(gpu.device), gpu) == attack_success(
            network, trigger, samples, cpu
        )
