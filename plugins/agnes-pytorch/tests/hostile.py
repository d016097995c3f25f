"""Files that would do harm if they were run: each would leave a marker, and none does anything worse."""

from __future__ import annotations

import os
import pickle
import struct
import warnings
import zipfile
import zlib

import numpy as np
import torch
from torch import nn

MARKER = "agnes-was-here"


class Runs:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def touching(folder):
    """What touches the marker when it is unpickled."""
    return Runs(os.system, f"touch {folder / MARKER}")


def saved(thing, path, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(thing, path, **how)
    return path


def plain(**more):
    return {"a": torch.arange(4.0), "b": torch.ones(2, 3), **more}


def in_zip(path, thing):
    return saved(thing, path)


def pickled(path, thing, protocol=2):
    path.write_bytes(pickle.dumps(thing, protocol))
    return path


def parts(path):
    """The members of a zip file and their bytes."""
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def zipped(path, members, method=zipfile.ZIP_STORED, comment=b""):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a name comes twice
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in members:
                archive.writestr(zipfile.ZipInfo(name), data, compress_type=method)
            archive.comment = comment
    return path


def rezipped(path, change=None, extra=(), **how):
    """A good file of weights, written again with its members changed."""
    members = parts(saved(plain(), path))
    if change is not None:
        members = {name: change(name, data) for name, data in members.items()}
    return zipped(path, [*members.items(), *extra], **how)


def with_pickle(path, data):
    return rezipped(path, lambda name, old: data if name.endswith("/data.pkl") else old)


def edited(path, old, new, count=1):
    """A good file of weights in whose bytes something is replaced."""
    saved(plain(), path)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, count))
    return path


def old_pickles(path, *, system=None, thing=None, keys=()):
    """A file as torch.save wrote it before 1.6, pickle by pickle."""
    told = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}} if system is None else system
    start = [0x1950A86A20F9469CFC6C, 1001, told, plain() if thing is None else thing, list(keys)]
    path.write_bytes(b"".join(pickle.dumps(each, 2) for each in start))
    return path


def block(kind=b"Float", key=b"0", count=4):
    """The steps that ask for one block of numbers."""
    text = b"X" + struct.pack("<I", len(key)) + key
    asked = b"(X\x07\0\0\0storagectorch\n" + kind + b"Storage\n" + text + b"X\x03\0\0\0cpu"
    return asked + (b"J" + struct.pack("<i", count) if isinstance(count, int) else count) + b"tQ"


def tensor(source=None, offset=0, shape=(4,), strides=(1,)):
    """The steps that make a tensor of a block."""
    numbers = [b"(" + b"".join(b"J" + struct.pack("<i", n) for n in each) + b"t" for each in (shape, strides)]
    start = b"ctorch._utils\n_rebuild_tensor_v2\n(" + (block() if source is None else source)
    return start + b"J" + struct.pack("<i", offset) + b"".join(numbers) + b"\x89ccollections\nOrderedDict\n)RtR"


def weights(value):
    """The pickle of a dictionary of one value."""
    return b"\x80\x02}X\x01\0\0\0a" + value + b"s."


def damaged(path):
    saved(plain(), path)
    data = bytearray(path.read_bytes())
    data[data.index(np.arange(4, dtype="<f4").tobytes()) + 5] ^= 64
    path.write_bytes(data)
    return path


def script(path, write_to=None):
    """A TorchScript program; where a place is given, one that writes there when it runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
        program = torch.jit.script(model if write_to is None else Writes(str(write_to)))
        torch.jit.save(program, path)
    return path


class Writes(nn.Module):
    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place
        self.linear = nn.Linear(192, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.place)
        return self.linear(x.flatten(1))


def exported(path, batch=2, **dynamic):
    """A program of torch.export."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        torch.export.save(torch.export.export(model.eval(), (torch.rand(batch, 3, 8, 8),), **dynamic), path)
    return path


def deep(folder):
    return with_pickle(folder / "m.pt", weights(b"]" * 200_000 + b"a" * 199_999))


def listed(folder, count):
    path = zipped(folder / "m.pt", parts(saved(plain(), folder / "m.pt")).items())
    data = bytearray(path.read_bytes())
    data[-14:-10] = struct.pack("<2H", count, count)
    path.write_bytes(data)
    return path


def gap(folder):
    """A zip file with bytes between its members and its list."""
    path = zipped(folder / "m.pt", parts(saved(plain(), folder / "m.pt")).items())
    data = path.read_bytes()
    start = struct.unpack("<I", data[-6:-2])[0]
    path.write_bytes(data[:start] + b"hidden" + data[start:-6] + struct.pack("<IH", start + 6, 0))
    return path


def unsummed(folder):
    """A zip file whose checksums are left out, as torch can be told to."""
    saved(plain(), folder / "m.pt")
    data, crc = (folder / "m.pt").read_bytes(), zlib.crc32(b"little")
    (folder / "m.pt").write_bytes(data.replace(struct.pack("<I", crc), bytes(4)))
    return folder / "m.pt"


def packaged(folder):
    with torch.package.PackageExporter(folder / "m.pt") as package:
        package.save_pickle("model", "model.pkl", {"a": 1})
    return folder / "m.pt"


def shared():
    """Many names of one block."""
    block = torch.zeros(2000)
    return {f"k{i}": block for i in range(9)}


def sparse():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.eye(3).to_sparse()


def scaled():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.quint8)


def written(path, data):
    path.write_bytes(data)
    return path


def cut(path, length):
    return written(path, path.read_bytes()[:length])


def prepend(path, data):
    return written(path, data + path.read_bytes())


def append(path, data, in_place_of_the_object=None):
    """More bytes at the end; or another fourth pickle in an old file that holds an empty dictionary."""
    if in_place_of_the_object is not None:
        return written(path, path.read_bytes().replace(pickle.dumps({}, 2), in_place_of_the_object))
    return written(path, path.read_bytes() + data)
