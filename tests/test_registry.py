"""Promises of the plugin system: listing imports nothing, blocking comes first, what is broken is named and alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import agnes
from agnes.errors import UsageError
from agnes.registry import BrokenPlugin, Plugin, Registry, installed_plugins

HOUSE = str(Path(agnes.__path__[0]).parent)
GOOD = """
from dataclasses import dataclass
from agnes.hookspecs import hookimpl
from agnes.method import Method

@dataclass(frozen=True)
class Good(Method):
    \"\"\"Is good.\"\"\"

    rounds: int = 3  # how often

    @hookimpl
    def diagnose(self, network):
        return network

@dataclass(frozen=True)
class Mute(Method):
    \"\"\"Has no hook.\"\"\"

@dataclass(frozen=True)
class Demanding(Method):
    \"\"\"Wants a value.\"\"\"

    value: int  # which

    @hookimpl
    def diagnose(self, network):
        return network

@dataclass(frozen=True)
class Puzzling(Method):
    \"\"\"Has a type that nobody knows.\"\"\"

    value: "NoSuchType" = 3  # which

    @hookimpl
    def diagnose(self, network):
        return network

def function():
    pass
"""


def distribution(
    folder: Path, name: str, entry_points: dict[str, dict[str, str]], version="1.0", **modules: str
) -> Path:
    """An installed distribution, as importlib.metadata sees one."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, entries in entry_points.items():
        lines += [f"[agnes.{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
    return folder


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A folder on sys.path whose modules are forgotten after the test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("AGNES_BLOCK", raising=False)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def ours(registry: Registry, *distributions: str) -> list[str]:
    return [p.name for p in registry.plugins if p.distribution in distributions]


def fresh(code: str, *path: Path, **environment: str):
    """What a new interpreter prints, as JSON."""
    kept = {name: value for name, value in os.environ.items() if name != "AGNES_BLOCK"}
    kept["PYTHONPATH"] = os.pathsep.join([*map(str, path), HOUSE])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**kept, **environment},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- listing ---------------------------------------------------------------------------------------------------------


def test_listing_imports_neither_torch_nor_any_plugin(tmp_path):
    heavy = "import time\ntime.sleep(30)\nraise RuntimeError('imported')\n"
    distribution(tmp_path, "agnes-heavy", {"stimulation": {"heavy": "agnes_heavy:Heavy"}}, agnes_heavy=heavy)
    listed = fresh(
        """
        import json, sys
        from agnes.registry import Registry
        registry = Registry.discover()
        plugin = registry.named("heavy")
        seen = [name for name in ("torch", "numpy", "agnes_heavy") if name in sys.modules]
        print(json.dumps([plugin.name, plugin.stage, plugin.distribution, plugin.version, plugin.target, seen]))
        """,
        tmp_path,
    )
    assert listed == ["heavy", "stimulation", "agnes-heavy", "1.0", "agnes_heavy:Heavy", []]


def test_every_group_of_ours_is_listed_and_no_other(site):
    groups = {
        "loader": {"l-x": "m:A"},
        "command": {"c-x": "m:B"},
        "architecture": {"a-x": "m:C"},
        "nonsense": {"n": "m:D"},
    }
    distribution(site, "agnes-several", groups)
    registry = Registry.discover()
    assert sorted(ours(registry, "agnes-several")) == ["a-x", "c-x", "l-x"]
    assert [p.name for p in registry.of_stage("loader") if p.distribution == "agnes-several"] == ["l-x"]


def test_plugins_come_by_stage_in_the_order_of_a_run_then_by_name(site):
    distribution(
        site,
        "agnes-order",
        {"mitigation": {"m-x": "m:A"}, "loader": {"z-x": "m:B", "b-x": "m:C"}, "inversion": {"i-x": "m:D"}},
    )
    assert ours(Registry.discover(), "agnes-order") == ["b-x", "z-x", "i-x", "m-x"]


# --- blocking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocked", "left"),
    [
        (["bad-x"], ["good-x"]),
        (["agnes-two"], []),
        (["Agnes_Two"], []),
        (["bad-x", "good-x"], []),
    ],
)
def test_a_plugin_or_a_distribution_is_blocked_by_name(site, blocked, left):
    distribution(site, "agnes-two", {"diagnosis": {"good-x": "m:A", "bad-x": "m:B"}})
    assert ours(Registry.discover(blocked), "agnes-two") == left


def test_a_name_to_block_that_nobody_has_is_refused_with_the_nearest(site):
    distribution(site, "agnes-two", {"diagnosis": {"good-x": "m:A"}})
    with pytest.raises(UsageError, match="'good-y' to block; did you mean 'good-x'"):
        Registry.discover(["good-y"])


def test_a_name_in_the_environment_that_nobody_has_is_refused_and_says_where_it_stands(site, monkeypatch):
    distribution(site, "agnes-two", {"diagnosis": {"good-x": "m:A"}})
    monkeypatch.setenv("AGNES_BLOCK", "agnes-two good-y")
    with pytest.raises(UsageError, match="'good-y' to block, as AGNES_BLOCK says; did you mean 'good-x'"):
        Registry.discover()


@pytest.mark.parametrize("words", ["bad-x,agnes-other", "bad-x agnes-other", " bad-x ,, agnes-other "])
def test_the_environment_blocks_as_well(site, monkeypatch, words):
    distribution(site, "agnes-two", {"diagnosis": {"good-x": "m:A", "bad-x": "m:B"}})
    distribution(site, "agnes-other", {"diagnosis": {"other-x": "m:C"}})
    monkeypatch.setenv("AGNES_BLOCK", words)
    registry = Registry.discover()
    assert ours(registry, "agnes-two", "agnes-other") == ["good-x"]
    assert [p.name for p in registry.blocked] == ["bad-x", "other-x"]


