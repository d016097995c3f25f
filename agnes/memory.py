"""Measuring what a piece of work takes: tensors alive at once, and the process's own peak."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class _Allocations(TorchDispatchMode):
    """Counts the bytes of storages made inside it while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._seen: dict[int, weakref.ref] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here: torch need not load its compiler, a second's work, to keep it out."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {id(storage) for storage in _storages((*args, *(kwargs or {}).values()))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result if isinstance(result, (tuple, list)) else (result,)):
            if id(storage) not in known:
                self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key in self._seen and self._seen[key]() is storage:
            return
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)

        def freed(_: object) -> None:
            self.now -= size
            self._seen.pop(key, None)

        self._seen[key] = weakref.ref(storage, freed)


def _storages(values: Iterable[Any]) -> Iterator[torch.UntypedStorage]:
    """What tensors among an operator's arguments or results, or in lists of them, lie in."""
    for value in values:
        if isinstance(value, torch.Tensor):
            if value.layout == torch.strided:
                yield value.untyped_storage()
        elif isinstance(value, (list, tuple)):
            yield from _storages(value)


_open_meters: list[MemoryMeter] = []  # of CUDA devices, whose own peak has room for one question at a time


class MemoryMeter:
    """The peak of bytes that tensors made inside the block held at once, beyond what was there before."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peak = 0

    def __enter__(self) -> MemoryMeter:
        if self.device.type == "cuda":
            _tell_open_meters(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = self._highest = torch.cuda.memory_allocated(self.device)
            _open_meters.append(self)
        else:
            self._mode = _Allocations()
            self._mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.device.type == "cuda":
            _tell_open_meters(self.device)
            _open_meters.remove(self)
            self.peak = self._highest - self._before
        else:
            self._mode.__exit__(*error)
            self.peak = self._mode.peak


def _tell_open_meters(device: torch.device) -> None:
    """Hand the device's peak to every meter that is open, before another one resets it."""
    highest = torch.cuda.max_memory_allocated(device)
    for meter in _open_meters:
        if meter.device == device:
            meter._highest = max(meter._highest, highest)


class PeakMeter:
    """The most bytes held inside the block: the device's tensors on CUDA, all of the process on Linux."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.before = 0  # the process's peak until then, which this meter resets
        self.peak: int | None = None  # None: the system does not say

    def __enter__(self) -> PeakMeter:
        if self._device.type == "cuda":
            self._meter = MemoryMeter(self._device)
            self._meter.__enter__()
            return self
        self.before = process_peak() or 0
        self._resets = _reset_process_peak()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._device.type == "cuda":
            self._meter.__exit__(*error)
            self.peak = self._meter._highest
        elif self._resets:
            self.peak = _high_water()


def _reset_process_peak() -> bool:
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return False
    return True


def _high_water() -> int | None:
    """The resident peak since it was reset, in bytes."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return None


def process_peak() -> int | None:
    """The most memory this process has held, in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
