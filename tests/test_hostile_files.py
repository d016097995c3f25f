"""The worst of the hostile files through the real command: one plain line, soon, in little memory, no marker."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import fakes
import pytest

from agnes import cli

PLUGINS = Path(__file__).resolve().parents[1] / "plugins"
for name in ("agnes-onnx", "agnes-pytorch"):
    pytest.importorskip(name.replace("-", "_"))
    sys.path.append(str(PLUGINS / name / "tests"))

import hostile  # noqa: E402
import hostile_files  # noqa: E402
import hostile_headers  # noqa: E402
import onnx_hostile  # noqa: E402

SECONDS, BYTES = 60, 3 << 30  # for the command and, each by itself, the children that it starts
FORMATS = {"onnx": onnx_hostile.HOSTILE, "pytorch": hostile_files.FILES, "safetensors": hostile_headers.HOSTILE}
EVERY = [(form, case) for form, cases in FORMATS.items() for case in cases]
WORST = [
    ("onnx", "a giant expansion"),
    ("onnx", "much work from little data"),
    ("onnx", "graphs within graphs"),
    ("onnx", "a pipe"),
    ("onnx", "escape codes in a name"),
    ("pytorch", "a view of 64 GiB"),
    ("pytorch", "lists within lists"),
    ("pytorch", "a zip bomb"),
    ("pytorch", "data.pkl twice"),
    ("pytorch", "os.system among weights"),
    ("pytorch", "a name with escape codes"),
    ("safetensors", "nested without end"),
]


@pytest.fixture
def folder(tmp_path):
    """A folder with what hostile files point at, in which no marker may be left."""
    inside = tmp_path / "model"
    inside.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(432))
    for file, size in (("data.bin", 432), ("short.bin", 431)):
        (inside / file).write_bytes(bytes(size))
    (inside / "folder").mkdir()
    (inside / "link.bin").symlink_to(tmp_path / "secret.bin")
    (inside / "linked").symlink_to(tmp_path)
    os.mkfifo(inside / "pipe")
    yield inside
    assert not list(tmp_path.rglob(f"*{hostile.MARKER}*"))


def made(form, case, folder):
    """The hostile file."""
    if form == "pytorch":
        return FORMATS[form][case][0](folder)
    content = FORMATS[form][case][0]
    path = folder / f"m.{form}"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def command(*arguments, folder):
    """Run the command; its code, what it wrote, and the most memory that it or one of its children took."""
    with (folder / "out").open("w+b") as out, (folder / "err").open("w+b") as err:
        process = subprocess.Popen([sys.executable, "-m", "agnes", *map(str, arguments)], stdout=out, stderr=err)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        for file in (out, err):
            file.seek(0)
        return process.returncode, out.read().decode(), err.read().decode(), used.ru_maxrss << 10


def test_there_are_over_a_hundred_and_fifty_of_them():
    assert len(EVERY) >= 150
    assert min(Counter(form for form, _ in EVERY).values()) >= 25


@pytest.mark.parametrize(("form", "case"), WORST, ids=lambda value: value.replace(" ", "-"))
def test_the_command_refuses_a_hostile_file_in_one_plain_line(form, case, folder):
    path, begun = made(form, case, folder), time.monotonic()
    images = fakes.images_file(folder)
    verb = ("run", path, "--data", images, "-o", folder / "run") if form == "safetensors" else ("inspect", path)
    code, out, err, memory = command(*verb, folder=folder)
    assert time.monotonic() - begun < SECONDS
    assert memory < BYTES
    assert (code, out) == (3, "")
    assert err.startswith("agnes: refused: ")
    assert err.endswith("\n")
    assert err[:-1].isprintable()
    assert "Traceback" not in err
    assert not (folder / "run").exists()


def test_json_is_not_begun_where_a_file_is_refused(folder, capsys):
    assert cli.invoke(["inspect", str(made("onnx", "a cycle", folder)), "--json"]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("agnes: refused: ")


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_the_command_refuses_every_one_of_them(form, folder, capsys):
    for case in FORMATS[form]:
        begun = time.monotonic()
        code = cli.invoke(["inspect", str(made(form, case, folder))])
        said = capsys.readouterr()
        assert (code, said.out) == (3, ""), (case, said)
        assert said.err.startswith("agnes: refused: "), (case, said)
        assert said.err[:-1].isprintable(), case
        assert time.monotonic() - begun < SECONDS, case


@pytest.mark.slow
def test_a_trusted_file_that_hoards_memory_ends_at_its_limit(folder):
    hoard = hostile.Runs(eval, "[b'x' * (1 << 28) for _ in range(100)]")
    path, begun = hostile.saved(hoard, folder / "m.pt"), time.monotonic()
    trust = ("--trust-model-code", "--input-shape", "3,8,8")
    code, out, err, memory = command("inspect", path, *trust, folder=folder)
    assert (code, out) == (3, "")
    assert "m.pt took more than 4 GiB of memory; ask for another export, or raise memory" in err
    assert memory < 6 << 30
    assert time.monotonic() - begun < SECONDS
