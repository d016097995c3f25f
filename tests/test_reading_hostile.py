"""Promises of read_samples: no hostile or damaged file gets through, and each leaves with one line."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import ZEROS, file, picture
from PIL import Image

from agnes.errors import AgnesError, Refused, UsageError
from agnes.reading import arrays, parts
from agnes.samples import read_samples


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def npy(shape, descr: str, body: bytes = b"") -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
    return out.getvalue() + body


def npz(path: Path, *members: tuple[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", packing) as file:
        for name, body in members:
            file.writestr(name, body)
    return path


def object_npz(path: Path) -> Path:
    np.savez(path / "x.npz", images=np.array([{"a": 1}, None], dtype=object))
    return path / "x.npz"


def repeated_npz(path: Path) -> Path:
    one = ("images.npy", npy((1, 4, 4), "|u1", bytes(16)))
    with pytest.warns(UserWarning, match="Duplicate name"):
        return npz(path / "x.npz", one, one)


def text_as_png(path: Path) -> Path:
    (path / "x.png").write_text("not a picture")
    return path / "x.png"


def truncated(path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path / "x.png")
    (path / "x.png").write_bytes((path / "x.png").read_bytes()[:3000])
    return path / "x.png"


def fifo(path: Path) -> Path:
    os.mkfifo(path / "x.png")
    return path


def device_link(path: Path) -> Path:
    (path / "x.png").symlink_to("/dev/zero")
    return path


def listed(row: str):
    def write(path: Path) -> Path:
        outside = picture(path / "outside.png")
        (path / "set").mkdir()
        (path / "set" / "link.png").symlink_to(outside)
        (path / "set" / "list.csv").write_text(f"path,label\n{row.replace('HERE', str(path))},0\n")
        return path / "set" / "list.csv"

    return write


def svg(path: Path) -> Path:
    (path / "x.png").write_bytes(b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/"/></svg>\n')
    return path / "x.png"


def eps(path: Path) -> Path:
    (path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    return path / "x.png"


HOSTILE = [
    ("objects in an npz", object_npz, Refused, "Python objects"),
    ("records in an npz", lambda p: npz(p / "x.npz", ("x.npy", npy((1,), "O"))), Refused, "Python objects"),
    ("a huge shape", lambda p: npz(p / "x.npz", ("x.npy", npy((10**6, 999, 999, 3), "|u1"))), Refused, "at most"),
    ("an absurd shape", lambda p: npz(p / "x.npz", ("x.npy", npy((10**30, 0), "|u1"))), UsageError, "absurd"),
    ("a shape it does not hold", lambda p: npz(p / "x.npz", ("x.npy", npy((9, 4, 4), "|u1"))), Refused, "stores 0"),
    ("an array twice", repeated_npz, Refused, "twice"),
    ("odd packing", lambda p: npz(p / "x.npz", ("x.npy", b""), packing=zipfile.ZIP_LZMA), Refused, "packed"),
    (
        "a header of code",
        lambda p: npz(p / "x.npz", ("x.npy", b"\x93NUMPY\x01\x00\x05\x00[]()(")),
        UsageError,
        "header",
    ),
    ("no zip", file("x.npz", b"PK nothing"), UsageError, "not a sound .npz"),
    ("177 MP declared", file("x.png", png_header(13300, 13300)), Refused, "million pixels"),
    ("26 MP declared", file("x.png", png_header(26000, 1000)), Refused, "26000x1000"),
    ("over Pillow's cap", file("x.png", png_header(30000, 30000)), Refused, "million pixels"),
    ("a fifo", fifo, Refused, "not a regular file"),
    ("a link to a device", device_link, Refused, "not a regular file"),
    ("climbing", listed("../outside.png"), Refused, "outside the list's folder"),
    ("absolute", listed("HERE/outside.png"), Refused, "outside the list's folder"),
    ("absolute, inside", listed("HERE/set/list.csv"), Refused, "outside the list's folder"),
    ("a drive", listed("C:\\x.png"), Refused, "outside the list's folder"),
    ("a link out", listed("link.png"), Refused, "outside the list's folder"),
    ("a null byte", listed("a\x00b.png"), UsageError, "not a path|not a CSV"),
    ("a missing file in a list", listed("gone.png"), UsageError, "no such file"),
    ("truncated", truncated, UsageError, "x.png: damaged image"),
    ("text", text_as_png, UsageError, "x.png: not an image"),
    ("PostScript", eps, UsageError, "x.png: not an image"),
    ("SVG", svg, UsageError, "x.png: not an image"),
    ("float pixels", file("x.ppm", b"Pf\n2 2\n-1.0\n" + bytes(16)), UsageError, "damaged image"),
]


@pytest.mark.parametrize(("write", "kind", "match"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_hostile_files_leave_with_one_line(tmp_path, write, kind, match):
    path = write(tmp_path)
    with pytest.raises(kind, match=match) as caught:
        read_samples(path, input_shape=(3, 8, 8) if path.suffix != ".npz" else None)
    assert len(str(caught.value).splitlines()) == 1


def test_a_bomb_is_refused_before_it_unfolds(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "BOMB_BYTES", 2**16)
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((100, 64, 64), np.uint8))
    with pytest.raises(Refused, match="packed into"):
        read_samples(tmp_path / "x.npz")


def test_damage_inside_a_zip_is_noticed(tmp_path):
    body = np.random.default_rng(0).integers(0, 256, 4 * 64 * 64, dtype=np.uint8).tobytes()
    path = npz(tmp_path / "x.npz", ("x.npy", npy((4, 64, 64), "|u1", body)), packing=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[5000] ^= 255
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"not a sound \.npz"):
        read_samples(path)


def test_an_image_far_too_large_on_disk_is_refused(tmp_path, monkeypatch):
    picture(tmp_path / "x.png")
    monkeypatch.setattr(parts.open_regular, "__defaults__", (10,))
    with pytest.raises(Refused, match="at most 10 bytes"):
        read_samples(tmp_path / "x.png")


def test_what_may_not_be_read_is_said(tmp_path, monkeypatch):
    picture(tmp_path / "x.png")

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(UsageError, match=r"x.png: cannot be read \(Permission denied\)"):
        read_samples(tmp_path / "x.png")


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ending=st.sampled_from([".png", ".jpg", ".npz", ".csv", ".ppm"]), cut=st.data())
def test_damage_anywhere_is_an_agnes_error_or_no_harm(tmp_path, ending, cut):
    path = tmp_path / f"x{ending}"
    if ending == ".npz":
        np.savez_compressed(path, images=ZEROS, labels=[0, 1])
    elif ending == ".csv":
        picture(tmp_path / "a.png")
        path.write_text("path,label\na.png,1\n")
    else:
        picture(path)
    content = bytearray(path.read_bytes())
    for _ in range(cut.draw(st.integers(1, 3))):
        content[cut.draw(st.integers(0, len(content) - 1))] = cut.draw(st.integers(0, 255))
    path.write_bytes(content[: cut.draw(st.integers(0, len(content)))])
    try:
        found = read_samples(path, input_shape=(3, 4, 5))
    except AgnesError as error:
        lines = str(error).splitlines()
    else:
        lines = [found.source]
        assert found.shape == (3, 4, 5)
    assert len(lines) == 1
