"""The docs say what the code does."""

import dataclasses
import json
import re
from importlib import metadata, resources
from pathlib import Path

import pytest
import typer

from agnes import cli, hookspecs, options
from agnes.errors import AgnesError, NothingApplicable, Refused, UsageError
from agnes.hookspecs import METHOD_STAGES, STAGES
from agnes.method import NEEDS, settings_of
from agnes.registry import Registry
from agnes.reports.json import plain

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
OURS = [
    plugin
    for plugin in Registry.discover().plugins
    if plugin.stage in METHOD_STAGES and (ROOT / "plugins" / plugin.distribution).is_dir()
]


def page(name):
    return (DOCS / name).read_text(encoding="utf-8")


def hooks():
    return [name for name, value in vars(hookspecs).items() if hasattr(value, "agnes_spec")]


@pytest.mark.parametrize("hook", hooks())
def test_every_hook_is_described_with_its_arguments(hook):
    text = page("plugins.md")
    arguments = getattr(hookspecs, hook).__code__
    signature = f"{hook}({', '.join(arguments.co_varnames[: arguments.co_argcount])})"
    assert f"`{signature}`" in text


def test_every_hook_has_one_line_of_words():
    for hook in hooks():
        doc = getattr(hookspecs, hook).__doc__
        assert doc
        assert "\n" not in doc.strip()


@pytest.mark.parametrize("need", NEEDS)
def test_every_need_is_described(need):
    assert f"`{need}`" in page("plugins.md")


@pytest.mark.parametrize("noun", STAGES.values())
def test_every_entry_point_group_is_described(noun):
    assert f"`agnes.{noun}`" in page("plugins.md")


@pytest.mark.parametrize("plugin", OURS, ids=lambda plugin: plugin.name)
def test_every_method_has_a_card_with_its_settings_and_defaults(plugin):
    text = page(f"methods/{plugin.name}.md")
    method = Registry.discover().method(plugin)
    assert getattr(method, "paper", "") in text
    for setting in settings_of(method):
        default = "none" if setting.default is None else plain(setting.default)
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        assert re.search(rf"\| `{setting.name}` \| {re.escape(shown)} \|", text), f"{setting.name} = {shown}"
    for need in method.needs:
        assert f"`{need}`" in text


def test_there_are_method_cards_for_installed_methods_only():
    assert {path.stem for path in (DOCS / "methods").glob("*.md")} == {plugin.name for plugin in OURS}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_in_the_guide(name):
    text = page("guide.md")
    assert f"agnes {name}" in text
    for parameter in COMMANDS[name].params:
        for option in parameter.opts:
            if option.startswith("--") and option != "--help":
                assert f"`{option}`" in text, f"{name} {option}"


def test_every_option_of_the_configuration_file_is_in_the_guide():
    for field in dataclasses.fields(options.RunOptions):
        assert f"`{field.name}`" in page("guide.md"), field.name


@pytest.mark.parametrize("error", [AgnesError, Refused, NothingApplicable, UsageError])
def test_exit_codes_are_in_the_guide(error):
    assert re.search(rf"^\| {error.exit_code} \|", page("guide.md"), re.MULTILINE)


def test_every_part_of_the_report_is_described():
    schema = json.loads(resources.files("agnes.reports").joinpath("report.schema.json").read_text())
    for part in schema["properties"]:
        assert f"`{part}`" in page("report.md")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_in_the_docs_exist_with_their_options(path):
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        match = re.search(r"(?:^|\s|/)agnes ([a-z]+)(.*)", line)
        if not match:
            continue
        name, rest = match.groups()
        known = set(COMMANDS) | {p.name for p in Registry.discover().of_stage("command")}
        assert name in known, line
        if name in COMMANDS:
            spelt = {option for parameter in COMMANDS[name].params for option in parameter.opts}
            for option in re.findall(r"\s(--?[a-z][a-z-]*)", rest):
                assert option in spelt, line


def test_the_readme_names_the_version_of_python_that_is_needed():
    assert metadata.metadata("agnes-scan")["Requires-Python"] == ">=3.11"
    assert "Python 3.11 or newer" in (ROOT / "README.md").read_text()


def test_the_readme_sets_up_from_the_files_that_list_every_plugin():
    listed = (ROOT / "requirements.txt").read_text()
    for folder in (ROOT / "plugins").iterdir():
        if (folder / "pyproject.toml").exists():
            assert f"-e plugins/{folder.name}" in listed
