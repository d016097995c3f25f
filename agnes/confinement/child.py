"""The child: close the doors, then do the work, and hand back plain data."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from agnes.confinement import kernel, landlock, limits, seccomp, wire
from agnes.confinement.strength import Strength
from agnes.errors import AgnesError

_SYSTEM = (  # what libraries read of a Linux system; what is not there is left out
    "/lib /lib32 /lib64 /usr/lib /usr/lib32 /usr/lib64 /usr/local/lib /usr/libexec /nix/store /gnu/store"
    " /usr/share/zoneinfo /usr/share/locale /usr/lib/locale /etc/ld.so.cache /etc/localtime"
    " /proc/self /proc/cpuinfo /proc/meminfo /proc/stat /proc/sys/kernel /proc/sys/vm /sys/devices/system"
    " /dev/null /dev/zero /dev/urandom /dev/random"
).split()
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
        wire.send(to, {"unready": _said(error)})
        os._exit(1)
    wire.send(to, strength.as_json())
    _answer(to, work, request["arguments"])
    os._exit(0)


def _streams() -> tuple[BinaryIO, BinaryIO]:
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
    for name in request["prepare"]:
        import_module(name)
    work = _function(request["function"])
    limits.hold(held, bool(writes), tasks)
    filtered, no_seccomp = _closed(lambda: seccomp.close(bool(writes)) or 1)
    why = []
    if no_landlock:
        why.append(f"Landlock: {no_landlock}; the child may read {'and write ' if writes else ''}the user's files")
    if no_seccomp:
        why.append(f"seccomp: {no_seccomp}; the child may use the network and start programs")
    return work, Strength(version, bool(filtered), tuple(why))


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


def _answer(to: BinaryIO, work: Callable[..., Any], arguments: list[Any]) -> None:
    try:
        answer = {"result": work(*arguments)}
    except BaseException as error:
        answer = {"failed": _said(error), "kind": _kind(error)}
    try:
        wire.send(to, answer)
    except (TypeError, MemoryError, RecursionError) as error:  # nothing was written yet
        wire.send(to, {"failed": _said(error), "kind": _kind(error)})


def _said(error: BaseException) -> str:
    text = str(error)[:_MESSAGE]
    return text if isinstance(error, AgnesError) else f"{type(error).__name__}: {text}"


def _kind(error: BaseException) -> str:
    if isinstance(error, AgnesError):
        return type(error).__name__
    text = str(error)[:_MESSAGE].lower()
    return "memory" if isinstance(error, MemoryError) or any(sign in text for sign in _OUT_OF_MEMORY) else "error"
