"""Backend: the one place that knows device, precision, memory, seeds, batching, progress and time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch

from agnes.errors import OutOfMemory, OutOfTime, UsageError
from agnes.memory import MemoryMeter

Precision = Literal["float32", "tf32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")
GIB = 1 << 30
_GROWTH = 8  # a chunk is at most so many times the largest one measured


class Progress(Protocol):
    """Where ticks go. The terminal has one; by default they go nowhere."""

    def begin(self, what: str, total: int) -> None: ...

    def tick(self, amount: int) -> None: ...

    def end(self) -> None: ...


class Silent:
    """Progress that nobody watches."""

    def begin(self, what: str, total: int) -> None:
        pass

    def tick(self, amount: int) -> None:
        pass

    def end(self) -> None:
        pass


@dataclass(frozen=True)
class Backend:
    """Where and how tensors are computed. Made by `Backend.choose`."""

    device: torch.device
    precision: Precision = "float32"
    memory: int = 2 * GIB  # bytes that one chunk of work may take beyond what is there already
    seed: int = 0
    deadline: float | None = None  # of time.monotonic()
    progress_to: Progress = field(default_factory=Silent, compare=False, repr=False)

    @classmethod
    def choose(
        cls,
        device: str | None = None,
        *,
        precision: Precision = "float32",
        memory: int | None = None,
        seed: int = 0,
        time_budget: float | None = None,
        progress: Progress | None = None,
    ) -> Backend:
        """The device asked for, or the best there is; half of its free memory unless a budget is given."""
        chosen = _device(device)
        if precision not in PRECISIONS:
            raise UsageError(f"there is no precision '{precision}'; choose from {', '.join(PRECISIONS)}")
        deadline = None if time_budget is None else time.monotonic() + time_budget
        budget = _free_memory(chosen) // 2 if memory is None else memory
        return cls(chosen, precision, budget, seed, deadline, progress or Silent())

    # Randomness

    def generator(self, *purpose: str | int, device: torch.device | str | None = None) -> torch.Generator:
        """A generator of its own for each purpose, the same for the same seed and purpose."""
        words = "/".join(str(word) for word in (self.seed, *purpose))
        seed = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "little") >> 1
        return torch.Generator(device or self.device).manual_seed(seed)

    # Tensors

    def tensor(self, values: Any, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Values as a tensor on the device."""
        return torch.as_tensor(values, dtype=dtype, device=self.device)

    def normal(self, *shape: int, purpose: str | int = "normal") -> torch.Tensor:
        """Standard normal noise, drawn on the CPU so that it is the same on every device."""
        return torch.randn(*shape, generator=self.generator(purpose, device="cpu")).to(self.device)

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Compute in the chosen precision, repeatably; every switch is put back afterwards."""
        matmul: Any = torch.backends.cuda.matmul
        cudnn: Any = torch.backends.cudnn
        conv = cudnn.conv
        before = (matmul.fp32_precision, conv.fp32_precision, cudnn.deterministic, cudnn.benchmark)
        matmul.fp32_precision = conv.fp32_precision = "tf32" if self.precision == "tf32" else "ieee"
        cudnn.deterministic, cudnn.benchmark = True, False
        lower = self.precision == "bfloat16"
        try:
            with torch.autocast(self.device.type, torch.bfloat16) if lower else contextlib.nullcontext():
                yield
        finally:
            matmul.fp32_precision, conv.fp32_precision, cudnn.deterministic, cudnn.benchmark = before

    # Batching

    def chunked(
        self, work: Callable[[int, int], Any], count: int, *, what: str = "", each: float | None = None
    ) -> list[Any]:
        """`work(start, stop)` over 0..count in chunks that fit the memory budget; the results in order.

        The first chunks are small and measured, unless `each` says how many bytes an item takes; out of memory all
        the same, the chunk is halved and done again.
        """
        results: list[Any] = []
        sizes = _Sizes(self.memory, count, each)
        with self.progress(what, count) as tick:
            start = 0
            while start < count:
                stop = min(count, start + sizes.next)
                for result in self._tried(work, start, stop, sizes, what):
                    results.append(result)
                    tick(stop - start)
                    start = stop
        return results

    def room(self, work: Callable[[int, int], Any], most: int) -> int:
        """How many items of `work(start, stop)` fit the memory budget at once, `most` at most; found by doing some."""
        sizes = _Sizes(self.memory, most)
        while not sizes.settled:
            self.check()
            self._tried(work, 0, sizes.next, sizes, "")
        return sizes.next

    def _tried(self, work: Callable[[int, int], Any], start: int, stop: int, sizes: _Sizes, what: str) -> list[Any]:
        """What comes of one chunk; nothing where memory ran out, and the next one will be smaller."""
        try:
            with sizes.measuring(self.device, stop - start):
                return [work(start, stop)]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            sizes.shrink(stop - start, what, self)
            return []

    def map(self, function: Callable[..., torch.Tensor], *tensors: torch.Tensor, what: str = "") -> torch.Tensor:
        """`function` over the rows of tensors of one length, in chunks, joined again along the first dimension.

        The tensors may lie on any device: each chunk is brought to the backend's.
        """
        count = len(tensors[0])
        if any(len(tensor) != count for tensor in tensors):
            raise ValueError(
                f"tensors of {', '.join(str(len(tensor)) for tensor in tensors)} rows cannot be mapped over"
            )

        def work(start: int, stop: int) -> torch.Tensor:
            return function(*(tensor[start:stop].to(self.device) for tensor in tensors))

        parts = self.chunked(work, count, what=what) or [work(0, 0)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    # Time and progress

    @contextlib.contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A tick function for `total` pieces of work; each tick also keeps the deadline."""
        watched = bool(what)
        if watched:
            self.progress_to.begin(what, total)

        def tick(amount: int = 1) -> None:
            if watched:
                self.progress_to.tick(amount)
            self.check()

        try:
            yield tick
        finally:
            if watched:
                self.progress_to.end()

    def remaining(self) -> float:
        """Seconds left; infinite without a deadline."""
        return float("inf") if self.deadline is None else self.deadline - time.monotonic()

    def check(self) -> None:
        """Raise OutOfTime once the deadline has passed."""
        if self.remaining() <= 0:
            raise OutOfTime("the time budget is spent; give more with --time-budget")

    def within(self, seconds: float) -> Backend:
        """This backend with an earlier deadline."""
        if seconds == float("inf"):
            return self
        until = time.monotonic() + seconds
        return replace(self, deadline=until if self.deadline is None else min(until, self.deadline))

    def describe(self) -> dict[str, Any]:
        """Device, precision, memory and threads, for the report."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return {
            "device": str(self.device),
            "device_name": name,
            "precision": self.precision,
            "memory_budget": self.memory,
            "threads": torch.get_num_threads(),
        }


class _Sizes:
    """Chunk sizes that grow as measurement allows: 1, then a few, then what the budget holds."""

    def __init__(self, budget: int, count: int, each: float | None = None) -> None:
        self.budget = budget
        self.next = 1 if each is None else max(1, min(count, int(budget / max(1.0, each))))
        self._limit = count  # lowered for good when memory ran out
        self._measured: dict[int, int] = {}  # items -> peak bytes
        self.settled = each is not None

    @contextlib.contextmanager
    def measuring(self, device: torch.device, items: int) -> Iterator[None]:
        """Measure chunks while they grow, then let the rest run at full speed."""
        if self.settled:
            yield
            return
        with MemoryMeter(device) as meter:
            yield
        self._measured[items] = meter.peak
        self.next = max(1, min(self._limit, items * _GROWTH, self._fitting()))
        self.settled = self.next <= items

    def _fitting(self) -> int:
        """How many items the budget holds, by the line through the two largest chunks measured."""
        *_, last = sorted(self._measured)
        peak = self._measured[last]
        each, fixed = peak / last, 0.0  # all of it counted as if it grew with the chunk: never too little
        if len(self._measured) > 1:
            before = sorted(self._measured)[-2]
            each = max(0.0, (peak - self._measured[before]) / (last - before))
            fixed = max(0.0, peak - each * last)
        return int((self.budget - fixed) / max(1.0, each))

    def shrink(self, items: int, what: str, backend: Backend) -> None:
        """Half the chunk after memory ran out; give up when one item is too much."""
        if backend.device.type == "cuda":
            torch.cuda.empty_cache()
        if items == 1:
            raise OutOfMemory(
                f"{what or 'one step'} does not fit the memory of {backend.device} even one item at a time; "
                "use a device with more memory"
            )
        self.next = self._limit = items // 2
        self.settled = True


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on any device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in text for words in ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")
    )


def _device(name: str | None) -> torch.device:
    if name is None or name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"there is no device '{name}'; use cpu, cuda, cuda:1 or mps") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device '{name}' was asked for and is not there; use --device cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device 'mps' was asked for and is not there; use --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"AGNES does not compute on '{device.type}'; use cpu, cuda or mps")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            available = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
        return min(available, 4 * GIB)  # on a CPU larger chunks gain nothing and cost page faults
    except (OSError, StopIteration):
        pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
        return min(pages * 4096 // 2, 4 * GIB) or GIB
