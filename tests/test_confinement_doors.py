"""Promises of the doors: what a hostile file may do in the child is nothing, whichever way it tries."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from agnes import confinement
from agnes.confinement import Limits, calls, child, kernel, landlock, limits, parent
from agnes.errors import Refused

LIMITS = Limits(memory=1 << 29, cpu_seconds=10, wall_seconds=20)
DENIED = re.compile("not permitted|denied|not allowed|PermissionError")


def call(name, *arguments, **options):
    return confinement.run(f"confined:{name}", *arguments, **{"limits": LIMITS, **options})


@pytest.fixture
def strong():
    if not confinement.strength().strong:
        pytest.skip(f"isolation is {confinement.strength()}")


def denied(name, *arguments, **options):
    with pytest.raises(Refused) as caught:
        call(name, *arguments, **options)
    assert DENIED.search(str(caught.value)), str(caught.value)


@pytest.mark.usefixtures("strong")
@pytest.mark.parametrize(
    "act",
    [
        "write",
        "make_folder",
        "link",
        "system",
        "run_program",
        "become_program",
        "run_by_vfork",
        "fork",
    ],
)
@pytest.mark.parametrize("reads", [False, True])
def test_no_marker_appears(act, reads, tmp_path):
    denied(act, tmp_path / "marker", allow_read=[tmp_path] if reads else [])
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("strong")
def test_no_marker_appears_by_a_bare_system_call(tmp_path):
    assert call("create_by_system_call", tmp_path / "marker", allow_read=[tmp_path]) in ("EPERM", "EACCES")
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("strong")
@pytest.mark.parametrize("act", ["write", "remove", "rename", "change_mode", "change_time", "empty_by_truncating"])
def test_a_file_that_may_be_read_stays_as_it_is(act, tmp_path):
    path = tmp_path / "model.pt"
    path.write_text("weights")
    before = path.stat()
    denied(act, path, allow_read=[tmp_path])
    assert path.read_text() == "weights"
    assert (path.stat().st_mode, path.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


@pytest.mark.usefixtures("strong")
def test_only_what_was_allowed_is_read(tmp_path):
    for name in ("model", "private"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "model" / "way_out").symlink_to(tmp_path / "private" / "file")
    allowed = {"allow_read": [tmp_path / "model"]}
    assert call("read", tmp_path / "model" / "file", **allowed) == b"model"
    assert call("read", tmp_path / "model" / "file", allow_read=[tmp_path / "model" / "file"]) == b"model"
    for path in (
        tmp_path / "private" / "file",
        tmp_path / "model" / "way_out",
        tmp_path / "model" / ".." / "private" / "file",
        f"/proc/self/root{tmp_path}/private/file",
        "/etc/passwd",
    ):
        denied("read", path, **allowed)
    denied("listed", tmp_path, **allowed)
    assert call("listed", tmp_path / "model", **allowed) == ["file", "way_out"]


@pytest.mark.usefixtures("strong")
def test_a_path_that_is_allowed_as_a_link_leads_to_its_file(tmp_path):
    (tmp_path / "blob").write_text("weights")
    (tmp_path / "model.pt").symlink_to("blob")
    assert call("read", tmp_path / "model.pt", allow_read=[tmp_path / "model.pt"]) == b"weights"


@pytest.mark.usefixtures("strong")
def test_a_thread_of_the_child_is_behind_the_same_doors(tmp_path):
    (tmp_path / "private").write_text("x")
    assert call("new_thread_reads", tmp_path / "private") == "EACCES"


def test_a_folder_that_may_be_written_is_the_only_one(tmp_path):
    (tmp_path / "out").mkdir()
    allowed = {"allow_write": [tmp_path / "out"]}
    assert call("write_and_read", tmp_path / "out" / "file", **allowed) == "marker"
    assert (tmp_path / "out" / "file").read_text() == "marker"
    if confinement.strength().strong:
        denied("write", tmp_path / "file", **allowed)
        denied("link", tmp_path / "out" / "link", **allowed)
        assert not (tmp_path / "file").exists()


def test_a_file_that_is_written_stays_within_its_limit(tmp_path):
    with pytest.raises(Refused, match="File too large"):
        call("write_much", tmp_path / "file", allow_write=[tmp_path], limits=Limits(file_bytes=1 << 20))
    assert (tmp_path / "file").stat().st_size <= 1 << 20


@pytest.mark.usefixtures("strong")
@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_PACKET", "AF_VSOCK"])
@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM", "SOCK_RAW"])
def test_no_socket_is_had(family, kind):
    denied("open_socket", int(getattr(socket, family)), int(getattr(socket, kind)))


@pytest.mark.usefixtures("strong")
@pytest.mark.parametrize(
    "act",
    [
        "kill",
        "kill_everybody",
        "kill_by_owned_pipe",
        "trace",
        "read_memory",
        "limit_another",
        "raise_limits",
        "leave_session",
        "make_io_ring",
        "make_memory_file",
        "pair_of_sockets",
    ],
)
def test_no_other_process_is_touched_and_no_side_door_opened(act):
    denied(act, os.getpid())


@pytest.mark.usefixtures("strong")
def test_a_fork_bomb_forks_nothing():
    assert call("fork_bomb") == 0


def test_threads_work_and_end_somewhere():
    assert call("threads_work") == list(range(8))
    assert call("many_threads", 5000) < 5000


@pytest.mark.usefixtures("strong")
def test_a_system_call_of_the_future_is_not_there():
    assert call("call_unknown", 4000) == "ENOSYS"


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_the_child_has_given_up_its_rights():
    state = call("own_state")
    assert state["NoNewPrivs"] == "1"
    assert int(state["CapEff"], 16) & ~(1 << 2) == 0  # all but reading what other users' files hold, for root
    assert call("own_limits") | {"RLIMIT_NPROC": 0, "RLIMIT_CPU": 0} == {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_NOFILE": 256,
        "RLIMIT_CPU": 0,
        "RLIMIT_NPROC": 0,
    }
    assert call("own_limits")["RLIMIT_CPU"] in (10, 11, 12)


# Kernels that lack a door: this one, with the call for it filtered out before anything else.

OLD_KERNEL = """
    import errno, sys
    from agnes.confinement import kernel, seccomp
    missing = {missing}
    steps = [(0x20, 0, 0, 0)]
    for number, error in missing:
        steps += [(0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | error)]
    kernel.prctl(38, 1)
    seccomp.install([*steps, (0x06, 0, 0, 0x7FFF0000)])
    from agnes import confinement
    from agnes.confinement import Limits
    from agnes.errors import Refused
    def tried(name, *arguments, **options):
        try:
            options = {{"limits": Limits(cpu_seconds=1, wall_seconds=15), **options}}
            return confinement.run("confined:" + name, *arguments, **options)
        except Refused as error:
            return str(error)
    {body}
