"""Promises to whoever writes a plugin elsewhere: it is built, installed, found, checked and blocked like our own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

import pytest
from flit_core import buildapi

import agnes

SOURCE = Path(__file__).parent / "third_party" / "agnes-example"
HOUSE = Path(agnes.__path__[0]).parent

LISTING = """
import json, sys
from agnes.registry import Registry
found = [[p.name, p.stage, p.distribution, p.version, p.target] for p in Registry.discover().plugins]
imported = [name for name in ("torch", "agnes_example") if name in sys.modules]
print(json.dumps({"found": found, "imported": imported}))
"""
USING = """
import json
from agnes.method import settings_in, settings_of
from agnes.registry import Registry
from agnes.settings import build, parse_assignments
registry = Registry.discover()
kind = registry.method(registry.named("loudest"))
typed = parse_assignments(["loudest.factor=6"])["loudest"]
values = settings_in(build(kind, "loudest", typed))
print(json.dumps({"help": {s.name: s.help for s in settings_of(kind)}, "values": values}))
"""


class Environment:
    """A virtual environment of its own that finds what this one has installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, with_pip=True)
        scheme = {"base": str(folder), "platbase": str(folder)}
        self.python = Path(sysconfig.get_path("scripts", "venv", scheme)) / Path(sys.executable).name
        parents = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(HOUSE)))
        lines = [f"import site; site.addsitedir({parent!r})" for parent in parents]
        (Path(sysconfig.get_path("purelib", "venv", scheme)) / "parent.pth").write_text("\n".join(lines))

    def run(self, *words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "AGNES_"))
        }
        return subprocess.run(
            [str(self.python), *words],
            cwd=cwd or self.folder,
            env={**kept, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def json(self, *words: str, **environment: str):
        done = self.run(*words, **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Environment:
    """An environment in which the distribution is installed from its wheel."""
    folder = tmp_path_factory.mktemp("third-party")
    source = shutil.copytree(SOURCE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    here = Path.cwd()
    try:
        os.chdir(source)  # flit reads the project of the working directory
        wheel = buildapi.build_wheel(str(folder))
    finally:
        os.chdir(here)
    environment = Environment(folder / "env")
    options = ("--no-index", "--no-deps", "--disable-pip-version-check", "--quiet")
    done = environment.run("-m", "pip", "install", *options, str(folder / wheel))
    assert done.returncode == 0, done.stderr
    return environment


def test_it_is_listed_from_metadata_and_nothing_is_imported(installed):
    listing = installed.json("-c", LISTING)
    ours = [row for row in listing["found"] if row[2] == "agnes-example"]
    assert ours == [
        ["loudest", "stimulation", "agnes-example", "1.2.3", "agnes_example.loudest:Loudest"],
        ["tally", "reporter", "agnes-example", "1.2.3", "agnes_example.tally:Tally"],
    ]
    assert listing["imported"] == []


def test_the_command_lists_it_and_tells_its_settings(installed):
    listed = json.dumps(installed.json("-m", "agnes", "plugins", "--json"))
    assert '"loudest"' in listed
    assert '"agnes-example"' in listed
    told = installed.run("-m", "agnes", "plugins", "loudest", COLUMNS="200", NO_COLOR="1")
    assert told.returncode == 0, told.stderr
    for words in ("factor", "4.0", "by which a channel is turned up", "agnes-example"):
        assert words in told.stdout


def test_its_settings_are_read_with_their_comments(installed):
    used = installed.json("-c", USING)
    assert used["values"] == {"per_layer": 3, "factor": 6.0}
    assert used["help"]["factor"] == "by which a channel is turned up beyond the loudest it was"


def test_it_is_blocked_by_the_name_of_its_distribution(installed):
    listing = installed.json("-c", LISTING, AGNES_BLOCK="agnes-example")
    assert not [row for row in listing["found"] if row[2] == "agnes-example"]


def test_its_own_tests_inherit_the_conformance_checks_and_pass(installed, tmp_path):
    shutil.copytree(SOURCE / "tests", tmp_path / "tests")  # without the package beside it: what is installed is tested
    shutil.copy(SOURCE / "pyproject.toml", tmp_path)
    found = metadata.entry_points(group="pytest11", name="agnes.testing.fixtures")
    plugin = [] if found else ["-p", "agnes.testing.fixtures"]  # where the engine is on the path and not installed
    done = installed.run("-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-4000:]
    passed = int(done.stdout.strip().splitlines()[-1].split(" passed")[0].split()[-1])
    assert passed > 40
