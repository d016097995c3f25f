"""The command line: what it prints, where, and the code it leaves with."""

import json
import os
import subprocess
import sys
import textwrap

import fakes
import pytest

from agnes import cli


@pytest.fixture
def agnes(tmp_path, monkeypatch, capsys):
    """Call the command in an empty folder of its own; returns code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGNES_BLOCK", raising=False)
    fakes.model_file(tmp_path)
    fakes.images_file(tmp_path)

    def call(*arguments):
        code = cli.invoke([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    with fakes.installed(*fakes.whole_house()):
        yield call


RUN = ("run", "model.fake", "--data", "images.npz", "--plugin", "suspects")


def test_a_run_shows_a_summary_and_leaves_with_the_verdict(agnes, tmp_path):
    code, out, err = agnes(*RUN)
    assert code == 1
    assert "BACKDOORED" in out
    assert "target class 2" in out
    assert "runs/model/report.json" in out
    assert (tmp_path / "runs" / "model" / "report.json").exists()
    assert "stimulation" in err
    assert "\x1b" not in out + err  # plain lines where there is no terminal


def test_a_second_run_gets_a_folder_of_its_own(agnes, tmp_path):
    agnes(*RUN)
    agnes(*RUN)
    assert (tmp_path / "runs" / "model-2" / "report.json").exists()


def test_json_stands_alone_on_standard_output_and_is_the_report(agnes, tmp_path):
    code, out, _ = agnes(*RUN, "--json", "-o", "here")
    assert code == 1
    assert json.loads(out) == json.loads((tmp_path / "here" / "report.json").read_text())


def test_quiet_says_nothing_on_the_way(agnes):
    _, _, err = agnes(*RUN, "--quiet")
    assert err == ""


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        ((), 1),
        (("--set", "triggers.size=29"), 0),
        (("--set", "triggers.fails=raise"), 5),
        (("--only",), 5),
        (("--plugin", "triggers", "--only", "--block", "needy"), 1),
        (("--set", "triggers.sise=1"), 4),
        (("--sed", "1"), 4),
        (("--seed", "one"), 4),
        (("--time-budget", "never"), 4),
        (("--block", "suspects"), 4),
        (("--config", "nowhere.toml"), 4),
        (("--report", "pdf"), 4),
        (("-o", "images.npz"), 4),
        (("-o", "images.npz/run"), 2),
        (("--set", "fake.strict=true"), 3),
    ],
)
def test_the_exit_code_says_how_it_ended(agnes, extra, code):
    found, out, err = agnes(*RUN, *extra)
    assert found == code, out + err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "nowhere.fake", "--data", "images.npz"), 4, "there is no model file nowhere.fake"),
        (("run", "model.fake", "--data", "nowhere"), 4, "nowhere: no such file or folder"),
        (("run", "empty.fake", "--data", "images.npz"), 3, "refused: empty.fake is empty"),
        (("run", "hostile.fake", "--data", "images.npz"), 3, "hostile.fake is hostile"),
        (("run", "broken.fake", "--data", "images.npz"), 3, "ValueError: byte 3 is wrong"),
        (("run", "images.npz", "--data", "images.npz"), 3, "no installed loader opens images.npz"),
        (("run", "model.fake", "--data", "void"), 4, "void"),
        (("run", "model.fake", "--data", "grey.npz"), 4, "grey.npz"),
        (("run", "model.fake", "--data", "labels.npz"), 4, "class counts disagree"),
        (("run",), 4, "MODEL"),
        (("rum",), 4, "rum"),
        (("plugins", "suspect"), 4, "did you mean 'suspects'?"),
        (("inspect", "nowhere.fake"), 4, "there is no model file"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(agnes, tmp_path, arguments, code, message):
    import numpy as np

    (tmp_path / "empty.fake").write_bytes(b"")
    (tmp_path / "hostile.fake").write_text("hostile")
    (tmp_path / "broken.fake").write_text("broken")
    (tmp_path / "void").mkdir()
    np.savez(tmp_path / "grey.npz", images=np.zeros((4, 0, 8, 3), np.uint8))
    np.savez(tmp_path / "labels.npz", images=np.zeros((2, 8, 8, 3), np.uint8), labels=np.array([0, 99]))
    found, _, err = agnes(*arguments)
    assert found == code
    assert err.startswith("agnes: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs" / "model").exists()


def test_ctrl_c_in_mid_run_leaves_a_partial_report_and_130(agnes, tmp_path):
    code, _, err = agnes(*RUN, "--set", "triggers.fails=interrupt", "-o", "run")
    assert code == 130
    assert "interrupted" in err
    assert json.loads((tmp_path / "run" / "report.json").read_text())["complete"] is False


def test_an_unforeseen_error_is_one_line_too(agnes, monkeypatch):
    monkeypatch.delenv("AGNES_DEBUG", raising=False)
    monkeypatch.setattr("agnes.engine.run", lambda *a, **k: 1 / 0)
    code, _, err = agnes(*RUN)
    assert (code, err.count("\n")) == (2, 1)
    assert "ZeroDivisionError" in err


def test_settings_from_the_command_line_win_over_agnes_toml_and_that_over_pyproject(agnes, tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        "[tool.agnes.suspects]\ntarget = 3\n[tool.agnes.triggers]\nsize = 4\nothers = 31\n"
    )
    (tmp_path / "agnes.toml").write_text("seed = 9\n[triggers]\nsize = 3\n[suspects]\ntarget = 4\n")
    _, out, _ = agnes(*RUN, "--json", "--set", "triggers.size=2")
    methods = {method["name"]: method["settings"] for method in json.loads(out)["methods"]}
    assert methods["triggers"] | {"others": 31, "size": 2} == methods["triggers"]
    assert methods["suspects"]["target"] == 4
    assert json.loads(out)["settings"]["seed"] == 9


def test_a_configuration_cannot_trust_model_code(agnes, tmp_path):
    (tmp_path / "agnes.toml").write_text("trust_model_code = true\n")
    code, _, err = agnes(*RUN)
    assert code == 4
    assert "trust_model_code is never read from a file" in err


def test_plugins_lists_name_stage_distribution_and_version(agnes):
    code, out, _ = agnes("plugins", "--block", "needy")
    assert code == 0
    assert any(line.split() == ["suspects", "stimulation", "agnes-fake", "1.0"] for line in out.splitlines())
    assert any(line.split() == ["needy", "stimulation", "agnes-fake", "1.0", "blocked"] for line in out.splitlines())
    _, out, _ = agnes("plugins", "--json")
    assert {
        "name": "suspects",
        "stage": "stimulation",
        "distribution": "agnes-fake",
        "version": "1.0",
        "blocked": False,
    } in (json.loads(out))


def test_a_plugin_shows_its_settings_defaults_needs_and_paper(agnes):
    code, out, _ = agnes("plugins", "needy")
    assert code == 0
    for words in (
        "The same, on representatives",
        "paper: none",
        "needy.target=2",
        "the class it names",
        "representatives",
    ):
        assert words in out


def test_inspect_tells_layers_and_which_methods_apply(agnes):
    code, out, _ = agnes("inspect", "model.fake", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["loader"] == "fake"
    assert found["kinds"] == ["batch_norm", "conv", "flatten", "linear", "max_pool", "relu"]
    assert {m["name"]: m["applies"] for m in found["methods"]}["suspects"] is True
    code, out, _ = agnes("inspect", "model.fake", "--data", "images.npz")
    assert code == 0
    assert "conv" in out


def test_schema_is_a_json_schema(agnes):
    import jsonschema

    code, out, _ = agnes("schema")
    assert code == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(out))


def test_doctor_names_what_is_broken(tmp_path, capsys):
    broken = fakes.plugin("torn", "stimulation", ImportError("no module named left"), "agnes-torn", "0.3")
    with fakes.installed(*fakes.whole_house(), broken):
        code = cli.invoke(["doctor"])
    out = capsys.readouterr().out
    assert code == 2
    assert "plugin 'torn' of agnes-torn 0.3 cannot be imported: ImportError: no module named left" in out


def test_a_broken_plugin_breaks_nothing_else_and_is_in_the_report(agnes, tmp_path, capsys):
    broken = fakes.plugin("torn", "inversion", ImportError("gone"), "agnes-torn", "0.3")
    with fakes.installed(*fakes.whole_house(), broken):
        code = cli.invoke([*RUN, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == 1
    assert "agnes-torn 0.3" in report["environment"]["broken_plugins"][0]


def test_a_broken_plugin_that_was_named_is_a_failed_method(agnes, tmp_path, capsys):
    broken = fakes.plugin("torn", "inversion", ImportError("gone"), "agnes-torn", "0.3")
    with fakes.installed(*fakes.whole_house(), broken):
        code = cli.invoke([*RUN, "--plugin", "torn", "--json"])
    report = json.loads(capsys.readouterr().out)
    torn = next(method for method in report["methods"] if method["name"] == "torn")
    assert (code, torn["status"]) == (5, "failed")
    assert "ImportError: gone" in torn["reason"]


SLOW_PLUGIN = """
import time
time.sleep(3)
import typer
app = typer.Typer()
@app.command()
def hello(): print("hello")
"""


@pytest.fixture
def slow_installation(tmp_path):
    """A folder on the path that holds a distribution whose modules take three seconds to import."""
    (tmp_path / "agnes_slow.py").write_text(SLOW_PLUGIN)
    info = tmp_path / "agnes_slow-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: agnes-slow\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[agnes.stimulation]\nsleeper = agnes_slow:Sleeper\n[agnes.command]\nsleepy = agnes_slow:app\n"
    )
    return tmp_path


@pytest.mark.parametrize("arguments", [["--help"], ["plugins"], ["plugins", "--json"], ["run", "--help"], ["schema"]])
def test_what_lists_imports_neither_plugins_nor_torch(slow_installation, arguments):
    code = textwrap.dedent(f"""
        import sys
        from agnes import cli
        code = cli.invoke({arguments!r})
        heavy = sorted({{"torch", "numpy", "agnes_slow", "onnx", "sklearn", "PIL"}} & set(sys.modules))
        sys.exit(f"imported {{heavy}}" if heavy else code)
    """)
    environment = {**os.environ, "PYTHONPATH": str(slow_installation)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if arguments == ["plugins"]:
        assert "sleeper" in done.stdout
    if arguments == ["--help"]:
        assert "sleepy" in done.stdout


def test_a_plugins_command_is_imported_when_it_is_called(slow_installation):
    environment = {**os.environ, "PYTHONPATH": str(slow_installation)}
    done = subprocess.run(
        [sys.executable, "-m", "agnes", "sleepy"], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr


def test_whoever_stops_reading_makes_nothing_fail(tmp_path):
    command = f"{sys.executable} -m agnes schema | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_output_that_cannot_be_written_is_told_in_one_line():
    command = f"{sys.executable} -m agnes schema > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "agnes: the output cannot be written: No space left on device\n"


def test_a_name_to_block_that_nobody_has_is_refused():
    done = cli.invoke(["plugins", "--block", "no-such-plugin"])
    assert done == 4


@pytest.mark.parametrize("arguments", [["plugins"], ["no-command-of-ours"]])
def test_a_wrong_name_in_the_environment_is_told_by_every_command(arguments, monkeypatch, capsys):
    monkeypatch.setenv("AGNES_BLOCK", "no-such-plugin")
    assert cli.invoke(arguments) == 4
    assert "'no-such-plugin' to block, as AGNES_BLOCK says" in capsys.readouterr().err
    assert cli.invoke(["--help"]) == 0
