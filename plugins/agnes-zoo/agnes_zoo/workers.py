"""Tasks side by side, each in a process with one thread that lives no longer than the one that started it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from agnes.errors import AgnesError

Item = TypeVar("Item")
Result = TypeVar("Result")

_POLL = 0.5  # seconds between two looks at what is done
_GRACE = 60.0  # seconds that a worker whose parent has died takes at most
_stop: Any = None  # in a worker: whether it is to stop
_idle = threading.Event()  # in a worker: set while it does nothing
_idle.set()


def side_by_side(
    task: Callable[[Item], Result], items: Sequence[Item], jobs: int, doing: str
) -> Iterator[tuple[Item, Result]]:
    """Each item with its result, as they are done; `doing` says in an error what a process was at."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(min(jobs, len(items)) or 1, context, _start, (stop, os.getpid()))
    try:
        with deaf_to_ctrl_c():
            pending = {pool.submit(_done, task, item): item for item in items}
        while pending:
            done, _ = wait(pending, timeout=_POLL, return_when=FIRST_COMPLETED)
            for future in done:
                yield pending.pop(future), future.result()
    except BrokenProcessPool as error:
        raise AgnesError(
            f"a process that {doing} was ended from outside, perhaps for want of memory; the same command "
            "goes on, --jobs 1 takes the least"
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def stopping() -> bool:
    """In a worker: whether it is to stop; elsewhere it is not."""
    return _stop is not None and _stop()


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, the same sums in the same order as in a worker."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that are started inside leave Ctrl-C to this one, from before their first import on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start(stop: Any, parent: int) -> None:
    """In a worker: one thread, Ctrl-C is the parent's business, and there is no life after the parent's."""
    global _stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it is not inherited
    torch.set_num_threads(1)
    _stop = lambda: stop.is_set() or os.getppid() != parent  # noqa: E731
    threading.Thread(target=_outlive_nobody, daemon=True).start()


def _outlive_nobody() -> None:
    """End this worker after its parent, once what it does has its checkpoint."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        _idle.wait(_GRACE)
        os._exit(1)


def _done(task: Callable[[Item], Result], item: Item) -> Result:
    """In a worker: one task."""
    _idle.clear()
    try:
        return task(item)
    finally:
        _idle.set()
