"""What the child may take of the machine, and the rlimits that hold it to that."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

GIB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """What the work in the child may take. What its libraries took while they were imported does not count."""

    memory: int = 4 * GIB  # bytes of memory beyond what the imported libraries hold
    cpu_seconds: int = 90  # of processor time, over all threads
    wall_seconds: float = 45.0  # from the closed doors to the answer
    start_seconds: float = 120.0  # for starting Python and importing the libraries
    file_bytes: int = 2 * GIB  # of one file; 0 where no folder may be written to
    open_files: int = 256  # files open at once
    threads: int = (
        256  # threads at once, and processes where the kernel lacks seccomp; the kernel does not count root's
    )
    answer_bytes: int = 2 * GIB  # what the child may hand back
    said_bytes: int = 1 << 16  # kept of what it prints; the rest is read and dropped

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"Limits.{field.name} must be above 0, not {getattr(self, field.name)}")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def never_dump() -> None:
    """No core file, whatever happens."""
    _cap("RLIMIT_CORE", 0)


def hold(limits: Limits, writes: bool, tasks: int | None) -> None:
    """Hold this process to its limits from now on; `tasks` is what its user ran before."""
    if held := _held():
        _cap("RLIMIT_DATA", held[1] + limits.memory)
        # Reserved address space costs nothing, so it may be twice as much; this also bounds shared memory.
        _cap("RLIMIT_AS", held[0] + 2 * limits.memory)
    spent = int(time.process_time()) + 1
    _cap("RLIMIT_CPU", spent + limits.cpu_seconds, spent + limits.cpu_seconds + 2)
    _cap("RLIMIT_FSIZE", limits.file_bytes if writes else 0)
    _cap("RLIMIT_NOFILE", limits.open_files)
    _cap("RLIMIT_MEMLOCK", 0)
    _cap("RLIMIT_MSGQUEUE", 0)
    if tasks is not None:
        _cap("RLIMIT_NPROC", tasks + limits.threads)


def _cap(name: str, soft: int, hard: int | None = None) -> None:
    """Lower one limit, never above what it was; a system that lacks it keeps its own."""
    try:
        import resource
    except ImportError:  # Windows
        return
    kind = getattr(resource, name, None)
    if kind is None:
        return
    most = resource.getrlimit(kind)[1]
    hard = soft if hard is None else hard
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    try:
        resource.setrlimit(kind, (soft, hard))
    except (OSError, ValueError):
        if sys.platform == "linux":
            raise


def _held() -> tuple[int, int] | None:
    """Bytes of address space and of data that this process has now; None where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return None
    page = os.sysconf("SC_PAGE_SIZE")
    return int(pages[0]) * page, int(pages[5]) * page


def tasks_of_the_user() -> int | None:
    """Threads that this user runs now: RLIMIT_NPROC counts them all. None where it does not hold or cannot be told."""
    if sys.platform != "linux" or os.getuid() == 0 or not Path("/proc/1").exists():
        return None
    return sum(_threads(process) for process in Path("/proc").iterdir() if process.name.isdecimal())


def _threads(process: Path) -> int:
    try:
        return (process / "task").stat().st_nlink - 2 if process.stat().st_uid == os.getuid() else 0
    except OSError:  # it has ended meanwhile
        return 0
