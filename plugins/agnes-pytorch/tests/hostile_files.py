"""What a stranger may send, and what is said of it."""

import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import torch
from hostile import (
    MARKER,
    Runs,
    append,
    block,
    cut,
    damaged,
    deep,
    edited,
    exported,
    gap,
    in_zip,
    listed,
    old_pickles,
    packaged,
    pickled,
    plain,
    prepend,
    rezipped,
    saved,
    scaled,
    script,
    shared,
    sparse,
    tensor,
    touching,
    unsummed,
    weights,
    with_pickle,
    written,
    zipped,
)
from torch import nn

NAMED = "would import '{}'. AGNES does not run code from model files. Ask for safetensors or ONNX, or, if you trust"
STEP = "is a Python pickle with the step {}, which no weights need"
CUT = "cut short, or no zip file as torch writes it"
OTHER = "is neither a zip file nor a pickle as torch.save writes them"

FILES = {  # what it is -> how it is made in a folder, and what the refusal says
    # imports and calls
    "os.system": (lambda f: in_zip(f / "m.pt", touching(f)), NAMED.format("posix.system")),
    "os.system among weights": (lambda f: in_zip(f / "m.pth", plain(c=touching(f))), NAMED.format("posix.system")),
    "os.makedirs": (lambda f: in_zip(f / "m.pt", Runs(os.makedirs, str(f / MARKER))), NAMED.format("os.makedirs")),
    "eval": (
        lambda f: in_zip(f / "m.pt", Runs(eval, f"open({str(f / MARKER)!r}, 'w')")),
        NAMED.format("__builtin__.eval"),
    ),
    "exec": (
        lambda f: in_zip(f / "m.pt", Runs(exec, f"open({str(f / MARKER)!r}, 'w')")),
        NAMED.format("__builtin__.exec"),
    ),
    "open": (lambda f: in_zip(f / "m.ckpt", Runs(open, str(f / MARKER), "w")), NAMED.format("io.open")),
    "Path.touch": (lambda f: in_zip(f / "m.pt", Runs(Path.touch, f / MARKER)), NAMED.format("__builtin__.getattr")),
    "torch.save": (
        lambda f: in_zip(f / "m.pt", Runs(torch.save, 1, str(f / MARKER))),
        NAMED.format("torch.serialization.save"),
    ),
    "numpy.ndarray.tofile": (
        lambda f: with_pickle(f / "m.pt", weights(b"cnumpy\nfromfile\n(X\x01\0\0\0atR")),
        NAMED.format("numpy.fromfile"),
    ),
    "torch.hub.load": (
        lambda f: with_pickle(f / "m.pt", weights(b"ctorch.hub\nload\n(X\x01\0\0\0atR")),
        NAMED.format("torch.hub.load"),
    ),
    "an import that is not called": (
        lambda f: with_pickle(f / "m.pt", weights(b"cposix\nsystem\n")),
        NAMED.format("posix.system"),
    ),
    "a name with escape codes": (
        lambda f: with_pickle(f / "m.pt", weights(b"c\x1b[31mos\nsys\x1b]0;tem\n(X\x01\0\0\0atR")),
        NAMED.format(r"\[31mos.sys\]0;tem"),
    ),
    "a name of a megabyte": (
        lambda f: with_pickle(f / "m.pt", weights(b"cos\n" + b"x" * 1_000_000 + b"\n")),
        "would import 'os.xxx",
    ),
    "a whole module": (lambda f: in_zip(f / "m.pt", nn.ReLU()), NAMED.format("torch.nn.modules.activation.ReLU")),
    "a class as a call": (
        lambda f: with_pickle(f / "m.pt", weights(b"ccollections\nOrderedDict\n)\x81")),
        STEP.format("NEWOBJ"),
    ),
    "INST": (lambda f: with_pickle(f / "m.pt", b"(X\x01\0\0\0aios\nsystem\n."), NAMED.format("os.system")),
    "an extension code": (lambda f: with_pickle(f / "m.pt", weights(b"\x82\x01")), STEP.format("EXT1")),
    "protocol 4 in a zip": (lambda f: saved(plain(), f / "m.pt", pickle_protocol=4), STEP.format("FRAME")),
    "protocol 4 that calls": (
        lambda f: saved(touching(f), f / "m.pt", pickle_protocol=4),
        NAMED.format("posix.system"),
    ),
    # old and foreign pickles
    "before 1.6": (
        lambda f: saved(touching(f), f / "m.pt", _use_new_zipfile_serialization=False),
        NAMED.format("posix.system"),
    ),
    "before 1.6, in its system": (lambda f: old_pickles(f / "m.pt", system=touching(f)), NAMED.format("posix.system")),
    "before 1.6, in its keys": (
        lambda f: old_pickles(f / "m.pt", thing={}, keys=[touching(f)]),
        NAMED.format("posix.system"),
    ),
    "before 1.6, in place of its version": (
        lambda f: pickled(f / "m.pt", 0x1950A86A20F9469CFC6C) and append(f / "m.pt", pickle.dumps(touching(f), 2)),
        NAMED.format("posix.system"),
    ),
    "before 1.6, another version": (
        lambda f: pickled(f / "m.pt", 0x1950A86A20F9469CFC6C) and append(f / "m.pt", pickle.dumps(1002, 2)),
        "is no file that torch.save wrote",
    ),
    "before 1.6, cut short": (lambda f: cut(old_pickles(f / "m.pt", thing={}), 60), "a broken pickle"),
    "before 1.6, a block beyond the end": (
        lambda f: append(old_pickles(f / "m.pt", thing={}, keys=["0"]), b"", weights(tensor(block(count=1 << 30)))),
        "declares more numbers than it holds",
    ),
    **{
        f"a pickle of protocol {protocol}": (
            lambda f, protocol=protocol: pickled(f / "m.pkl", touching(f), protocol),
            NAMED.format("posix.system"),
        )
        for protocol in range(6)
    },
    "a pickle of no harm": (lambda f: pickled(f / "m.pt", {"a": [1, 2]}), OTHER),
    "text": (lambda f: written(f / "m.pt", b"hello, this is text"), OTHER),
    "noise": (lambda f: written(f / "m.pth", bytes(range(256)) * 9), OTHER),
    # tensors that are not what they say
    "a view of 64 GiB": (
        lambda f: in_zip(f / "m.pt", {"a": torch.zeros(1).expand(1 << 34)}),
        "tensor 'a' in m.pt declares 17179869184 numbers, which the file does not hold one by one",
    ),
    "rows that overlap": (
        lambda f: in_zip(f / "m.pt", {"a": torch.zeros(8).as_strided((4, 4), (1, 1))}),
        "declares 4x4 numbers, which the file does not hold",
    ),
    "numbers with holes": (lambda f: in_zip(f / "m.pt", {"a": torch.zeros(9)[::2]}), "declares 5 numbers, which"),
    "a tensor beyond its block": (
        lambda f: with_pickle(f / "m.pt", weights(tensor(shape=(400,)))),
        "m.pt cannot be opened|declares 400 numbers",
    ),
    "a block that is larger than its member": (
        lambda f: with_pickle(f / "m.pt", weights(tensor(block(count=1 << 14)))),
        "declares 65536 bytes of numbers where it holds 16 bytes",
    ),
    "a block that is not there": (
        lambda f: with_pickle(f / "m.pt", weights(tensor(block(key=b"../7")))),
        "declares 16 bytes of numbers where it holds none",
    ),
    "a block of a negative size": (
        lambda f: with_pickle(f / "m.pt", weights(tensor(block(count=-4)))),
        "whose steps make no sense",
    ),
    "a block of a fraction": (
        lambda f: with_pickle(f / "m.pt", weights(tensor(block(count=b"G" + struct.pack(">d", 4.0))))),
        "whose steps make no sense",
    ),
    "many names of one block": (lambda f: in_zip(f / "m.pt", shared()), "declares more numbers than it holds"),
    "a sparse tensor": (lambda f: in_zip(f / "m.pt", plain(c=sparse())), r"_rebuild_sparse_tensor"),
    "a quantized tensor": (lambda f: in_zip(f / "m.pt", plain(c=scaled())), r"would import 'torch"),
    "a tensor of nothing": (
        lambda f: in_zip(f / "m.pt", plain(c=torch.empty(3, device="meta"))),
        "_rebuild_meta_tensor_no_storage",
    ),
    "complex numbers": (lambda f: in_zip(f / "m.pt", plain(c=torch.zeros(2, dtype=torch.complex64))), "ComplexFloat"),
    "a numpy number": (lambda f: in_zip(f / "m.pt", plain(c=np.float64(1))), r"would import 'numpy"),
    "a list": (lambda f: in_zip(f / "m.pt", [torch.zeros(1)]), "m.pt holds no state dict"),
    "nothing": (lambda f: in_zip(f / "m.pt", {}), "m.pt holds no state dict"),
    "a number among weights": (lambda f: in_zip(f / "m.pt", plain(c=4)), "'c' in m.pt is of type int and no tensor"),
    "a number as a name": (lambda f: in_zip(f / "m.pt", {7: torch.zeros(1)}), "a tensor whose name is no text"),
    "a name without end": (lambda f: in_zip(f / "m.pt", {"x" * 900: torch.zeros(1)}), "is no text, or too long"),
    "a dictionary that lies": (
        lambda f: in_zip(f / "m.pt", {"state_dict": {"model": {"net": {"weights": {"params": plain()}}}}}),
        "holds no state dict",
    ),
    "lists within lists": (deep, "cannot be opened|is of type list|holds no state dict"),
    "steps that take what is not there": (lambda f: with_pickle(f / "m.pt", b"\x80\x02s."), "make no sense"),
    "a memory that is empty": (lambda f: with_pickle(f / "m.pt", b"\x80\x02h\x07."), "make no sense"),
    "a pickle without end": (lambda f: with_pickle(f / "m.pt", b"\x80\x02}"), "a broken pickle, or one that does not"),
    "two pickles": (lambda f: with_pickle(f / "m.pt", b"\x80\x02}.\x80\x02}."), "bytes behind the end of its pickle"),
    "a giant pickle": (lambda f: with_pickle(f / "m.pt", b"\x80\x02" + b"N" * 5_000_000), "pytorch.pickle_limit"),
    # zip files that two readers read differently
    "data.pkl twice": (
        lambda f: rezipped(f / "m.pt", extra=[("m/data.pkl", pickle.dumps(touching(f), 2))]),
        "holds 'm/data.pkl' twice",
    ),
    "data.pkl in capitals": (
        lambda f: rezipped(f / "m.pt", extra=[("m/DATA.pkl", pickle.dumps(touching(f), 2))]),
        "holds 'm/DATA.pkl' twice",
    ),
    "no data.pkl": (lambda f: zipped(f / "m.pt", [("m/version", b"3")]), "holds no data.pkl"),
    "compressed": (lambda f: rezipped(f / "m.pt", method=zipfile.ZIP_DEFLATED), "is compressed"),
    "a zip bomb": (
        lambda f: zipped(f / "m.pt", [("m/data.pkl", bytes(50_000_000))], zipfile.ZIP_DEFLATED),
        "is compressed|pytorch.pickle_limit",
    ),
    "damaged numbers": (lambda f: damaged(f / "m.pt"), "'data/0' in m.pt is damaged, or saved without a checksum"),
    "no checksums": (unsummed, "'byteorder' in m.pt is damaged, or saved without a checksum"),
    "another name at its place": (
        lambda f: edited(f / "m.pt", b"m/data.pkl", b"m/data.pkx"),
        "one thing of 'm/data.pkl' in its list and another",
    ),
    "another size behind it": (
        lambda f: edited(f / "m.pt", b"PK\x07\x08", b"PK\x07\x09"),
        "one thing of 'm/data.pkl' in its list and another",
    ),
    "bytes before it": (lambda f: prepend(saved(plain(), f / "m.pt"), b"#!/bin/sh\n"), OTHER),
    "bytes behind it": (lambda f: append(saved(plain(), f / "m.pt"), b"more"), CUT),
    "a comment": (lambda f: rezipped(f / "m.pt", comment=b"hello"), CUT),
    "hidden bytes": (gap, "bytes that belong to none of its members"),
    "fewer members than it has": (lambda f: listed(f, 2), "list of members that does not fit"),
    "more members than it has": (lambda f: listed(f, 900), CUT),
    "the first half": (lambda f: cut(saved(plain(), f / "m.pt"), 700), CUT),
    "only its start": (lambda f: written(f / "m.pt", b"PK\x03\x04"), CUT),
    "two folders": (lambda f: rezipped(f / "m.pt", extra=[("n/data.pkl", b"")]), "members are not in one folder"),
    "no folder": (lambda f: zipped(f / "m.pt", [("data.pkl", b"")]), "members are not in one folder"),
    "a path that climbs": (lambda f: rezipped(f / "m.pt", extra=[("m/../../x", b"")]), "the odd name 'm/../../x'"),
    "a path from the root": (lambda f: rezipped(f / "m.pt", extra=[("/etc/x", b"")]), "the odd name '/etc/x'"),
    "a name with a newline": (lambda f: rezipped(f / "m.pt", extra=[("m/a\n\x1b[2J", b"")]), r"the odd name 'm/a\[2J'"),
    "a stranger among its members": (lambda f: rezipped(f / "m.pt", extra=[("m/x.so", b"")]), "holds 'x.so', which"),
    "the other byte order": (
        lambda f: rezipped(f / "m.pt", lambda name, data: b"big" if name == "m/byteorder" else data),
        "the other byte order",
    ),
    # programs
    "TorchScript": (lambda f: script(f / "m.pt"), "m.pt is a TorchScript program. AGNES does not run code"),
    "TorchScript that writes": (lambda f: script(f / "m.ts", f / MARKER), "m.ts is a TorchScript program"),
    "torch.export": (lambda f: exported(f / "m.pt2"), "m.pt2 is a program of torch.export. AGNES does not run code"),
    "torch.package": (packaged, "m.pt is a torch.package, which holds Python code"),
    "code among weights": (lambda f: rezipped(f / "m.pt", extra=[("m/code/x.py", b"")]), "is a TorchScript program"),
    "Python": (lambda f: written(f / "m.py", b"import os"), "m.py is Python code"),
}
