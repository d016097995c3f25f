"""Landlock: which folders the child may read, and that it may write nowhere else."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from agnes.confinement import kernel

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # the same number on every processor
_VERSION = 1
_PATH_BENEATH = 1

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_OF_A_FILE = 1 | _WRITE_FILE | _READ_FILE | _TRUNCATE | 1 << 15  # what may be allowed on a file; the rest on folders
_READ = _READ_FILE | _READ_DIR
RUN, LIST, ALL = _READ | 1, _READ_DIR, (1 << 16) - 1  # for `others`: read and execute; see names; everything
_WRITE = _READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER | _TRUNCATE

_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # version of Landlock -> how many rights over files it knows; later 16
_TCP = 0b11  # bind and connect, from version 4
_SCOPES = 0b11  # abstract Unix sockets and signals, from version 6


class _Rule(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"  # as _pack_ wants it
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """The kernel's version of Landlock; an OSError where it has none."""
    return kernel.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))


def close(reads: Iterable[Path], writes: Iterable[Path], others: Iterable[tuple[Path, int]] = ()) -> int:
    """Shut this thread, and those it starts, out of all other files. Returns the version in force."""
    known = version()
    rights = (1 << _FILE_RIGHTS.get(known, 16)) - 1
    words = [rights, *([_TCP] if known >= 4 else []), *([_SCOPES] if known >= 6 else [])]
    attributes = (ctypes.c_uint64 * len(words))(*words)
    rules = kernel.syscall(_CREATE, attributes, ctypes.c_size_t(ctypes.sizeof(attributes)), ctypes.c_uint32(0))
    try:
        for path in reads:
            _allow(rules, path, _READ & rights)
        for path in writes:
            _allow(rules, path, _WRITE & rights)
        for path, allowed in others:
            _allow(rules, path, allowed & rights)
        kernel.syscall(_RESTRICT, ctypes.c_int(rules), ctypes.c_uint32(0))
    finally:
        os.close(rules)
    return known


def _allow(rules: int, path: Path, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # what is not there need not be read
        return
    try:
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            rights &= _OF_A_FILE
        kernel.syscall(_ADD_RULE, ctypes.c_int(rules), _PATH_BENEATH, ctypes.byref(_Rule(rights, handle)), 0)
    finally:
        os.close(handle)
