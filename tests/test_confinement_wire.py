"""What passes between parent and child: everything plain comes back the same, and no bytes whatever can do harm."""

from __future__ import annotations

import io
import json
import math
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from agnes.confinement import wire

KINDS = ["?", *(f"{order}{kind}" for order in "<>" for kind in ("i2", "i4", "i8", "u2", "u8", "f2", "f4", "f8", "c8"))]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(Path, st.just("a"))
)
KEYS = st.text() | st.integers(-(2**52), 2**52)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner) | st.tuples(inner, inner),
    max_leaves=20,
)


def sent(value):
    to = io.BytesIO()
    wire.send(to, wire.message(value))
    return to.getvalue()


def received(raw, most=1 << 20):
    return wire.receive(io.BytesIO(raw), most)


def with_header(header, after=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return wire.MAGIC + struct.pack("<Q", len(header)) + header + after


@given(PLAIN)
def test_plain_values_come_back_the_same(value):
    assert repr(received(sent(value))) == repr(value)  # repr: not-a-number is not equal to itself


@given(st.data())
def test_arrays_come_back_with_their_type_shape_and_bytes(data):
    kind = data.draw(st.sampled_from([*KINDS, "i1", "u1"]))
    array = data.draw(arrays.arrays(kind, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
    back = received(sent({"weights": [array]}))["weights"][0]
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert back.flags.writeable
    assert back.flags.aligned


@pytest.mark.parametrize("view", [np.s_[::2], np.s_[::-1], np.s_[:, 1], np.s_[..., None, :1]])
def test_a_view_travels_as_what_it_shows(view):
    array = np.arange(24.0).reshape(4, 6)[view]
    np.testing.assert_array_equal(received(sent(array)), array)


def test_transposed_and_several_arrays_keep_their_order():
    first, second = np.arange(6).reshape(2, 3).T, np.arange(3.0)
    back = received(sent([first, b"between", second]))
    np.testing.assert_array_equal(back[0], first)
    assert back[1] == b"between"
    np.testing.assert_array_equal(back[2], second)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        np.array([object()]),
        np.array(["text"]),
        np.array(["2020"], dtype="datetime64[Y]"),
        np.zeros(2, dtype=[("a", "f4")]),
        np.ma.masked_array([1.0]),
        np.float32(1),
        {1.5: 0},
        {True: 0},
        {2**53: 0},
        (n for n in range(3)),
        len,
    ],
    ids=lambda value: type(value).__name__,
)
def test_nothing_but_plain_data_is_sent(value):
    with pytest.raises(TypeError):
        wire.message([value])


def test_what_is_nested_without_end_is_not_sent():
    value = []
    value.append(value)
    with pytest.raises(TypeError, match="nested"):
        wire.message(value)


def nested(depth):
    return b'["list",' * depth + b"1" + b"]" * depth


GARBAGE = {
    "nothing": b"",
    "text": b"Segmentation fault\n",
    "magic alone": wire.MAGIC,
    "half a length": wire.MAGIC + b"\x01\x00",
    "a length of 16 exabytes": wire.MAGIC + b"\xff" * 8,
    "a header that ends early": with_header([1])[:-1],
    "no JSON": with_header(b"\x80\x04K\x01."),
    "not UTF-8": with_header(b'"\xff"'),
    "an object": with_header({"a": 1}),
    "an object inside": with_header(["list", {"a": 1}]),
    "an empty list": with_header([]),
    "an unknown kind": with_header(["pickle", 4], b"\x80\x04K\x01"),
    "a kind that is no text": with_header([1, 2]),
    "a negative length": with_header(["bytes", -1], b"x"),
    "a length that is no number": with_header(["bytes", "9"], b"x" * 9),
    "a length of True": with_header(["bytes", True], b"x"),
    "a broken length": with_header(["bytes", 1.0], b"x"),
    "more than is left": with_header(["bytes", 4], b"xxx"),
    "more than it may": with_header(["bytes", 1 << 40]),
    "too much in pieces": with_header(["list", *[["bytes", 600_000]] * 2], b"x" * 1_200_000),
    "a number of 5000 digits": with_header(b'["bytes",' + b"9" * 5000 + b"]"),
    "a tower of lists": with_header(nested(300)),
    "a tower beyond the parser": with_header(nested(200_000)),
    "a path that is no text": with_header(["path", 3]),
    "a dictionary without values": with_header(["dict", ["a"]]),
    "a key twice": with_header(["dict", ["a", "a"], 1, 2]),
    "a key that is a list": with_header(["dict", [["a"]], 1]),
    "a key that is huge": with_header(["dict", [2**61 - 1], 1]),
    "an array of objects": with_header(["array", "|O", [1]], b"x" * 8),
    "an array of records": with_header(["array", "f4,f4", [1]], b"x" * 8),
    "an array of text": with_header(["array", "<U1", [1]], b"x" * 4),
    "an array of no type": with_header(["array", "", [1]], b"x" * 8),
    "an array of quads": with_header(["array", "<f16", [1]], b"x" * 16),
    "an array of wide truth": with_header(["array", "|b9", [1]], b"x" * 9),
    "an array of untrue truth": with_header(["array", "|b1", [1]], b"\x07"),
    "a negative side": with_header(["array", "<f4", [-1, -4]], b"x" * 16),
    "a broken side": with_header(["array", "<f4", [1.0]], b"x" * 4),
    "a side of True": with_header(["array", "<f4", [True]], b"x" * 4),
    "a side of no number": with_header(["array", "<f4", ["1"]], b"x" * 4),
    "sides that overflow": with_header(["array", "<f4", [1 << 39] * 8]),
    "nothing, of absurd sides": with_header(["array", "<f4", [0, *[1 << 39] * 8]]),
    "too many sides": with_header(["array", "<f4", [1] * 33], b"x" * 4),
    "an array that ends early": with_header(["array", "<f4", [4]], b"x" * 15),
}


@pytest.mark.parametrize("raw", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_known_as_garbage(raw):
    with pytest.raises(wire.Garbage) as caught:
        received(raw)
    assert str(caught.value)


def test_a_header_is_not_read_beyond_its_limit():
    stream = io.BytesIO(with_header(b" " * (wire.HEADER_BYTES + 1)))
    with pytest.raises(wire.Garbage, match="header has"):
        wire.receive(stream, 1)
    assert stream.tell() == len(wire.MAGIC) + 8


def test_keys_made_to_collide_cost_no_time():
    keys = [n << 33 for n in range(100_000)]
    started = time.perf_counter()
    assert len(received(with_header(["dict", keys, *keys]))) == len(keys)
    assert time.perf_counter() - started < 5


GOOD = sent(
    {"weights": [np.arange(12.0).reshape(3, 4), np.zeros((0, 2), ">i4")], "name": "conv", "raw": b"123", "n": 7}
)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_flipped_bytes_are_garbage_or_still_plain(flips):
    raw = bytearray(GOOD)
    for place, byte in flips:
        raw[place] = byte
    try:
        value = received(bytes(raw))
    except wire.Garbage:
        return
    wire.message(value)  # whatever came is plain, or this refuses it


@given(st.integers(0, len(GOOD) - 1))
def test_every_truncation_is_garbage(length):
    with pytest.raises(wire.Garbage):
        received(GOOD[:length])


@given(st.binary(max_size=200))
def test_noise_is_garbage(noise):
    with pytest.raises(wire.Garbage):
        received(with_header(noise) if math.prod(noise[:1] or b"\0") % 2 and not _is_json(noise) else noise)


def _is_json(noise):
    try:
        json.loads(noise)
    except ValueError:
        return False
    return True