"""


def on_an_old_kernel(body, landlock=True, seccomp=True):
    if not confinement.strength().strong:
        pytest.skip("the kernel is an old one")
    seccomp_call = calls.NUMBERS["seccomp"][os.uname().machine == "aarch64"]
    missing = [*([] if landlock else [(444, errno.ENOSYS)]), *([] if seccomp else [(seccomp_call, errno.EINVAL)])]
    script = OLD_KERNEL.format(missing=missing, body=textwrap.dedent(body).strip().replace("\n", "\n    "))
    path = os.pathsep.join(entry for entry in sys.path if entry)
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_without_landlock_isolation_is_weak_and_files_are_still_not_written(tmp_path):
    lines = on_an_old_kernel(
        f"""
        print(confinement.strength())
        print(tried("same", 1))
        for act in ("write", "make_folder", "system", "fork", "link"):
            print(tried(act, "{tmp_path}/marker"))
        print(tried("open_socket", 2, 1))
        """,
        landlock=False,
    )
    assert lines[:2] == ["weak (Landlock: Function not implemented; the child may read other files)", "[1]"]
    assert all(DENIED.search(line) for line in lines[2:])
    assert len(lines) == 8
    assert os.listdir(tmp_path) == []


def test_without_seccomp_isolation_is_weak_and_files_are_still_guarded(tmp_path):
    lines = on_an_old_kernel(
        f"""
        print(confinement.strength())
        print(tried("read", "/etc/passwd"))
        for act in ("write", "make_folder", "system", "become_program"):
            print(tried(act, "{tmp_path}/marker"))
        print(tried("endless"))
        """,
        seccomp=False,
    )
    assert re.fullmatch(r"weak \(seccomp: Invalid argument; the child may use the network.* and fork\)", lines[0])
    assert all(DENIED.search(line) for line in lines[1:6])
    assert "1 s of processor time" in lines[6]
    assert os.listdir(tmp_path) == []


def test_without_either_only_limits_hold_and_it_is_said(tmp_path):
    lines = on_an_old_kernel(
        f"""
        print(confinement.strength())
        print(tried("write", "{tmp_path}/marker"))
        print(tried("endless"))
        print(tried("take_memory", 2, limits=Limits(memory=1 << 29)))
        print(tried("crash"))
        """,
        landlock=False,
        seccomp=False,
    )
    assert lines[0].startswith("weak (Landlock: ")
    assert lines[0].endswith("only limits on time, memory and sizes hold the child)")
    assert "File too large" in lines[1]
    assert "processor time" in lines[2]
    assert "0.5 GiB of memory" in lines[3]
    assert "SIGSEGV" in lines[4]


def test_a_process_that_gets_away_does_not_hold_the_parent():
    lines = on_an_old_kernel(
        """
        import time
        started = time.monotonic()
        print(tried("fork_and_leave", None))
        print(time.monotonic() - started < 8)
        """,
        seccomp=False,
    )
    assert lines == ["left", "True"]


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6, 7, 9])
def test_every_version_of_landlock_is_asked_for_what_it_knows(version, monkeypatch):
    asked = []

    def syscall(number, *arguments):
        if number == 444 and arguments[0] is None:
            return version
        if number == 444:
            asked.append(list(arguments[0]))
            return os.open(os.devnull, os.O_RDONLY)
        return 0

    monkeypatch.setattr(landlock.kernel, "syscall", syscall)
    assert landlock.close([], []) == version
    rights = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    more = 0 if version < 4 else 1 if version < 6 else 2
    assert asked == [[(1 << rights) - 1, *[0b11] * more]]


def test_other_systems_close_no_door_and_say_so(monkeypatch):
    monkeypatch.setattr(kernel, "LINUX", False)
    kernel.give_up_rights(1, False)
    assert child._closed(lambda: 1 // 0) == (0, f"not on {sys.platform}")


def test_a_system_without_limits_keeps_its_own(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    limits.never_dump()
    limits.hold(Limits(), False, 3)


def test_the_path_for_imports_always_holds_this_agnes(monkeypatch):
    monkeypatch.setattr(sys, "path", ["", "relative"])
    root = str(Path(confinement.__file__).resolve().parents[2])
    assert parent._import_path([Path(root)]) == [root]
