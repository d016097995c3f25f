"""A scan that cannot reach the truth: its own process, a copy of the model, benign images, and no other files.

Where the kernel has Landlock, the process can read the system, Python and its folder, and nothing of the zoo.
Elsewhere it runs in a folder apart from the zoo, of which neither its arguments nor its environment say a word.
"""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agnes.confinement import kernel, landlock

_SYSTEM = (
    "/bin",
    "/etc",
    "/gnu/store",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/opt",
    "/proc",
    "/sbin",
    "/sys",
    "/usr",
)
_NO_NEW_PRIVS = 38
_POLL = 0.5  # seconds between two looks at whether to stop
_SAID = 4000  # characters kept of what a scan prints
_PYTHON = (sys.executable, "-P", "-B", "-X", "utf8", "-c")
_START = "from agnes_zoo.bench.sealed import main; main()"
_PLACES = "import json, sys; print(json.dumps(sys.path))"
MODEL, SAMPLES, OUTPUT = "model.onnx", "samples", "run"  # as a scan sees them, whatever they are


@dataclass(frozen=True)
class Sealed:
    """How a scan ended."""

    code: int
    said: str  # the end of its standard error
    guarded: bool  # whether the kernel kept it from all other files


def scan(
    model: Path,
    samples: Path,
    arguments: Sequence[str],  # further ones of `agnes run`
    output: Path,  # where the run folder goes
    hidden: Iterable[Path],  # what must be out of reach
    threads: int | None = None,
    over: threading.Event | None = None,  # set: the scan is ended, and KeyboardInterrupt raised
) -> Sealed:
    """Run `agnes run` on copies, and fetch its run folder."""
    shutil.rmtree(output, ignore_errors=True)
    hidden = list(hidden)
    barred = [path.resolve() for path in hidden]
    named = [*barred, *(path.absolute() for path in hidden)]
    with tempfile.TemporaryDirectory(prefix="agnes-") as name:
        place = Path(name).resolve()
        work = place / "scan"
        for folder in (work, place / "home", place / "tmp"):
            folder.mkdir()
        shutil.copyfile(model, work / MODEL)
        shutil.copytree(samples, work / SAMPLES, copy_function=shutil.copyfile)
        command = ["run", MODEL, "--data", SAMPLES, "-o", OUTPUT, "--quiet", *arguments]
        environment = _environment(place, named, threads)
        allowed = rules(place, barred, searched(work, environment))
        request = {"command": command, "rules": [[str(path), rights] for path, rights in allowed]}
        ended = _run(request, work, environment, over or threading.Event())
        if (work / OUTPUT).is_dir():
            output.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(work / OUTPUT, output)
    said = ended.stderr.decode(errors="replace")[-_SAID:]
    return Sealed(ended.returncode, said, landlock_version() > 0)


def _run(
    request: dict, work: Path, environment: dict[str, str], over: threading.Event
) -> subprocess.CompletedProcess[bytes]:
    process = subprocess.Popen(
        [*_PYTHON, _START],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=work,
        env=environment,
        start_new_session=True,  # a Ctrl-C is ours to pass on
    )
    try:
        said = _awaited(process, json.dumps(request).encode(), over)
    finally:
        process.kill()
        process.wait()
    return subprocess.CompletedProcess([], process.returncode, b"", said)


def _awaited(process: subprocess.Popen[bytes], request: bytes, over: threading.Event) -> bytes:
    """What the process said on standard error, once it has ended."""
    given: bytes | None = request
    while not over.is_set():
        try:
            return process.communicate(given, timeout=_POLL)[1]
        except subprocess.TimeoutExpired:
            given = None  # it has been handed over
    raise KeyboardInterrupt


def landlock_version() -> int:
    """The kernel's version of Landlock, 0 where there is none."""
    try:
        return landlock.version() if kernel.LINUX else 0
    except OSError:
        return 0


def _environment(place: Path, named: Sequence[Path], threads: int | None) -> dict[str, str]:
    """This process's environment without a word about the zoo; home and temporary files are the scan's own."""
    kept = {name: value for name, value in os.environ.items() if not any(str(path) in value for path in named)}
    for name in ("OLDPWD", "_", "PYTEST_CURRENT_TEST"):
        kept.pop(name, None)
    user = {"PYTHONUSERBASE": site.getuserbase()} if site.ENABLE_USER_SITE else {}
    own = {"PWD": str(place / "scan"), "HOME": str(place / "home"), "TMPDIR": str(place / "tmp")}
    counted = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    return kept | user | own | counted


def searched(work: Path, environment: dict[str, str]) -> list[str]:
    """Where a scan's Python looks for modules: not in the folder from which this one was started."""
    said = subprocess.run([*_PYTHON, _PLACES], cwd=work, env=environment, capture_output=True, check=True)
    return json.loads(said.stdout)


def rules(place: Path, barred: Sequence[Path], modules: Sequence[str]) -> list[tuple[Path, int]]:
    """What a scan may do with which files; nothing in `barred` can be read."""
    python = (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *modules)
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    readable = {Path(each).resolve() for each in (*_SYSTEM, *python, *libraries) if os.path.isabs(each)}
    readable.discard(Path("/"))
    found = [rule for path in sorted(readable) for rule in _around(path, landlock.RUN, barred)]
    found += _around(Path("/dev"), landlock.ALL, barred)
    return [*found, (place, landlock.ALL)]


def _around(path: Path, rights: int, barred: Sequence[Path], depth: int = 20) -> Iterator[tuple[Path, int]]:
    """The path, or all in it that leads to nothing barred; of what leads there, names may be seen."""
    try:
        path = path.resolve()
    except (OSError, RuntimeError):
        return
    if any(path.is_relative_to(each) for each in barred) or not depth:
        return
    if not any(each.is_relative_to(path) for each in barred):
        yield path, rights
        return
    yield path, landlock.LIST  # importing from a folder means listing it
    for inside in sorted(path.iterdir()):
        if not (inside.is_symlink() and inside.is_dir()):
            yield from _around(inside, rights, barred, depth - 1)


def main() -> None:
    """In the scan's process: shut all else out, then be `agnes`."""
    request = json.load(sys.stdin)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if landlock_version():
        kernel.prctl(_NO_NEW_PRIVS, 1)
        landlock.close((), (), [(Path(path), rights) for path, rights in request["rules"]])
    command = request["command"]
    del request
    from agnes import cli

    sys.argv = ["agnes", *command]
    cli.main()
