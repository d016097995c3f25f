"""The parent's side: start the child, bound it, and believe nothing that it says."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from agnes.confinement import wire
from agnes.confinement.limits import GIB, Limits
from agnes.confinement.strength import Strength
from agnes.errors import AgnesError, NothingApplicable, Refused
from agnes.text import printable

Name = str | os.PathLike[str]

_ROOT = Path(__file__).resolve().parents[2]  # the folder that holds this very agnes
_START = "import sys; sys.path.insert(0, sys.argv[1]); from agnes.confinement.child import main; main()"
_KEPT = (  # of the environment: where libraries are, how many threads, and what Windows cannot do without
    *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", *(["PATH"] if os.name == "nt" else [])),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
)
_SET = {
    "HOME": os.sep + "nonexistent",
    "USER": "agnes",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "CUDA_VISIBLE_DEVICES": "",
    "MALLOC_ARENA_MAX": "2",  # each arena reserves 64 MB of address space
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
_ERRORS = {"Refused": Refused, "NothingApplicable": NothingApplicable}  # what a child may raise; the rest is refused
_SHOWN = 500  # characters of a child's message
_GRACE = 1.0  # seconds that a child which said nothing more has to end by itself


def run(
    function: str,  # "module:qualname"
    *arguments: Any,
    limits: Limits | None = None,
    allow_read: Iterable[Name] = (),
    allow_write: Iterable[Name] = (),
    prepare: Iterable[str] = (),  # modules to import before the doors close
    environment: Mapping[str, str] | None = None,
    what: str = "the model",  # what a refusal is about: the file's name
) -> Any:
    """The result of a function, called in a child process that can do nothing else. Plain data in, plain data out."""
    child = _Child(limits or Limits(), printable(what), environment or {})
    reads, writes = _paths(allow_read), _paths(allow_write)
    request = {
        "function": function,
        "arguments": list(arguments),
        "limits": child.limits.as_json(),
        "reads": reads,
        "writes": writes,
        "prepare": list(prepare),
        "path": _import_path([*reads, *writes]),
        "parent": os.getpid(),
    }
    return child.converse(request)[1]


@functools.cache
def strength() -> Strength:
    """How well a child is shut in here: a child is started, and says which doors closed."""
    child = _Child(Limits(), "the check of the isolation", {})
    request = {"function": "builtins:dict", "arguments": [], "limits": child.limits.as_json()}
    request |= {"reads": [], "writes": [], "prepare": [], "path": _import_path([]), "parent": os.getpid()}
    return child.converse(request, only_ready=True)[0]


def _paths(given: Iterable[Name]) -> list[Path]:
    if isinstance(given, str | os.PathLike):
        raise TypeError("allow_read and allow_write take several paths, not one")
    return [Path(os.path.realpath(path)) for path in given]


def _import_path(models: list[Path]) -> list[str]:
    """Where the child imports from: as this process, but never from a model's folder or the current one."""
    barred = {os.path.realpath(os.curdir), *(str(path if path.is_dir() else path.parent) for path in models)}
    entries = [entry for entry in sys.path if os.path.isabs(entry) and not _within(entry, barred)]
    return entries if str(_ROOT) in entries else [str(_ROOT), *entries]


def _within(entry: str, folders: set[str]) -> bool:
    return os.path.realpath(entry) in folders


