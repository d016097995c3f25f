"""What a child is told to do in the tests of the confinement: harmless work, and the work of hostile files."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from agnes.errors import NothingApplicable, Refused, UsageError

CALLS = ctypes.CDLL(None, use_errno=True)


def same(*values):
    return list(values)


def doubled(array):
    return array * 2


def read(path):
    return Path(path).read_bytes()


def listed(path):
    return sorted(os.listdir(path))


def write(path):
    Path(path).write_text("marker")


def make_folder(path):
    Path(path).mkdir()


def write_and_read(path):
    Path(path).write_text("marker")
    return Path(path).read_text()


def write_much(path):
    Path(path).write_bytes(b"x" * (2 << 20))


def create_by_system_call(path):
    """creat, which Python never uses."""
    handle = CALLS.creat(str(path).encode(), 0o600)
    return handle if handle >= 0 else errno.errorcode[ctypes.get_errno()]


def remove(path):
    Path(path).unlink()


def rename(path):
    Path(path).rename(str(path) + ".moved")


def link(path):
    os.symlink("/etc/passwd", path)


def change_mode(path):
    os.chmod(path, 0)


def change_time(path):
    os.utime(path, (1, 1))


def empty_by_truncating(path):
    os.truncate(path, 0)


def open_socket(family, kind):
    socket.socket(family, kind).close()


def pair_of_sockets(_):
    socket.socketpair()


def system(path):
    status = os.system(f"echo marker > '{path}'")
    if status:
        raise PermissionError(status)


def run_program(path):
    subprocess.run(["/bin/sh", "-c", f"echo marker > '{path}'"], check=True)


def become_program(path):
    os.execv("/bin/sh", ["/bin/sh", "-c", f"echo marker > '{path}'"])


def run_by_vfork(path):
    os.posix_spawn("/bin/sh", ["/bin/sh", "-c", f"echo marker > '{path}'"], {})


def fork(path):
    if os.fork() == 0:
        os._exit(0)


def fork_bomb():
    count = 0
    while count < 3000:
        try:
            if os.fork() == 0:
                time.sleep(30)
                os._exit(0)
        except OSError:
            break
        count += 1
    return count


def many_threads(count):
    """Starts threads until no more can be had, or there are this many."""
    over = threading.Event()
    started = 0
    try:
        while started < count:
            threading.Thread(target=over.wait, daemon=True).start()
            started += 1
    except RuntimeError:
        pass
    return started


def threads_work():
    found = []
    threads = [threading.Thread(target=found.append, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(found)


def new_thread_reads(path):
    """A thread that was started after the doors closed is behind them as well."""
    found = []

    def look():
        try:
            found.append(Path(path).read_text())
        except OSError as error:
            found.append(errno.errorcode[error.errno or 0])

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found[0]


def fork_and_leave(path):
    """Where forking is possible: a process that leaves the session and holds the pipes."""
    if os.fork() == 0:
        os.setsid()
        time.sleep(9)
        os._exit(0)
    return "left"


def kill(process):
    os.kill(process, signal.SIGKILL)


def kill_everybody(_):
    os.kill(-1, signal.SIGKILL)


def kill_by_owned_pipe(process):
    """A pipe's owner is sent any signal one likes when there is something to read."""
    source, to = os.pipe()
    fcntl.fcntl(source, fcntl.F_SETOWN, process)
    fcntl.fcntl(source, 10, signal.SIGKILL)  # F_SETSIG
    fcntl.fcntl(source, fcntl.F_SETFL, os.O_ASYNC)
    os.write(to, b"x")


def trace(process):
    if CALLS.ptrace(16, process, 0, 0) < 0:  # PTRACE_ATTACH
        raise OSError(ctypes.get_errno(), "ptrace")


def read_memory(process):
    Path(f"/proc/{process}/mem").open("rb").close()


def limit_another(process):
    resource.prlimit(process, resource.RLIMIT_NOFILE, (3, 3))


def raise_limits(_):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))


def leave_session(_):
    os.setsid()


def make_io_ring(_):
    if CALLS.syscall(425, 8, ctypes.create_string_buffer(512)) < 0:  # io_uring_setup
        raise OSError(ctypes.get_errno(), "io_uring")


def make_memory_file(_):
    os.memfd_create("x")


def call_unknown(number):
    CALLS.syscall(number, 0, 0, 0)
    return errno.errorcode[ctypes.get_errno()]


def own_limits():
    kinds = ("RLIMIT_CORE", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CPU", "RLIMIT_NPROC")
    return {kind: resource.getrlimit(getattr(resource, kind))[0] for kind in kinds}


def own_state():
    status = Path("/proc/self/status").read_text()
    return dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)


def process_number(path=None):
    return os.getpid()


def environment():
    return dict(os.environ)


def opened():
    return sorted(int(name) for name in os.listdir("/proc/self/fd"))


def take_memory(gib):
    held = []
    for _ in range(int(gib * 16)):
        held.append(bytearray(b"x") * (1 << 26))
    return len(held)


def take_memory_by_numpy():
    import numpy as np

    return float(np.ones(1 << 36).sum())


def take_shared_memory():
    import mmap

    held = [mmap.mmap(-1, 1 << 26) for _ in range(400)]
    return len(held)


def endless():
    while True:
        pass


def endless_threads():
    for _ in range(2):
        threading.Thread(target=endless, daemon=True).start()
    endless()


def sleep_and_tell(path):
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


def crash():
    ctypes.string_at(0)


def abort_with_words():
    os.write(2, b"\x1b[31mdouble free\x1b[0m\n")
    os.abort()


def leave(code):
    os._exit(code)


def leave_politely():
    sys.exit("bye")


def print_much():
    for _ in range(2000):
        sys.stdout.write("x" * 10_000 + "\n")
        sys.stderr.write("\x1b[2J" * 1000)
    return "done"


def print_forever():
    while True:
        os.write(1, b"y" * 65536)


def fail(kind, text):
    raise {
        "Refused": Refused,
        "NothingApplicable": NothingApplicable,
        "UsageError": UsageError,
        "ValueError": ValueError,
        "MemoryError": MemoryError,
        "RuntimeError": RuntimeError,
    }[kind](text)


def an_object():
    return {"layers": [object()]}


def answer_pipe():
    """The one pipe for writing beside standard error: what a hostile child would find at once."""
    said = os.fstat(2).st_ino
    for handle in range(3, 64):
        try:
            state = os.fstat(handle)
            if state.st_mode & 0o170000 == 0o010000 and state.st_ino != said:
                return handle
        except OSError:
            continue
    raise AssertionError("no pipe")


def say(message, code=0):
    """Write this instead of an answer, and go."""
    os.write(answer_pipe(), message)
    os._exit(code)


def say_and_stay(message):
    os.write(answer_pipe(), message)
    os.close(answer_pipe())
    time.sleep(60)


def say_forever(head):
    pipe = answer_pipe()
    os.write(pipe, head)
    while True:
        os.write(pipe, bytes(1 << 16))


def infer_with_onnxruntime(model, x):
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def infer_with_torch(weight, x):
    import torch

    layer = torch.nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], bias=False)
    layer.weight.data = torch.from_numpy(weight)
    with torch.inference_mode():
        return layer(torch.from_numpy(x)).relu().numpy()


def load_pickled_module(path):
    import torch

    module = torch.load(path, weights_only=False)
    return {key: value.numpy() for key, value in module.state_dict().items()}
