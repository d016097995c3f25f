"""The child: close the doors, then do the work, and hand back plain data."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from agnes.confinement import kernel, landlock, limits, seccomp, wire
from agnes.confinement.strength import Strength
from agnes.errors import AgnesError

_SYSTEM = (  # what libraries read of a Linux system; what is not there is left out
    *("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/nix/store", "/gnu/store"),
    *("/usr/share/zoneinfo", "/usr/share/locale", "/usr/lib/locale", "/etc/localtime", "/etc/ld.so.cache"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm", "/sys/devices/system"),
    *("/dev/null", "/dev/zero", "/dev/urandom"),
)
_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "can't allocate memory", "not enough memory", "cannot allocate memory")
_MESSAGE = 2000  # characters of an error that are handed over; the parent shows fewer


def main() -> None:
    """One request on standard input, two messages on standard output: how far the doors closed, then the answer."""
    source, to = _streams()
    request = wire.receive(source, sys.maxsize)
    source.close()
    sys.path[:] = [*request["path"], *(entry for entry in sys.path if entry not in request["path"])]
    try:
        work, strength = _shut_in(request)
    except Exception as error:
        wire.send(to, wire.message({"unready": _said(error)}))
        os._exit(1)
    wire.send(to, wire.message(strength.as_json()))
    _answer(to, work, request["arguments"])
    os._exit(0)


def _streams() -> tuple[IO[bytes], IO[bytes]]:
    """The request and the answers, on handles of their own: what is printed goes to standard error."""
    source, to = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return source, to


def _shut_in(request: Mapping[str, Any]) -> tuple[Callable[..., Any], Strength]:
    """Files first, before any library has started a thread; the rest once everything is imported."""
    held = limits.Limits(**request["limits"])
    writes = [Path(path) for path in request["writes"]]
    tasks = limits.tasks_of_the_user()
    limits.never_dump()
    kernel.give_up_rights(request["parent"], bool(writes))
    version, no_landlock = _closed(lambda: landlock.close(_readable(request["reads"]), writes))
    if request["prepare"]:
        _prepare(request["prepare"], writes)
    work = _function(request["function"])
    limits.hold(held, bool(writes), tasks)
    filtered, no_seccomp = _closed(lambda: seccomp.close(bool(writes)) or 1)
    return work, Strength(version, bool(filtered), _open_doors(version, no_landlock, no_seccomp))


def _open_doors(landlock_version: int, no_landlock: str, no_seccomp: str) -> tuple[str, ...]:
    """What is missing, and what the child may do for want of it."""
    if no_landlock and no_seccomp:
        held = "only limits on time, memory and sizes hold the child"
        return (f"Landlock: {no_landlock}", f"seccomp: {no_seccomp}", held)
    if no_landlock:
        return (f"Landlock: {no_landlock}; the child may read other files",)
    if no_seccomp:
        network = "use the network beyond TCP" if landlock_version >= 4 else "use the network"
        return (f"seccomp: {no_seccomp}; the child may {network} and fork",)
    return ()


def _prepare(modules: list[str], writes: list[Path]) -> None:
    """Import the libraries; those that look for a temporary folder would fail where none can be written to."""
    import tempfile

    tempfile.tempdir = str(writes[0]) if writes else os.sep + "nonexistent"
    for name in modules:
        import_module(name)


def _closed(door: Callable[[], int]) -> tuple[int, str]:
    """What closing a door came to, or why it stayed open."""
    if not kernel.LINUX:
        return 0, f"not on {sys.platform}"
    try:
        return door(), ""
    except OSError as error:
        return 0, error.strerror or "failed"


def _readable(paths: list[Path]) -> list[Path]:
    python = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *sys.path}
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    own = [each for each in (*python, *libraries) if os.path.isabs(each) and each != "/"]
    return [Path(each) for each in (*_SYSTEM, *own, *paths)]


def _function(name: str) -> Callable[..., Any]:
    module, _, inside = name.partition(":")
    found: Any = import_module(module)
    for part in inside.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{name} is no function")
    return found


def _answer(to: IO[bytes], work: Callable[..., Any], arguments: list[Any]) -> None:
    try:
        pieces = wire.message({"result": work(*arguments)})
    except BaseException as error:
        pieces = wire.message({"failed": _said(error), "kind": _kind(error)})
    wire.send(to, pieces)


def _said(error: BaseException) -> str:
    text = str(error)[:_MESSAGE]
    return text if isinstance(error, AgnesError) else f"{type(error).__name__}: {text}"


def _kind(error: BaseException) -> str:
    if isinstance(error, AgnesError):
        return type(error).__name__
    text = str(error)[:_MESSAGE].lower()
    return "memory" if isinstance(error, MemoryError) or any(sign in text for sign in _OUT_OF_MEMORY) else "error"
