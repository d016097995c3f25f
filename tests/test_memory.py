"""Promises of agnes.memory: bytes are counted while their tensors live."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agnes.memory import MemoryMeter, PeakMeter, process_peak

CPU = torch.device("cpu")


def test_what_was_there_before_is_not_counted():
    before = torch.zeros(1000)
    with MemoryMeter(CPU) as meter:
        before.add_(1)
        before.view(10, 100).t()
    assert meter.peak == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5000)), max_size=30))
@settings(deadline=None)
def test_the_peak_is_what_lived_at_once(steps):
    held: list[torch.Tensor] = []
    now = peak = 0
    with MemoryMeter(CPU) as meter:
        for drop, size in steps:
            if drop and held:
                now -= 4 * len(held.pop(0))
            else:
                held.append(torch.zeros(size))
                now += 4 * size
                peak = max(peak, now)
    assert meter.peak == peak


def test_views_cost_nothing_and_keep_their_storage_alive():
    with MemoryMeter(CPU) as meter:
        part = torch.zeros(1000)[:1]  # the whole thousand lives on
        other = torch.zeros(500)
    assert meter.peak == 4 * 1500
    del part, other


def test_values_kept_for_the_gradient_are_counted():
    weight = torch.ones(1000, requires_grad=True)
    with MemoryMeter(CPU) as without, torch.no_grad():
        weight.sigmoid().sigmoid().sigmoid().sigmoid().sum()
    with MemoryMeter(CPU) as meter:
        loss = weight.sigmoid().sigmoid().sigmoid().sigmoid().sum()
    assert without.peak == 2 * 4000  # what one step reads and what it gives
    assert meter.peak == 4 * 4000 + 4
    del loss


def test_intermediate_maps_are_counted_and_freed():
    network = nn.Sequential(*[nn.Linear(100, 100, bias=False) for _ in range(6)]).requires_grad_(False)
    images = torch.zeros(50, 100)
    with MemoryMeter(CPU) as meter:
        network(images)
    assert meter.peak == 2 * 50 * 100 * 4


def test_an_error_inside_passes_and_ends_the_measurement():
    meter = MemoryMeter(CPU)

    def fail() -> None:
        torch.zeros(10)
        raise KeyError

    with pytest.raises(KeyError), meter:
        fail()
    assert meter.peak == 40
    with MemoryMeter(CPU) as again:
        pass
    assert again.peak == 0


def test_meters_inside_one_another_both_count():
    with MemoryMeter(CPU) as outer:
        first = torch.zeros(100)
        with MemoryMeter(CPU) as inner:
            second = torch.zeros(50)
    assert (outer.peak, inner.peak) == (600, 200)
    del first, second


def test_measuring_leaves_torchs_compiler_unloaded():
    program = (
        "import sys, torch, agnes.memory\n"
        "with agnes.memory.MemoryMeter(torch.device('cpu')):\n"
        "    torch.zeros(3)\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


class Allocator:
    """A CUDA device that only counts."""

    def __init__(self, monkeypatch) -> None:
        self.now = self.highest = 0
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: self.now)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.highest)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: self.take(0, reset=True))

    def take(self, size: int, reset: bool = False) -> None:
        self.now += size
        self.highest = self.now if reset else max(self.highest, self.now)


def test_a_meter_inside_another_does_not_make_it_forget(monkeypatch):
    cuda = Allocator(monkeypatch)
    cuda.take(7)
    with MemoryMeter(torch.device("cuda", 0)) as outer:
        cuda.take(100)
        cuda.take(-100)
        with MemoryMeter(torch.device("cuda", 0)) as inner:  # it resets the device's own peak
            cuda.take(30)
            cuda.take(-30)
        with MemoryMeter(torch.device("cuda", 0)) as last:
            cuda.take(40)
    assert (outer.peak, inner.peak, last.peak) == (100, 30, 40)


@pytest.mark.skipif(sys.platform == "win32", reason="the system does not say")
def test_the_peak_of_the_process_is_in_bytes_and_never_falls():
    before = process_peak()
    assert before is not None
    assert before > 50 << 20  # torch alone takes that
    size = before + (20 << 20)
    held = torch.ones(size // 4) if size < 4 << 30 else None
    after = process_peak()
    assert after is not None
    assert after >= before + (20 << 20) if held is not None else after >= before
    del held
    assert (process_peak() or 0) >= after


def test_the_peak_of_a_block_is_told_apart_from_what_the_process_held_before():
    torch.ones(60 << 20, dtype=torch.uint8).clone()  # held, and given back
    meter = PeakMeter(CPU)
    with meter:
        small = torch.ones(1 << 20)
    if meter.peak is None:
        pytest.skip("the system does not say")
    with PeakMeter(CPU) as larger:
        large = torch.ones(100 << 20, dtype=torch.uint8)
    assert larger.peak is not None
    assert larger.peak > meter.peak + (80 << 20)
    assert meter.before >= small.nbytes
    assert len(large)
