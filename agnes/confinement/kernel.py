"""The few calls to the kernel that Python has no word for."""

from __future__ import annotations

import ctypes
import os
import platform
import sys

_PDEATHSIG, _DUMPABLE, _NO_NEW_PRIVS = 1, 4, 38
_CAPABILITIES_3 = 0x20080522
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2  # a root user's right to files of other users
_SIGKILL = 9
_CAPGET = {"x86_64": 125, "aarch64": 90}  # capset is the next

LINUX = sys.platform == "linux"


def machine() -> str:
    """The processor as the kernel names it, or '' where its calls are not known here."""
    name = platform.machine().lower()
    return name if LINUX and sys.maxsize > 2**32 and name in ("x86_64", "aarch64") else ""


def syscall(number: int, *arguments: object) -> int:
    """One system call; an OSError where it fails."""
    return _checked(_libc().syscall, ctypes.c_long(number), *arguments)


def prctl(option: int, *arguments: int) -> int:
    padded = [*arguments, 0, 0, 0, 0][:4]
    return _checked(_libc().prctl, option, *(ctypes.c_ulong(each) for each in padded))


def give_up_rights(parent: int, writes: bool) -> None:
    """No new privileges, no looking into this process, root's powers dropped, and no life after the parent's death."""
    if not LINUX:
        return
    _drop_powers(1 << _DAC_READ_SEARCH | (1 << _DAC_OVERRIDE if writes else 0))
    prctl(_NO_NEW_PRIVS, 1)
    prctl(_DUMPABLE, 0)
    prctl(_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:  # it died before it could be watched
        os._exit(1)


def _drop_powers(kept: int) -> None:
    """Of what root may do, keep only these."""
    if machine() not in _CAPGET:
        return
    get, put = _CAPGET[machine()], _CAPGET[machine()] + 1
    head = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0)
    had = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the same for newer ones
    syscall(get, head, had)
    kept &= had[1]
    syscall(put, head, (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(function: ctypes._NamedFuncPointer, *arguments: object) -> int:
    function.restype = ctypes.c_long
    result = function(*arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
