"""Reading protobuf messages field by field, without the library that would build objects of them."""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Malformed(Exception):
    """What was read is no protobuf message."""


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Each field's number and value: a whole number, or the bytes of text, lists and messages within."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield number, value
        elif kind == _BYTES:
            length, position = _varint(message, position)
            yield number, _taken(message, position, length)
            position += length
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
            yield number, int.from_bytes(_taken(message, position, length), "little")
            position += length
        else:
            raise Malformed(f"field {number} is of kind {kind}")


def messages(message: memoryview, number: int) -> Iterator[memoryview]:
    """Every value of one field that holds messages or text."""
    for found, value in fields(message):
        if found == number:
            if isinstance(value, int):
                raise Malformed(f"field {number} is a number")
            yield value


def text(message: memoryview, number: int) -> str:
    """The last value of a field of text, as protobuf's own readers have it; '' where there is none."""
    last = memoryview(b"")
    for value in messages(message, number):
        last = value
    return bytes(last).decode("utf-8", "replace")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise Malformed("it ends early")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
    raise Malformed("a number is too long")


def _taken(message: memoryview, position: int, length: int) -> memoryview:
    if length > len(message) - position:
        raise Malformed("it ends early")
    return message[position : position + length]
