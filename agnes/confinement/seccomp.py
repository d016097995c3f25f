"""seccomp: the system calls that the child may make. What is not listed fails with 'not permitted'."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable

from agnes.confinement import kernel
from agnes.confinement.calls import ALLOWED, LAST, NUMBERS, WRITING

_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SET_MODE_FILTER, _ALL_THREADS = 1, 1

# classic BPF: the word at an offset, comparisons with a constant, and the verdict
_LOAD, _EQUAL, _ABOVE, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000

_CLONE_THREAD = 0x10000
_OPEN_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1031, 1032)  # no owners, no leases: they send signals
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, window size, FIONREAD, FIONBIO, close on exec
_PRCTL = (15, 16, 0x53564D41)  # names of threads and of memory

_Step = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


def close(writes: bool) -> None:
    """Filter the system calls of all threads from here on; an OSError where the kernel cannot."""
    install(program(kernel.machine(), os.getpid(), writes))


def install(steps: list[_Step]) -> None:
    """Hand a filter to the kernel, for good and for every thread."""
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("@HP", len(steps), ctypes.addressof(buffer))
    number = NUMBERS["seccomp"][kernel.machine() == "aarch64"]
    stray = kernel.syscall(number or 0, _SET_MODE_FILTER, _ALL_THREADS, ctypes.create_string_buffer(head, len(head)))
    if stray:
        raise OSError(errno.EBUSY, f"thread {stray} cannot be filtered")


def program(machine: str, process: int, writes: bool) -> list[_Step]:
    """The filter: one verdict a call, the last one for whatever is not named."""
    if machine not in _ARCHITECTURE:
        raise OSError(errno.ENOSYS, "the system calls of this processor are not known")
    steps: list[_Step] = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, _ARCHITECTURE[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
    ]
    for name, body in _rules(process, writes):
        number = NUMBERS[name][machine == "aarch64"]
        if number is not None:
            steps += [(_EQUAL, 0, len(body), number), *body]
    # Newer calls than this list knows are "not there", so that libraries fall back to older ones.
    return [*steps, (_ABOVE, 0, 1, LAST), *_verdict(errno.ENOSYS), *_verdict(errno.EPERM)]


def _rules(process: int, writes: bool) -> Iterable[tuple[str, list[_Step]]]:
    for name in (*ALLOWED, *(WRITING if writes else ())):
        yield name, _verdict(0)
    yield "open", _verdict(0) if writes else _unless_bits(1, _OPEN_TO_WRITE)
    yield "openat", _verdict(0) if writes else _unless_bits(2, _OPEN_TO_WRITE)
    yield "clone", [_low(0), (_ANY_BIT, 0, 1, _CLONE_THREAD), *_verdict(0), *_verdict(errno.EPERM)]
    yield "clone3", _verdict(errno.ENOSYS)  # its flags cannot be seen; libraries then use clone
    yield "sched_setaffinity", [(_RETURN, 0, 0, _ERROR)]  # "done", and nothing is: which processor is not its matter
    yield "kill", _one_of(0, (process,))
    yield "tgkill", _one_of(0, (process,))
    yield "fcntl", _one_of(1, _FCNTL)
    yield "ioctl", _one_of(1, _IOCTL)
    yield "prctl", _one_of(0, _PRCTL)
    yield "prlimit64", _only_asking()


def _verdict(error: int) -> list[_Step]:
    return [(_RETURN, 0, 0, _ERROR | error if error else _ALLOW)]


def _low(argument: int) -> _Step:
    return (_LOAD, 0, 0, 16 + 8 * argument)


def _high(argument: int) -> _Step:
    return (_LOAD, 0, 0, 20 + 8 * argument)


def _unless_bits(argument: int, bits: int) -> list[_Step]:
    return [_low(argument), (_ANY_BIT, 0, 1, bits), *_verdict(errno.EACCES), *_verdict(0)]


def _one_of(argument: int, values: tuple[int, ...]) -> list[_Step]:
    """Allowed where the low half of the argument, all that the kernel reads of an int, is one of these."""
    steps = [_low(argument)]
    for value in values:
        steps += [(_EQUAL, 0, 1, value), *_verdict(0)]
    return [*steps, *_verdict(errno.EPERM)]


def _only_asking() -> list[_Step]:
    """prlimit64 with no new limit, of the process itself."""
    refused = _verdict(errno.EPERM)
    return [
        *[_low(2), (_EQUAL, 1, 0, 0), *refused],
        *[_high(2), (_EQUAL, 1, 0, 0), *refused],
        *[_low(0), (_EQUAL, 1, 0, 0), *refused],
        *_verdict(0),
    ]
