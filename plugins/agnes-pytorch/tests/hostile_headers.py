"""Safetensors files that a stranger may send, and what is said of them."""

import json
import struct


def written(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HOSTILE = {
    "too short": (b"\x08", "cut short"),
    "a length beyond the end": (written({}, length=1 << 62), "cut short"),
    "a giant header": (written(b" " * 11_000_000), "header_limit"),
    "no JSON": (written(b"{nonsense"), "not JSON"),
    "no text": (written(b"\xff\xfe\xff"), "not JSON"),
    "nested without end": (written(b"[" * 200_000), "not JSON"),
    "a list": (written([1]), "not a JSON object"),
    "nothing": (written({}), "no tensors"),
    "only metadata": (written({"__metadata__": {"a": "b"}}), "no tensors"),
    "a key twice": (written(b'{"a": 1, "a": 2}'), "one thing twice"),
    "no shape": (written({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8)), "lacks its type"),
    "no entry": (written({"a": 5}), "lacks its type"),
    "an unknown type": (written({"a": tensor("OBJECT")}, bytes(8)), "of type OBJECT"),
    "a type that is none": (written({"a": tensor(["F32"])}, bytes(8)), "of type"),
    "a negative shape": (written({"a": tensor(shape=(-2,))}, bytes(8)), "whole numbers"),
    "a shape of fractions": (written({"a": tensor(shape=(2.0,))}, bytes(8)), "whole numbers"),
    "a shape of truth": (written({"a": tensor(shape=(True, 2))}, bytes(8)), "whole numbers"),
    "a giant shape": (written({"a": tensor(shape=(1 << 60, 1 << 60))}, bytes(8)), "do not hold"),
    "many dimensions": (written({"a": tensor(shape=(1,) * 60 + (2,))}, bytes(8)), "do not hold"),
    "offsets turned round": (written({"a": tensor(offsets=(8, 0))}, bytes(8)), "do not hold"),
    "offsets beyond the end": (written({"a": tensor(offsets=(8, 16))}, bytes(8)), "leaves bytes unused"),
    "overlap": (written({"a": tensor(), "b": tensor(offsets=(4, 12))}, bytes(12)), "overlaps"),
    "all at one place": (written({"a": tensor(), "b": tensor()}, bytes(8)), "overlaps"),
    "a gap": (written({"a": tensor(), "b": tensor(offsets=(12, 20))}, bytes(20)), "leaves bytes unused"),
    "bytes at the end": (written({"a": tensor()}, bytes(9)), "9 bytes of weights"),
    "escape codes": (written({"\x1b[2J\n": tensor("X")}, bytes(8)), r"tensor \[2J is of type"),
}
