"""What a checked pickle says of the blocks of numbers beside it: followed step by step, nothing is made of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_SIZES = {  # bytes of one number
    "Double": 8,
    "Float": 4,
    "Half": 2,
    "BFloat16": 2,
    "Long": 8,
    "Int": 4,
    "Short": 2,
    "Char": 1,
    "Byte": 1,
    "Bool": 1,
}
SIZES = {"torch.storage UntypedStorage": 1} | {f"torch {kind}Storage": size for kind, size in _SIZES.items()}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TAKEN = {"APPEND": 1, "SETITEM": 2, "BUILD": 1, "REDUCE": 2}  # values that a step takes off the stack
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK, _THING = object(), object()  # a list, a dictionary, a tensor: whatever else there is


class Nonsense(Exception):
    """The steps cannot be followed."""


@dataclass(frozen=True)
class _Import:
    name: str


def wanted(steps: Iterable[tuple[str, Any]]) -> dict[str, int]:
    """The bytes that each block must have, by its name."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    found: dict[str, int] = {}
    for step, argument in steps:
        try:
            _follow(step, argument, stack, memo, found)
        except (IndexError, KeyError, ValueError):
            raise Nonsense from None
    return found


def _follow(step: str, argument: Any, stack: list[Any], memo: dict[int, Any], found: dict[str, int]) -> None:
    if step in ("BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif step in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif step == "MARK":
        stack.append(_MARK)
    elif step == "GLOBAL":
        stack.append(_Import(argument))
    elif step == "TUPLE" or step in _TUPLES:
        stack.append(tuple(_popped(stack, _TUPLES.get(step))))
    elif step in ("APPENDS", "SETITEMS"):
        _popped(stack, None)
    elif step in _TAKEN:
        _popped(stack, _TAKEN[step])
        if step == "REDUCE":
            stack.append(_THING)
    elif step == "BINPERSID":
        key, size = _block(stack.pop())
        if found.setdefault(key, size) != size:
            raise Nonsense
        stack.append(_THING)
    elif step in ("EMPTY_LIST", "EMPTY_DICT"):
        stack.append(_THING)
    elif step in _CONSTANTS or argument is not None:
        stack.append(_CONSTANTS.get(step, argument))


def _popped(stack: list[Any], count: int | None) -> list[Any]:
    """The last values of the stack: so many, or all behind the last mark, which goes too."""
    if count is None:
        values = []
        while (value := stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]
    if len(stack) < count:
        raise Nonsense
    values = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return values


def _block(told: Any) -> tuple[str, int]:
    """The name and the bytes of one block, as torch.save writes them."""
    match told:
        case ("storage", _Import(kind), str(key), str(), int(count), *rest) if kind in SIZES and count >= 0:
            if rest in ([], [None]):
                return key, count * SIZES[kind]
    raise Nonsense
