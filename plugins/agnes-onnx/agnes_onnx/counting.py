"""How many parts a protobuf file has, counted on its bytes: two of them can ask a parser for hundreds."""

from __future__ import annotations

from dataclasses import dataclass, field

from agnes.errors import Refused

_DEEPEST = 32  # messages within messages
_SHORT = 16  # bytes of a text that come with its part; the next as many count as another


class Broken(Exception):
    """Bytes that are no protobuf message."""


@dataclass
class _Kind:
    """One kind of message: which of its fields are messages, packed numbers, or numbers as they lie in memory."""

    inside: dict[int, _Kind] = field(default_factory=dict)
    packed: frozenset[int] = frozenset()  # one byte may become eight
    bulk: frozenset[int] = frozenset()


def _model() -> _Kind:
    """ModelProto, as far as it is read: onnx.proto's field numbers."""
    leaf = _Kind()
    tensor = _Kind({13: leaf, 16: leaf}, packed=frozenset((1, 5, 7, 11)), bulk=frozenset((4, 9, 10)))
    shape = _Kind({1: leaf})
    value = _Kind({2: _Kind({1: _Kind({2: shape})}), 4: leaf})
    attribute = _Kind({5: tensor, 10: tensor}, packed=frozenset((8,)))
    node = _Kind({5: attribute, 9: leaf})
    graph = _Kind({1: node, 5: tensor, 11: value, 12: value, 13: value, 16: leaf})
    attribute.inside.update({6: graph, 11: graph})
    return _Kind({7: graph, 8: leaf, 14: leaf})


_MODEL = _model()


def check(content: bytes, limit: int) -> None:
    """Refuse a model of more parts than the limit; Broken where it is none."""
    _Counter(content, limit).count(0, len(content), _MODEL, 0)


class _Counter:
    def __init__(self, content: bytes, limit: int) -> None:
        self._content = content
        self._limit = self._left = limit

    def count(self, at: int, end: int, kind: _Kind, depth: int) -> None:
        """Count the fields between two places."""
        content = self._content
        if depth > _DEEPEST:
            raise Refused(f"refused: the file nests its parts deeper than {_DEEPEST}")
        while at < end:
            tag = content[at]
            tag, at = (tag, at + 1) if tag < 0x80 else self._varint(at, end)
            number, wire = tag >> 3, tag & 7
            self._spend(1)
            if wire == 0:
                _, at = self._varint(at, end)
            elif wire in (1, 5):
                at += 8 if wire == 1 else 4
            elif wire == 2:
                length, at = self._varint(at, end)
                if length > end - at:
                    raise Broken
                self._inside(at, at + length, kind, number, depth)
                at += length
            else:
                raise Broken
        if at != end:
            raise Broken

    def _inside(self, at: int, end: int, kind: _Kind, number: int, depth: int) -> None:
        if number in kind.inside:
            self.count(at, end, kind.inside[number], depth + 1)
        elif number in kind.packed:
            self._spend(end - at)
        elif number not in kind.bulk:
            self._spend((end - at) // _SHORT)

    def _spend(self, parts: int) -> None:
        self._left -= parts
        if self._left < 0:
            raise Refused(f"refused: the file has more than onnx.part_limit ({self._limit}) names, numbers and nodes")

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while at < end and shift < 70:
            byte = self._content[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
        raise Broken
