"""Promises of the child process: results come back, and whatever else happens in it comes back as one line."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agnes import confinement, health
from agnes.confinement import Limits, Strength, wire
from agnes.errors import AgnesError, NothingApplicable, Refused

SMALL = Limits(memory=1 << 29, cpu_seconds=1, wall_seconds=20)


def call(name, *arguments, **options):
    return confinement.run(f"confined:{name}", *arguments, **{"limits": SMALL, "what": "model.pt", **options})


def refusal(name, *arguments, **options):
    with pytest.raises(Refused) as caught:
        call(name, *arguments, **options)
    said = str(caught.value)
    assert not [c for c in said if unicodedata.category(c) == "Cc"]
    assert len(said) < 700
    return said


def gone(process):
    """Whether a process has ended and nobody has yet to ask for its end."""
    for _ in range(100):
        if not Path(f"/proc/{process}").exists():
            return True
        time.sleep(0.05)
    return False


def children():
    return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()


def test_arguments_go_in_and_results_come_out_the_same():
    values = (1, 2.5, "é\x1b", None, True, b"\0x", Path("/a"), [1, [2]], {"a": (3,), 4: "b"})
    assert call("same", *values) == list(values)


def test_arrays_go_in_and_come_out():
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    back = call("doubled", array)
    np.testing.assert_array_equal(back, array * 2)
    assert back.dtype == (array * 2).dtype


def test_the_same_call_gives_the_same_answer():
    array = np.linspace(0, 1, 1000)
    assert call("doubled", array).tobytes() == call("doubled", array).tobytes()


def test_a_method_of_a_class_can_be_called():
    assert confinement.run("collections:OrderedDict.fromkeys", ["a"], 1) == {"a": 1}


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("confined:nothing", "has no attribute 'nothing'"),
        ("no_such_module:f", "No module named 'no_such_module'"),
        ("confined:CALLS.no_such_call", "no_such_call"),
        ("confined:__name__", "is no function"),
    ],
)
def test_an_unknown_function_is_our_mistake_and_no_refusal(function, said):
    with pytest.raises(AgnesError, match=said) as caught:
        confinement.run(function)
    assert not isinstance(caught.value, Refused)


def test_a_library_that_is_missing_is_named():
    with pytest.raises(AgnesError, match="could not begin: ModuleNotFoundError: No module named 'no_such_library'"):
        call("same", prepare=["no_such_library"])


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([None])])
def test_only_plain_arguments_are_handed_over(value):
    with pytest.raises(TypeError):
        call("same", value)


def test_one_path_for_several_is_a_mistake(tmp_path):
    with pytest.raises(TypeError, match="several paths"):
        call("same", allow_read=str(tmp_path))


def test_objects_do_not_come_back():
    assert "only plain data passes between parent and child, not object" in refusal("an_object")


def test_a_refusal_in_the_child_is_a_refusal_here():
    assert refusal("fail", "Refused", "refused: m.pt imports os") == "refused: m.pt imports os"


def test_what_does_not_apply_in_the_child_does_not_apply_here():
    with pytest.raises(NothingApplicable, match="not mine"):
        call("fail", "NothingApplicable", "not mine")


@pytest.mark.parametrize("kind", ["ValueError", "UsageError"])
def test_any_other_failure_is_a_refusal_that_names_the_file(kind):
    said = refusal("fail", kind, "byte 3 is wrong")
    assert said.startswith("refused: model.pt cannot be opened: ")
    assert "byte 3 is wrong" in said


@pytest.mark.parametrize("kind", ["Refused", "ValueError"])
def test_a_message_of_the_child_steers_no_terminal_and_stays_short(kind):
    assert "[31mred" in refusal("fail", kind, "\x1b[31mred\u202e\n" + "x" * 100_000)


def test_a_file_name_steers_no_terminal():
    assert "a[2Jb" in refusal("leave", 3, what="a\x1b[2Jb")


@pytest.mark.parametrize("how", ["take_memory_by_numpy", "take_shared_memory"])
def test_too_much_memory_is_a_refusal(how):
    assert refusal(how).startswith(
        "refused: model.pt took more than 0.5 GiB of memory; ask for another export, or raise"
    )


def test_memory_that_is_taken_bit_by_bit_is_a_refusal_too():
    patient = replace(SMALL, cpu_seconds=10)  # on a busy machine many small pieces take more than a second
    assert "0.5 GiB of memory" in refusal("take_memory", 2, limits=patient)


@pytest.mark.parametrize("said", ["std::bad_alloc", "[enforce fail] DefaultCPUAllocator: can't allocate memory"])
def test_a_library_out_of_memory_is_told_as_such(said):
    assert "0.5 GiB of memory" in refusal("fail", "RuntimeError", said)


def test_memory_within_the_limit_is_had():
    assert call("take_memory", 0.25) == 4


@pytest.mark.parametrize("how", ["endless", "endless_threads"])
def test_too_much_processor_time_is_a_refusal(how):
    started = time.perf_counter()
    assert refusal(how).startswith("refused: model.pt took more than 1 s of processor time; ")
    assert time.perf_counter() - started < 15


def test_too_much_time_is_a_refusal_and_the_child_is_gone(tmp_path):
    note = tmp_path / "note"
    said = refusal("sleep_and_tell", note, allow_write=[tmp_path], limits=Limits(wall_seconds=1.5))
    assert said.startswith("refused: model.pt took more than 1.5 s; ask for another export, or raise wall_seconds")
    assert gone(int(note.read_text()))


def test_a_python_that_cannot_be_started_is_said(monkeypatch):
    for program, said in ((None, "does not know its own program"), ("/no/such/python", "No such file")):
        monkeypatch.setattr(sys, "executable", program)
        with pytest.raises(AgnesError, match=said):
            call("same")


def test_a_child_that_ends_before_it_begins_is_no_fault_of_the_file(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(AgnesError, match=r"ended before it began \(code 1\)") as caught:
        call("same")
    assert not isinstance(caught.value, Refused)


def test_libraries_that_take_too_long_to_import_are_no_fault_of_the_file():
    with pytest.raises(AgnesError, match=r"more than 0\.01 s to import its libraries") as caught:
        call("same", limits=Limits(start_seconds=0.01))
    assert not isinstance(caught.value, Refused)


def test_a_crash_is_a_refusal():
    assert "crashed the child process that opened it (SIGSEGV)" in refusal("crash")


def test_last_words_are_told_without_their_escape_codes():
    assert "(SIGABRT: [31mdouble free[0m)" in refusal("abort_with_words")


@pytest.mark.parametrize(("code", "said"), [(0, "answer with garbage"), (3, "crashed the child process")])
def test_leaving_without_an_answer_is_a_refusal(code, said):
    assert said in refusal("leave", code)


def test_leaving_politely_is_a_refusal():
    assert "SystemExit: bye" in refusal("leave_politely")


def test_what_the_child_prints_reaches_nobody(capfd):
    assert call("print_much") == "done"
    assert capfd.readouterr() == ("", "")


def test_printing_forever_fills_nothing():
    assert "took more than" in refusal("print_forever", limits=Limits(cpu_seconds=60, wall_seconds=1))


HEAD = wire.MAGIC + (20).to_bytes(8, "little")


@pytest.mark.parametrize(
    "raw",
    [
        b"no message\n",
        HEAD,
        HEAD + b'["bytes", -000000001',
        HEAD + b'["bytes",9999999999]',
        HEAD + b'["array","|O",[1]]  ',
        HEAD + b'["list", 1, 2, 3]   ',
        HEAD + b'"result"            ',
    ],
)
def test_a_forged_answer_is_a_refusal(raw):
    assert "answer with garbage" in refusal("say", raw)


def test_a_forged_answer_is_plain_data_at_most():
    header = b'["dict",["result"],"forged"]'
    assert call("say", wire.MAGIC + len(header).to_bytes(8, "little") + header) == "forged"


def test_a_forged_answer_cannot_raise_what_it_likes():
    header = b'["dict",["failed","kind"],"\\u001b[2Jx","SystemExit"]'
    raw = wire.MAGIC + len(header).to_bytes(8, "little") + header
    assert refusal("say", raw) == "refused: model.pt cannot be opened: [2Jx"


def test_garbage_from_a_child_that_stays_is_not_waited_for():
    started = time.perf_counter()
    assert "answer with garbage" in refusal("say_and_stay", b"no message of mine")
    assert time.perf_counter() - started < 15


def test_an_endless_answer_is_cut():
    header = b'["bytes",99999999]  '
    limits = Limits(answer_bytes=1 << 20)
    assert "answer with garbage" in refusal("say_forever", HEAD + header, limits=limits)


@pytest.mark.parametrize("field", ["memory", "wall_seconds", "threads"])
def test_limits_without_sense_are_mistakes(field):
    with pytest.raises(ValueError, match=f"Limits.{field} must be above 0, not 0"):
        Limits(**{field: 0})


def test_the_childs_environment_holds_nothing_of_ours(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "1")
    monkeypatch.setenv("PYTHONSTARTUP", "/tmp/x")
    seen = call("environment", environment={"KERAS_BACKEND": "torch"})
    assert not {"SECRET_TOKEN", "PYTHONSTARTUP", "PYTHONPATH"} & set(seen)
    assert seen["HOME"] == "/nonexistent"
    assert seen["KERAS_BACKEND"] == "torch"


def test_nothing_is_imported_from_the_models_folder(tmp_path, monkeypatch):
    (tmp_path / "hostile_twin.py").write_text("def f(): return 'imported'")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert confinement.run("hostile_twin:f") == "imported"
    for path in (tmp_path, tmp_path / "hostile_twin.py"):
        with pytest.raises(AgnesError, match="No module named 'hostile_twin'"):
            confinement.run("hostile_twin:f", allow_read=[path])


def test_nothing_is_imported_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "hostile_twin.py").write_text("def f(): return 'imported'")
    monkeypatch.chdir(tmp_path)
    for entry in ("", ".", str(tmp_path)):
        monkeypatch.setattr(sys, "path", [entry, *sys.path])
        with pytest.raises(AgnesError, match="No module named 'hostile_twin'"):
            confinement.run("hostile_twin:f")


def test_the_child_holds_no_files_but_its_pipes():
    with open(__file__, "rb") as file:
        os.set_inheritable(file.fileno(), True)
        assert len(call("opened")) <= 5  # three standard ones, its answers, and the folder it lists


def test_no_child_is_left_behind():
    before = children()
    process = call("process_number")
    assert process != os.getpid()
    assert gone(process)
    for name, arguments in (("crash", ()), ("leave", (0,)), ("fail", ("ValueError", "x"))):
        refusal(name, *arguments)
    assert children() == before


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_child_ends_with_its_parent(tmp_path, end):
    note = tmp_path / "note"
    script = f"""
        from agnes import confinement
        confinement.run("confined:sleep_and_tell", {str(note)!r}, allow_write=[{str(tmp_path)!r}])
    """
    path = os.pathsep.join(entry for entry in sys.path if entry)
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # deaf where it was started in the background
    )
    for _ in range(400):
        if note.exists() and note.read_text():
            break
        time.sleep(0.05)
    child = int(note.read_text())
    assert Path(f"/proc/{child}").exists()
    parent.send_signal(end)
    parent.communicate(timeout=20)
    assert gone(child)


def test_the_page_on_safety_names_every_limit_with_its_default():
    text = (Path(__file__).parents[1] / "docs" / "safety.md").read_text(encoding="utf-8")
    for field in dataclasses.fields(Limits):
        default = {"said_bytes": "64 KiB"}.get(field.name, f"{field.default:g}")
        if field.default >= 1 << 30:
            default = f"{field.default >> 30} GiB"
        assert f"| `{field.name}` | {default} |" in text, field.name


def test_the_doctor_says_how_well_the_child_is_shut_in():
    assert health.examine().device["isolation"] == str(confinement.strength())


@pytest.mark.parametrize(
    ("strength", "said"),
    [
        (Strength(7, True), "strong (Landlock 7, seccomp)"),
        (Strength(0, True, ("Landlock: not on darwin",)), "weak (Landlock: not on darwin)"),
        (Strength(), "weak (nothing is known of it)"),
    ],
)
def test_strength_reads_as_a_word_and_its_reason(strength, said):
    assert str(strength) == said
    assert strength.strong == said.startswith("strong")
    assert Strength.of(strength.as_json()) == strength
