"""What tests of hostile Keras and SavedModel files share."""

import contextlib
import resource
import time
import zipfile

import pytest

pytest.importorskip("agnes_tensorflow")
pytest.importorskip("h5py")

from agnes_tensorflow.loader import KerasLoader, SavedModelLoader

from agnes.errors import AgnesError, Refused
from agnes.loading import LoadOptions


def refused(path, match):
    """Loading a path fails soon, with one clean line that matches."""
    method = SavedModelLoader() if path.is_dir() else KerasLoader()
    with within_bounds(), pytest.raises(Refused, match=match) as caught:
        method.load(path, LoadOptions())
    text = str(caught.value)
    assert text.startswith("refused: ")
    assert text.isprintable(), repr(text)


@contextlib.contextmanager
def within_bounds():
    """What happens takes less than a minute, and no process of it more than 6 GiB."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 60
    for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        assert resource.getrusage(whose).ru_maxrss << 10 < 6 << 30


def members(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def zipped(path, content, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in content.items():
            file.writestr(zipfile.ZipInfo(name), data, method)
    return path


def layer(config, kind):
    return next(each for each in config["config"]["layers"] if each["class_name"] == kind)


def field(number, content):
    """A protobuf field of bytes."""
    length, size = len(content), b""
    while length > 0x7F:
        size, length = size + bytes([length & 0x7F | 0x80]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def answer(work, *arguments):
    """What it returns, or the error with a name that it raises."""
    try:
        return work(*arguments)
    except AgnesError as error:
        return error


def opens_or_refuses(path, folder):
    method = SavedModelLoader() if path.is_dir() else KerasLoader()
    before = sorted(folder.rglob("*"))
    with within_bounds():
        network = answer(method.load, path, LoadOptions())
    if isinstance(network, AgnesError):
        assert str(network).isprintable()
    else:
        assert network.facts["parity"]["relative"] < 1e-4
    assert sorted(folder.rglob("*")) == before
