"""Images kept on disk."""

import os
from pathlib import Path

import numpy as np
import pytest
from agnes_zoo.data import cache
from agnes_zoo.data.cache import folder, kept


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("AGNES_CACHE", str(tmp_path))
    return tmp_path


class Drawer:
    """Draws four images, and counts how often it had to."""

    def __init__(self, value=7):
        self.value, self.calls = value, 0

    def __call__(self):
        self.calls += 1
        return np.full((4, 8, 8, 3), self.value, np.uint8), np.arange(4, dtype=np.int64)


def files(place):
    return sorted(path for path in place.rglob("*") if path.is_file())


def test_what_is_kept_is_drawn_once_and_stays_the_same(place):
    draw = Drawer()
    first, again = kept("a", draw), kept("a", draw)
    assert draw.calls == 1
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one, other)
        assert one.dtype == other.dtype
    assert [path.suffix for path in files(place)] == [".npz"]


def test_another_key_is_another_file(place):
    one, other = kept("a", Drawer(1)), kept("b", Drawer(2))
    assert (one[0][0, 0, 0, 0], other[0][0, 0, 0, 0]) == (1, 2)
    assert len(files(place)) == 2


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def forged(path):
    images, labels = Drawer(9)()
    np.savez(path, images=images, labels=labels, digest=np.array("0" * 64))


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        forged,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_text("not an archive"),
        lambda path: np.savez(path, other=np.zeros(3)),
        lambda path: np.savez(path, images=np.array([object()], dtype=object), labels=np.zeros(1), digest=np.array("")),
    ],
    ids=["flipped", "forged", "empty", "short", "text", "other", "objects"],
)
def test_a_damaged_file_is_drawn_anew_and_mended(place, damage):
    draw = Drawer()
    kept("a", draw)
    damage(files(place)[0])
    assert np.array_equal(kept("a", draw)[0], draw()[0])
    assert draw.calls == 3
    kept("a", draw)
    assert draw.calls == 3


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("AGNES_CACHE", str(tmp_path / "file"))
    draw = Drawer()
    assert kept("a", draw)[0].shape == kept("a", draw)[0].shape == (4, 8, 8, 3)
    assert draw.calls == 2


def test_nothing_is_left_behind_when_writing_fails(place, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert len(kept("a", Drawer())[1]) == 4
    assert files(place) == []


def test_an_empty_variable_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("AGNES_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    draw = Drawer()
    kept("a", draw)
    kept("a", draw)
    assert draw.calls == 2
    assert files(tmp_path) == []


def test_the_folder_is_the_user_s_unless_the_variable_names_another(monkeypatch):
    for name in ("AGNES_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    assert folder() == Path.home() / ".cache" / "agnes"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert folder() == Path("/elsewhere/agnes")
    monkeypatch.setenv("AGNES_CACHE", "/named")
    assert folder() == Path("/named")


def test_the_files_longest_unused_make_room(place, monkeypatch):
    for age, key in enumerate("abc"):
        before = set(files(place))
        kept(key, Drawer())
        (new,) = set(files(place)) - before
        os.utime(new, (1000 + age, 1000 + age))
    size = files(place)[0].stat().st_size
    drawers = {key: Drawer() for key in "abcd"}
    kept("a", drawers["a"])  # used again: now "b" is the oldest
    monkeypatch.setattr(cache, "MOST_BYTES", 3 * size)
    kept("d", drawers["d"])
    for key in "acd":
        kept(key, drawers[key])
    assert [drawers[key].calls for key in "acd"] == [0, 0, 1]
    kept("b", drawers["b"])
    assert drawers["b"].calls == 1
