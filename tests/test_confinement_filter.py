"""Promises of the filter of system calls, run here step by step, for both processors that it is written for."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from agnes.confinement import calls, seccomp


def verdict(machine, number, *arguments, writes=False, architecture=None):
    words = {0: number, 4: architecture or {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[machine]}
    for n, argument in enumerate([*arguments, *[0] * 6][:6]):
        words[16 + 8 * n] = argument & 0xFFFFFFFF
        words[20 + 8 * n] = argument >> 32 & 0xFFFFFFFF
    steps, at, word = seccomp.program(machine, 77, writes), 0, 0
    while True:
        code, if_true, if_false, constant = steps[at]
        at += 1
        match code:
            case 0x20:
                word = words[constant]
            case 0x15:
                at += if_true if word == constant else if_false
            case 0x25:
                at += if_true if word > constant else if_false
            case 0x45:
                at += if_true if word & constant else if_false
            case 0x06:
                known = {0x7FFF0000: "allowed", 0x80000000: "killed", 0x50000: "done"}
                return known.get(constant) or errno.errorcode[constant & 0xFFFF]


CASES = [
    ("read", (), "allowed"),
    ("openat", (0, 0, os.O_RDONLY | os.O_CLOEXEC), "allowed"),
    ("openat", (0, 0, os.O_WRONLY), "EACCES"),
    ("openat", (0, 0, os.O_RDWR | os.O_CREAT), "EACCES"),
    ("openat", (0, 0, os.O_RDONLY | os.O_TRUNC), "EACCES"),
    ("clone", (0x10000 | 0x100,), "allowed"),
    ("clone", (17,), "EPERM"),
    ("clone3", (), "ENOSYS"),
    ("kill", (77,), "allowed"),
    ("kill", (78,), "EPERM"),
    ("kill", (2**32 - 1,), "EPERM"),
    ("tgkill", (77, 80, 6), "allowed"),
    ("tgkill", (1, 1, 6), "EPERM"),
    ("sched_setaffinity", (1,), "done"),
    ("fcntl", (3, 3), "allowed"),
    ("fcntl", (3, 8), "EPERM"),
    ("ioctl", (0, 0x5401), "allowed"),
    ("ioctl", (0, 0x5412), "EPERM"),
    ("prctl", (15,), "allowed"),
    ("prctl", (4, 1), "EPERM"),
    ("prlimit64", (0, 7, 0, 1), "allowed"),
    ("prlimit64", (0, 7, 1 << 40, 1), "EPERM"),
    ("prlimit64", (0, 7, 1, 1), "EPERM"),
    ("prlimit64", (5, 7, 0, 1), "EPERM"),
    ("unlinkat", (), "EPERM"),
    ("seccomp", (), "EPERM"),
]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize(("name", "arguments", "expected"), CASES)
def test_the_filter_judges_by_call_and_argument(machine, name, arguments, expected):
    number = calls.NUMBERS[name][machine == "aarch64"]
    assert verdict(machine, number, *arguments) == expected


DENIED_CALLS = {  # on x86-64 and on 64-bit ARM
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "mount": (165, 40),
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "openat2": (437, 437),
    "userfaultfd": (323, 282),
    "shmget": (29, 194),
    "setrlimit": (160, 164),
    "pidfd_send_signal": (424, 424),
    "rt_sigqueueinfo": (129, 138),
}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("name", DENIED_CALLS)
@pytest.mark.parametrize("writes", [False, True])
def test_the_filter_lets_no_dangerous_call_through(machine, name, writes):
    assert verdict(machine, DENIED_CALLS[name][machine == "aarch64"], writes=writes) == "EPERM"


def test_where_a_folder_may_be_written_files_may_be_opened_for_it():
    number = calls.NUMBERS["openat"][0]
    assert verdict("x86_64", number, 0, 0, os.O_RDWR | os.O_CREAT, writes=True) == "allowed"


@pytest.mark.parametrize(("machine", "foreign"), [("x86_64", 0x40000003), ("aarch64", 0x40000028)])
def test_a_call_in_32_bit_manner_kills(machine, foreign):
    assert verdict(machine, 1, architecture=foreign) == "killed"


def test_a_call_in_the_x32_manner_is_not_there():
    assert verdict("x86_64", 0x40000000 | 41) == "ENOSYS"


def test_other_processors_have_no_filter_and_say_so():
    with pytest.raises(OSError, match="processor are not known"):
        seccomp.program("riscv64", 1, False)


HEADERS = [
    Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    Path("/usr/include/asm-generic/unistd.h"),
]


@pytest.mark.parametrize("which", [0, 1], ids=["x86_64", "aarch64"])
def test_the_numbers_are_those_of_the_kernels_headers(which):
    if not HEADERS[which].exists():
        pytest.skip("no kernel headers")
    said = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[which].read_text())
    known = {{"fstatat": "newfstatat"}.get(name, name) if which else name: int(number) for name, number in said}
    for name, numbers in calls.NUMBERS.items():
        if numbers[which] is not None:
            assert known[name] == numbers[which], name


def test_the_numbers_are_those_of_other_calls_than_the_dangerous():
    for which in (0, 1):
        ours = [numbers[which] for numbers in calls.NUMBERS.values() if numbers[which] is not None]
        assert len(ours) == len(set(ours))
        assert not set(ours) & {numbers[which] for numbers in DENIED_CALLS.values()}