class _Child:
    """One child process: its pipes, its threads that read them, its end."""

    def __init__(self, limits: Limits, what: str, environment: Mapping[str, str]) -> None:
        self.limits = limits
        self._what = what
        self._environment = {key: os.environ[key] for key in _KEPT if key in os.environ} | _SET | dict(environment)
        self._messages: list[Any] = []
        self._garbage: str | None = None
        self._ready, self._over, self._heard = threading.Event(), threading.Event(), threading.Event()
        self._said = bytearray()

    def converse(self, request: Mapping[str, Any], only_ready: bool = False) -> tuple[Strength, Any]:
        """Start the child, hand it the request, take its two messages; it has ended when this returns or raises."""
        pieces = wire.message(request)
        process = self._started()
        assert process.stdin
        assert process.stdout
        assert process.stderr
        threads = [
            threading.Thread(target=self._talk, args=(process.stdin, process.stdout, pieces), daemon=True),
            threading.Thread(target=self._listen, args=(process.stderr,), daemon=True),
        ]
        try:
            for thread in threads:
                thread.start()
            strength = self._strength(process)
            return strength, None if only_ready else self._result(process)
        finally:
            _end(process)
            for thread in threads:
                thread.join(_GRACE)
            if not any(thread.is_alive() for thread in threads):  # else a process that got away holds the pipes
                for pipe in (process.stdin, process.stdout, process.stderr):
                    _shut(pipe)

    def _started(self) -> subprocess.Popen[bytes]:
        if not sys.executable:
            raise AgnesError("this Python does not know its own program (sys.executable), so no child can be started")
        try:
            return subprocess.Popen(
                [sys.executable, "-I", "-B", "-X", "utf8", "-c", _START, str(_ROOT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment,
                cwd=os.sep,
                start_new_session=True,
            )
        except OSError as error:
            raise AgnesError(f"no child process can be started with {sys.executable}: {error.strerror}") from error

    def _talk(self, to: IO[bytes], source: IO[bytes], pieces: Iterable[Any]) -> None:
        try:
            wire.send(to, pieces)
            to.close()
            for most in (0, self.limits.answer_bytes):
                self._messages.append(wire.receive(source, most))
                self._ready.set()
        except wire.Garbage as error:
            self._garbage = str(error)
        except (OSError, ValueError):  # the pipe broke: the end of the process says why
            pass
        finally:
            self._ready.set()
            self._over.set()

    def _listen(self, pipe: IO[bytes]) -> None:
        """Keep the end of what the child prints, and read on so that it never blocks."""
        try:
            while said := os.read(pipe.fileno(), 1 << 16):
                self._said += said
                del self._said[: -self.limits.said_bytes]
        finally:
            self._heard.set()

    def _strength(self, process: subprocess.Popen[bytes]) -> Strength:
        if not self._ready.wait(self.limits.start_seconds):
            raise AgnesError(
                f"the child process took more than {self.limits.start_seconds:g} s to import its libraries;"
                " raise start_seconds of its limits"
            )
        if self._messages:
            first = self._messages[0]
            if "unready" not in first:
                return Strength.of(first)
            raise AgnesError(f"the child process could not begin: {printable(first['unready'], _SHOWN)}")
        self._ended(process)
        raise AgnesError(f"the child process ended before it began (code {process.returncode}){self._last_words()}")

    def _result(self, process: subprocess.Popen[bytes]) -> Any:
        """What the child hands back, or the refusal that its end amounts to."""
        if not self._over.wait(self.limits.wall_seconds):
            did = f"took more than {self.limits.wall_seconds:g} s"
            raise self._refusal(did, "raise wall_seconds of the loader's limits")
        match self._messages[1:]:
            case [{"result": result}]:
                return result
            case [{"failed": str(text), "kind": str(kind)}]:
                raise self._failure(text, kind)
        raise self._broken_off(process)

    def _failure(self, text: str, kind: str) -> AgnesError:
        """The work failed, and the child could say so."""
        if kind == "memory":
            return self._too_large()
        if kind in _ERRORS:
            return _ERRORS[kind](printable(text, _SHOWN))
        return Refused(f"refused: {self._what} cannot be opened: {printable(text, _SHOWN)}")

    def _broken_off(self, process: subprocess.Popen[bytes]) -> Refused:
        """No answer came: what ended the child."""
        end = _named(process.returncode) if self._ended(process) else ""
        if end == "SIGXCPU":
            did = f"took more than {self.limits.cpu_seconds} s of processor time"
            return self._refusal(did, "raise cpu_seconds of the loader's limits")
        if end == "SIGKILL":
            did = "took more memory or processor time than the system gives"
            return self._refusal(did, "raise memory and cpu_seconds of the loader's limits")
        if end and b"bad_alloc" in self._said:
            return self._too_large()
        if end and end != "code 0":
            return self._refusal(
                f"crashed the child process that opened it ({end}{self._last_words()})", "do without it"
            )
        garbage = printable(self._garbage or "nothing came")
        return self._refusal(f"made the child process answer with garbage ({garbage})", "do without it")

    def _ended(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether the child ended by itself; what it said last has been heard by then."""
        ended = _ended(process)
        self._heard.wait(_GRACE)
        return ended

    def _too_large(self) -> Refused:
        did = f"took more than {self.limits.memory / GIB:.3g} GiB of memory"
        return self._refusal(did, "raise memory of the loader's limits")

    def _refusal(self, what_it_did: str, remedy: str) -> Refused:
        return Refused(f"refused: {self._what} {what_it_did}; ask for another export, or {remedy}")

    def _last_words(self) -> str:
        lines = [line for line in self._said.decode("utf-8", "replace").splitlines() if line.strip()]
        return f": {printable(lines[-1])}" if lines else ""


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the child ended by itself within its grace; it has ended in any case."""
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        _end(process)
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the child with all of its session, and leave no zombie."""
    if process.returncode is None:
        try:
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        except OSError:
            process.kill()
    process.wait()


def _shut(pipe: IO[bytes] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except OSError:  # what was still to be written to it has no reader
        pass


def _named(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"code {code}"