def test_what_is_blocked_is_never_imported(tmp_path):
    killer = "import os\nos._exit(9)\n"
    distribution(tmp_path, "agnes-killer", {"diagnosis": {"killer": "agnes_killer:K"}}, agnes_killer=killer)
    distribution(tmp_path, "agnes-good", {"diagnosis": {"good-x": "agnes_good_x:Good"}}, agnes_good_x=GOOD)
    loaded = fresh(
        """
        import json
        from agnes.registry import Registry
        registry = Registry.discover()
        ours = [p for p in registry.of_stage("diagnosis") if p.distribution in ("agnes-killer", "agnes-good")]
        print(json.dumps([registry.method(plugin).__name__ for plugin in ours]))
        """,
        tmp_path,
        AGNES_BLOCK="killer",
    )
    assert loaded == ["Good"]


def test_to_ask_for_a_blocked_plugin_is_refused_with_the_way_out(site):
    distribution(site, "agnes-two", {"diagnosis": {"bad-x": "m:B"}})
    with pytest.raises(UsageError, match="plugin 'bad-x' is blocked; remove it from --block"):
        Registry.discover(["agnes-two"]).named("bad-x")


# --- names -----------------------------------------------------------------------------------------------------------


def plugins(*rows: tuple[str, str, str]) -> list[Plugin]:
    return [Plugin(name, stage, owner, "1.0", f"{owner}:X", None) for name, stage, owner in rows]  # type: ignore[arg-type]


def test_two_plugins_of_one_name_are_refused_and_both_distributions_named(site):
    distribution(site, "agnes-one", {"diagnosis": {"same-x": "one:A"}})
    distribution(site, "agnes-two", {"inversion": {"same-x": "two:B"}})
    with pytest.raises(UsageError, match="'same-x'") as caught:
        Registry.discover()
    assert "two:B of agnes-two" in str(caught.value)
    assert "one:A of agnes-one" in str(caught.value)
    assert ours(Registry.discover(["agnes-one"]), "agnes-one", "agnes-two") == ["same-x"]


def test_a_command_and_an_architecture_may_be_called_like_a_method():
    registry = Registry(plugins(("demo", "command", "a"), ("demo", "diagnosis", "b"), ("demo", "architecture", "c")))
    assert registry.named("demo", ("command",)).distribution == "a"
    assert registry.named("demo", ("diagnosis",)).distribution == "b"


def test_an_unknown_name_is_refused_with_the_nearest():
    registry = Registry(plugins(("aproxsm", "stimulation", "a"), ("kmeans", "abstraction", "a")))
    with pytest.raises(
        UsageError, match=r"no plugin 'aproxms'; did you mean 'aproxsm'\? \(agnes plugins lists them all\)"
    ):
        registry.named("aproxms")


def test_a_name_of_another_stage_is_told_apart_from_an_unknown_one():
    registry = Registry(plugins(("onnx", "loader", "agnes-onnx")))
    with pytest.raises(UsageError, match="'onnx' of agnes-onnx is of stage loader, not inversion or mitigation"):
        registry.named("onnx", ("inversion", "mitigation"))


# --- what is broken --------------------------------------------------------------------------------------------------

BROKEN = {
    "raises": ("raise ValueError('no luck\\nand more')\n", "X", "cannot be imported: ValueError: no luck;"),
    "exits": ("raise SystemExit(3)\n", "X", "cannot be imported: SystemExit: 3;"),
    "syntax": ("def broken(:\n", "X", "cannot be imported: SyntaxError:"),
    "needs": ("import no_such_module_x\n", "X", "ModuleNotFoundError: No module named 'no_such_module_x'"),
    "lacks": (GOOD, "Absent", "cannot be imported: AttributeError:"),
    "function": (GOOD, "function", "is not a frozen dataclass derived from agnes.Method"),
    "mute": (GOOD, "Mute", "has no method 'diagnose', the hook of stage diagnosis"),
    "demanding": (GOOD, "Demanding", "setting 'value' has no default"),
    "puzzling": (GOOD, "Puzzling", "the types of its settings cannot be read: name 'NoSuchType'"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_named_with_its_distribution_and_its_error(site, kind):
    source, attribute, said = BROKEN[kind]
    name = f"broken-{kind}"
    module = f"agnes_broken_{kind}"
    distribution(site, "agnes-broken", {"diagnosis": {name: f"{module}:{attribute}"}}, "2.1", **{module: source})
    distribution(site, "agnes-good", {"diagnosis": {"good-x": "agnes_good_y:Good"}}, agnes_good_y=GOOD)
    registry = Registry.discover()
    with pytest.raises(BrokenPlugin) as caught:
        registry.method(registry.named(name))
    assert f"plugin '{name}' of agnes-broken" in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert registry.method(registry.named("good-x")).__name__ == "Good"  # and nothing else breaks


def test_one_that_cannot_be_imported_says_its_version_and_how_to_go_on_without_it(site):
    distribution(site, "agnes-old", {"diagnosis": {"old-x": "agnes_old_x:X"}}, "0.3", agnes_old_x="1 / 0\n")
    with pytest.raises(
        BrokenPlugin, match=r"of agnes-old 0\.3 cannot.*; reinstall it or leave it out with --block old-x"
    ):
        Registry.discover().named("old-x").load()


def test_a_distribution_without_a_name_does_not_end_the_listing(site):
    folder = distribution(site, "agnes-nameless", {"diagnosis": {"nameless-x": "m:X"}})
    next(folder.glob("*.dist-info/METADATA")).write_text("Metadata-Version: 2.1\nVersion: 1\n")
    (plugin,) = [p for p in installed_plugins() if p.name == "nameless-x"]
    assert plugin.distribution == "an unknown distribution"
