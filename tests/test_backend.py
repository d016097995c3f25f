"""Promises of agnes.backend: the same numbers in chunks of any size, repeatable, inside memory and time."""

from __future__ import annotations

import itertools
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agnes.backend import Backend, is_out_of_memory
from agnes.errors import OutOfMemory, OutOfTime, UsageError
from agnes.memory import MemoryMeter
from agnes.network import Network
from agnes.testing.networks import INPUT_SHAPE, residual


class Watched:
    """Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple] = []

    def begin(self, what: str, total: int) -> None:
        self.told.append(("begin", what, total))

    def tick(self, amount: int) -> None:
        self.told.append(("tick", amount))

    def end(self) -> None:
        self.told.append(("end",))

    @property
    def ticked(self) -> int:
        return sum(entry[1] for entry in self.told if entry[0] == "tick")


class Clock:
    def __init__(self, monkeypatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("agnes.backend.time", types.SimpleNamespace(monotonic=lambda: self.now))


# --- where and how ---------------------------------------------------------------------------------------------------


def machine(monkeypatch, *, cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6_000_000, 8_000_000))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("has", "asked", "device"),
    [
        ({}, None, "cpu"),
        ({"mps": True}, None, "mps"),
        ({"cuda": 2, "mps": True}, None, "cuda:0"),
        ({"cuda": 2}, "auto", "cuda:0"),
        ({"cuda": 2}, "cuda", "cuda:0"),
        ({"cuda": 2}, "cuda:1", "cuda:1"),
        ({"cuda": 2}, "cpu", "cpu"),
        ({"mps": True}, "mps", "mps"),
    ],
)
def test_the_device_asked_for_is_taken_or_the_best_there_is(monkeypatch, has, asked, device):
    machine(monkeypatch, **has)
    assert Backend.choose(asked).device == torch.device(device)


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ("cuda", "'cuda' was asked for and is not there; use --device cpu"),
        ("cuda:3", "'cuda:3' was asked for and is not there"),
        ("mps", "'mps' was asked for and is not there"),
        ("gpu", "there is no device 'gpu'; use cpu, cuda, cuda:1 or mps"),
        ("meta", "does not compute on 'meta'"),
    ],
)
def test_a_device_that_is_not_there_is_never_replaced_in_silence(monkeypatch, asked, match):
    machine(monkeypatch)
    with pytest.raises(UsageError, match=match):
        Backend.choose(asked)


def test_half_of_the_free_memory_is_taken_unless_a_budget_is_given(monkeypatch):
    machine(monkeypatch, cuda=1)
    assert Backend.choose("cuda").memory == 3_000_000
    assert Backend.choose("cuda", memory=7).memory == 7
    assert 0 < Backend.choose("cpu").memory <= 1 << 31


def test_an_unknown_precision_is_refused():
    with pytest.raises(UsageError, match="no precision 'float8'; choose from float32, tf32, bfloat16"):
        Backend.choose("cpu", precision="float8")  # type: ignore[arg-type]


def test_values_become_tensors_on_the_device(cpu):
    made = cpu.tensor([1, 2], torch.float64)
    assert (made.device, made.dtype) == (cpu.device, torch.float64)
    assert cpu.describe() == {
        "device": "cpu",
        "device_name": "cpu",
        "precision": "float32",
        "memory_budget": cpu.memory,
        "threads": torch.get_num_threads(),
    }


# --- precision -------------------------------------------------------------------------------------------------------


def switches() -> tuple:
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return cuda.fp32_precision, cudnn.conv.fp32_precision, cudnn.deterministic, cudnn.benchmark  # type: ignore[attr-defined]


@pytest.mark.parametrize(("precision", "inside"), [("float32", "ieee"), ("tf32", "tf32"), ("bfloat16", "ieee")])
def test_every_switch_is_set_inside_and_put_back(precision, inside):
    before = switches()
    backend = Backend.choose("cpu", precision=precision)

    def look_and_fail() -> None:
        assert switches() == (inside, inside, True, False)
        assert torch.is_autocast_enabled("cpu") is (precision == "bfloat16")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), backend.computing():
        look_and_fail()
    assert switches() == before
    assert not torch.is_autocast_enabled("cpu")


def test_bfloat16_is_coarser_by_its_eight_bits_and_only_inside():
    left, right = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0))
    exact = (left.double() @ right.double()).float()
    backend = Backend.choose("cpu", precision="bfloat16")
    with backend.computing():
        coarse = left @ right
    assert coarse.dtype == torch.bfloat16
    error = float((coarse.float() - exact).abs().max() / exact.abs().max())
    assert 2**-12 < error < 2**-6
    torch.testing.assert_close(left @ right, exact)
    with Backend.choose("cpu").computing():
        torch.testing.assert_close(left @ right, exact)


# --- randomness ------------------------------------------------------------------------------------------------------

purposes = st.lists(st.one_of(st.integers(0, 50), st.sampled_from(["mask", "noise", "order"])), min_size=1, max_size=3)


def drawn(backend: Backend, *purpose: str | int) -> list[float]:
    return torch.rand(4, generator=backend.generator(*purpose)).tolist()


@given(purposes, purposes, st.integers(0, 2**40), st.integers(0, 2**40))
@settings(deadline=None)
def test_each_seed_and_purpose_has_a_stream_of_its_own(one, other, seed, another):
    backend = Backend.choose("cpu", memory=1, seed=seed)
    assert drawn(backend, *one) == drawn(backend, *one)
    assert (drawn(backend, *one) == drawn(backend, *other)) is (one == other)
    same = drawn(backend, *one) == drawn(Backend.choose("cpu", memory=1, seed=another), *one)
    assert same is (seed == another)


def test_drawing_leaves_torchs_own_generator_alone(cpu):
    before = torch.get_rng_state()
    noise = cpu.normal(300, 300, purpose="start")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(noise, cpu.normal(300, 300, purpose="start"))
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02


# --- chunks ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 300), st.integers(1, 200_000), st.integers(1, 40))
@settings(deadline=None, max_examples=60)
def test_any_memory_budget_gives_the_whole_result(rows, budget, width):
    backend = Backend(torch.device("cpu"), memory=budget)
    one = torch.arange(rows * width, dtype=torch.float32).view(rows, width)
    other = torch.arange(rows, dtype=torch.float32)
    mapped = backend.map(lambda a, b: (a * 2).cumsum(1) + b[:, None], one, other)
    assert torch.equal(mapped, (one * 2).cumsum(1) + other[:, None])


@given(st.integers(0, 5000), st.integers(1, 10**6))
@settings(deadline=None, max_examples=40)
def test_chunks_cover_everything_once_and_in_order(count, budget):
    backend = Backend(torch.device("cpu"), memory=budget)
    spans = backend.chunked(lambda start, stop: (start, stop, torch.zeros(stop - start, 25))[:2], count)
    assert [i for span in spans for i in range(*span)] == list(range(count))


@pytest.mark.parametrize("budget", [2_000, 50_000, 3_000_000])
@pytest.mark.parametrize("fixed", [0, 10_000])
def test_no_chunk_takes_more_than_the_budget_when_one_item_fits(budget, fixed):
    backend = Backend(torch.device("cpu"), memory=budget + fixed)
    peaks, sizes = [], []

    def work(start: int, stop: int) -> None:
        with MemoryMeter(backend.device) as meter:
            whatever = torch.zeros(fixed // 4), torch.zeros(stop - start, 100), torch.zeros(stop - start, 50)
        del whatever
        peaks.append(meter.peak)
        sizes.append(stop - start)

    backend.chunked(work, 20_000)
    assert max(peaks) <= budget + fixed
    assert peaks[0] == 600 + fixed
    if 2 * (600 + fixed) <= budget + fixed:  # the budget is used, once a second size could be tried
        assert max(sizes) >= 0.9 * min(20_000, budget // 600)


def test_a_budget_smaller_than_one_item_goes_one_at_a_time():
    backend = Backend(torch.device("cpu"), memory=10)
    sizes = backend.chunked(lambda i, j: (torch.zeros(j - i, 1000), j - i)[1], 12)
    assert sizes == [1] * 12


@pytest.mark.parametrize(
    ("budget", "most", "room"), [(10, 50, 1), (80_000, 50, 20), (1 << 30, 128, 128), (1 << 30, 1, 1)]
)
def test_room_is_how_many_items_the_budget_holds(budget, most, room):
    backend = Backend(torch.device("cpu"), memory=budget)
    found = backend.room(lambda start, stop: (torch.zeros(stop - start, 1000), 0)[1], most)
    assert 0.9 * room <= found <= room


def test_room_is_less_than_what_ran_out_of_memory():
    def work(start: int, stop: int) -> None:
        if stop - start > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")

    assert Backend(torch.device("cpu"), memory=1 << 30).room(work, 128) == 4


def test_chunks_of_a_network_are_the_network(cpu):
    network = Network.of(residual(0), INPUT_SHAPE)
    images = torch.rand(37, *INPUT_SHAPE, generator=cpu.generator("images"))
    small = Backend(cpu.device, memory=100_000)
    torch.testing.assert_close(small.map(network, images), network(images))


def test_tensors_of_different_lengths_are_not_cut_short(cpu):
    with pytest.raises(ValueError, match="3, 2 rows"):
        cpu.map(torch.add, torch.zeros(3), torch.zeros(2))


# --- out of memory ---------------------------------------------------------------------------------------------------


@given(st.integers(1, 200), st.integers(1, 60))
@settings(deadline=None, max_examples=40)
def test_out_of_memory_halves_the_chunk_and_loses_nothing(count, most):
    backend = Backend(torch.device("cpu"), memory=1 << 30)
    failed = []

    def work(start: int, stop: int) -> list[int]:
        if stop - start > most:
            failed.append(stop - start)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return list(range(start, stop))

    assert list(itertools.chain(*backend.chunked(work, count))) == list(range(count))
    assert failed == sorted(failed, reverse=True)
    assert len(failed) <= 4


def test_one_item_too_many_is_said_in_one_line():
    def work(start: int, stop: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(
        OutOfMemory, match=r"^inverting triggers does not fit the memory of cpu even one item at a time; use"
    ):
        Backend(torch.device("cpu")).chunked(work, 3, what="inverting triggers")


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_running_out_of_memory_is_known_on_every_device(error, memory):
    assert is_out_of_memory(error) is memory


def test_other_errors_are_not_tried_again(cpu):
    calls = []

    def work(start: int, stop: int) -> None:
        calls.append(start)
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        cpu.chunked(work, 5)
    assert calls == [0]


# --- time and progress -----------------------------------------------------------------------------------------------


def test_progress_is_told_every_item_once():
    watched = Watched()
    backend = Backend.choose("cpu", memory=1 << 20, progress=watched)
    backend.chunked(lambda i, j: None, 500, what="reading")
    assert watched.told[0] == ("begin", "reading", 500)
    assert watched.told[-1] == ("end",)
    assert watched.ticked == 500
    backend.chunked(lambda i, j: None, 10)  # without a name nobody is told
    assert watched.told[-1] == ("end",)
    assert watched.ticked == 500


def test_progress_ends_when_the_work_fails():
    watched = Watched()
    with pytest.raises(KeyError), Backend.choose("cpu", progress=watched).progress("work", 2):
        raise KeyError
    assert watched.told == [("begin", "work", 2), ("end",)]


def test_the_deadline_is_kept_between_chunks(monkeypatch):
    clock = Clock(monkeypatch)
    backend = Backend.choose("cpu", memory=1, time_budget=10)
    done = []

    def work(start: int, stop: int) -> torch.Tensor:
        clock.now += 3
        done.append(stop)
        return torch.zeros(stop - start)

    with pytest.raises(OutOfTime, match="time budget is spent; give more with --time-budget"):
        backend.chunked(work, 100)
    assert done == [1, 2, 3, 4]
    assert backend.remaining() == -2


def test_without_a_deadline_there_is_all_the_time(cpu):
    assert cpu.remaining() == float("inf")
    cpu.check()
    assert cpu.within(float("inf")) is cpu


@pytest.mark.parametrize(("budget", "seconds", "left"), [(None, 5, 5), (20, 5, 5), (3, 5, 3)])
def test_within_only_ever_brings_the_deadline_forward(monkeypatch, budget, seconds, left):
    clock = Clock(monkeypatch)
    backend = Backend.choose("cpu", memory=9, seed=4, time_budget=budget)
    nearer = backend.within(seconds)
    assert nearer.remaining() == left
    assert (nearer.memory, nearer.seed, nearer.device) == (9, 4, backend.device)
    clock.now += left
    with pytest.raises(OutOfTime):
        nearer.check()


def test_ticks_count_by_one_unless_told():
    watched = Watched()
    with Backend.choose("cpu", progress=watched).progress("steps", 4) as tick:
        for _ in itertools.repeat(None, 2):
            tick()
        tick(2)
    assert watched.ticked == 4


def test_where_the_size_of_an_item_is_known_nothing_is_measured():
    sizes = []
    backend = Backend.choose("cpu", memory=1000)
    backend.chunked(lambda start, stop: sizes.append(stop - start), 25, each=100)
    assert sizes == [10, 10, 5]
