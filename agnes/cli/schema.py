"""agnes schema: what report.json holds."""

from __future__ import annotations

from importlib import resources

NAME = "schema"


def command() -> None:
    """Print the JSON Schema of report.json."""
    print(resources.files("agnes.reports").joinpath("report.schema.json").read_text(encoding="utf-8"), end="")
