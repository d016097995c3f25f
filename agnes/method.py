"""What every plugin is: a frozen dataclass whose fields are its settings, and what it needs to run."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import textwrap
import tokenize
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from agnes.network import Network

NEEDS: Mapping[str, str] = {
    "labels": "labelled images",
    "test_data": "a labelled test part, for measuring accuracy",
    "batch_norm": "batch normalisation in the network",
    "piecewise_linear": "a piecewise-linear network",
    "conv": "convolutions in the network",
    "gradients": "a network that gradients flow through",
    "representatives": "representatives from an abstraction method",
    "candidates": "candidates from a stimulation method",
    "triggers": "a trigger that convicts",
}


@dataclasses.dataclass(frozen=True)
class Method:
    """A plugin's method. Subclass as a frozen dataclass, implement the hook of its stage."""

    needs: ClassVar[frozenset[str]] = frozenset()  # keys of NEEDS; unmet, the method is skipped with a reason
    paper: ClassVar[str] = ""  # where the method was published, as one line

    preference: ClassVar[int] = 0  # of the methods that suit a network, the highest is chosen
    wants: ClassVar[str] = ""  # the method of an earlier stage that is chosen with this one where it suits
    wants_images: ClassVar[int] = 0  # a class, to repair with; where there are fewer, other methods are tried first

    def suits(self, network: Network) -> str | None:
        """Why this method fits a network, when no method of its stage is named; None: it wants to be named."""
        return None

    def unmet(self, network: Network) -> str | None:
        """What the method needs of this network beyond `needs` and does not find; it is skipped with that reason."""
        return None

    def asks(self) -> Mapping[str, Mapping[str, Any]]:
        """Settings this method wants of the methods of an earlier stage: {stage: {setting: value}}."""
        return {}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field of a method, as a user sees it."""

    name: str
    type: Any
    default: Any
    help: str

    @property
    def type_name(self) -> str:
        if isinstance(self.type, type):
            return self.type.__name__
        return str(self.type).replace("typing.", "")


def is_method(candidate: object) -> bool:
    """Whether an entry point's object is what a plugin must be: a frozen dataclass derived from Method."""
    return isinstance(candidate, type) and issubclass(candidate, Method) and "__dataclass_fields__" in vars(candidate)


def settings_of(method: type) -> tuple[Setting, ...]:
    """The settings of a method's class, with the comment that stands beside each field."""
    types = typing.get_type_hints(method)
    comments = _field_comments(method)
    return tuple(
        Setting(field.name, types[field.name], _default(field), comments.get(field.name, ""))
        for field in dataclasses.fields(method)
        if field.init
    )


def settings_in(method: object) -> dict[str, Any]:
    """The settings an instance carries."""
    return {field.name: getattr(method, field.name) for field in dataclasses.fields(method) if field.init}  # type: ignore[arg-type]


def summary_of(method: type) -> str:
    """The first line of a method's docstring."""
    return (inspect.getdoc(method) or "").strip().partition("\n")[0]


def _default(field: dataclasses.Field) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return dataclasses.MISSING


def _field_comments(method: type) -> dict[str, str]:
    """The trailing comment of each annotated field, read from the source where there is one."""
    comments: dict[str, str] = {}
    for base in reversed(method.__mro__):
        if dataclasses.is_dataclass(base):
            try:
                comments.update(_comments_in(textwrap.dedent(inspect.getsource(base))))
            except (OSError, TypeError, SyntaxError):
                continue
    return comments


def _comments_in(source: str) -> dict[str, str]:
    """The comments on the lines of each field of the class that the source defines."""
    body = next((node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef)), [])
    lines: dict[int, str] = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found: dict[str, str] = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            here = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            found[node.target.id] = " ".join(lines[number] for number in here if lines.get(number))
    return {name: text for name, text in found.items() if text}
