"""The pages on zoos and benches say what the commands do."""

import re
from pathlib import Path

import pytest
import typer
from agnes_zoo import recipes
from agnes_zoo.bench import scores
from agnes_zoo.commands import bench, zoo
from agnes_zoo.scoring import tables

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGES = {"zoo": (DOCS / "zoo.md").read_text(encoding="utf-8"), "bench": (DOCS / "bench.md").read_text(encoding="utf-8")}
COMMANDS = {name: typer.main.get_command(app).commands for name, app in (("zoo", zoo.app), ("bench", bench.app))}  # type: ignore[attr-defined]
CASES = [(group, name) for group, commands in COMMANDS.items() for name in commands]


@pytest.mark.parametrize(("group", "name"), CASES)
def test_every_command_and_option_is_on_its_page(group, name):
    assert f"agnes {group} {name}" in PAGES[group]
    for parameter in COMMANDS[group][name].params:
        for option in parameter.opts:
            if option.startswith("--") and option not in ("--help", "--each", "--test"):
                assert re.search(rf"{option}\b", PAGES[group]), f"{name} {option}"


@pytest.mark.parametrize("group", PAGES)
def test_commands_on_a_page_exist_with_their_options(group):
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", PAGES[group], re.DOTALL))
    found = re.findall(r"agnes (zoo|bench) ([a-z]+)(.*)", blocks)
    assert found
    for owner, name, rest in found:
        known = {option for parameter in COMMANDS[owner][name].params for option in parameter.opts}
        assert set(re.findall(r"\s(--?[a-z][a-z-]*)", rest)) <= known, name


def test_the_recipe_on_the_page_is_one():
    (text,) = re.findall(r"```toml\n(.*?)```", PAGES["zoo"], re.DOTALL)
    found = recipes.parse(text.encode(), "mine.toml")
    assert len(found.entries) == 12
    assert {entry.plan.arch for entry in found.entries} == {"N_MN", "resnet18"}


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_on_the_page(name):
    assert f"| `{name}` |" in PAGES["zoo"]


def test_the_scores_on_the_page_are_read(tmp_path):
    (text,) = re.findall(r"```csv\n(.*?)```", PAGES["bench"], re.DOTALL)
    (tmp_path / "scores.csv").write_text(text)
    assert len(scores.read(tmp_path / "scores.csv", ["model-0001", "model-0002"])) == 2


def test_the_measures_are_explained():
    for title in ("AUC", "TPR at 0 and 5 % FPR", "Brier score", "expected calibration error", "target class right"):
        assert f"| {title} |" in PAGES["bench"]
    assert "TPR at 5 % FPR" in tables.TITLES.values()
