"""Models by their address on a hub, against a server of our own; no test leaves this machine."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import fakes
import hub_server
import numpy as np
import pytest
import torch
from hub_server import COMMIT, OLDER, Repository

from agnes import api, cli, hub
from agnes.errors import AgnesError, NothingApplicable, Refused, UsageError
from agnes.loading import LoadOptions, open_model

pytest.importorskip("huggingface_hub")

NAMES = [f"sign {i}" for i in range(fakes.CLASSES)]


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A hub at work, empty, and a cache for what comes from it."""
    from huggingface_hub import constants

    with hub_server.running() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
        yield running


@pytest.fixture
def holds(server):
    """Gives the repository org/name these files, by name."""

    def set_up(*names, contents=None, **claims):
        files = {name: f"what {name} holds".encode() for name in names} | (contents or {})
        server.repositories["org/name"] = Repository(files, **claims)
        return server

    return set_up


def fetched(address):
    return hub.fetch(address).path


@pytest.mark.parametrize(
    ("typed", "repository", "revision", "file"),
    [
        ("hf://org/name", "org/name", None, None),
        ("hf:/org/name", "org/name", None, None),
        ("hf://or-g/na.me_1/model.onnx", "or-g/na.me_1", None, "model.onnx"),
        ("hf://org/name@v1.0/a/b.onnx", "org/name", "v1.0", "a/b.onnx"),
        (f"hf://org/name@{COMMIT}", "org/name", COMMIT, None),
        ("hf://org/name@refs/pr/3/m.onnx", "org/name", "refs/pr/3", "m.onnx"),
    ],
)
def test_an_address_names_a_repository_and_maybe_a_revision_and_a_file(typed, repository, revision, file):
    address = hub.parse(typed)
    assert (address.repository, address.revision, address.file) == (repository, revision, file)
    assert hub.parse(str(address)) == address


@pytest.mark.parametrize(
    "typed",
    ["hf://", "hf://org", "hf://org/na me", "hf://org/name/../x.onnx", "hf://org/name/a//b", "hf://org/name@/m.onnx",
     "hf://org/name@a b/m.onnx", "hf://org/name/\x1b[2J.onnx", "hf://../../etc/passwd/.."],
)  # fmt: skip
def test_what_is_no_address_is_said(typed):
    with pytest.raises(UsageError, match="is no address of a model; write hf://org/name") as caught:
        hub.parse(typed)
    assert str(caught.value).isprintable()


def test_a_path_is_no_address(tmp_path):
    assert not any(map(hub.is_address, ("model.onnx", "/hf:/x", "hf", tmp_path, "./hf://org/name")))


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["a.txt", "m.onnx", "m.safetensors", "m.pt"], "m.safetensors"),
        (["README.md", "onnx/m.onnx", "m.keras", "pytorch_model.bin"], "onnx/m.onnx"),
        (["m.h5", "m.pth"], "m.h5"),
        (["M.PT", "modeling.py"], "M.PT"),
    ],
)
def test_the_safest_format_of_a_repository_is_opened(names, chosen, holds):
    server = holds(*names)
    assert fetched("hf://org/name").read_bytes() == f"what {chosen} holds".encode()
    assert server.fetched == [chosen]


def test_a_file_that_is_named_is_the_one_that_is_opened(holds):
    server = holds("m.safetensors", "a/m.onnx", "a/x.onnx")
    path = fetched("hf://org/name/a/x.onnx")
    assert path.name == "x.onnx"
    assert not path.is_symlink()
    assert server.fetched == ["a/x.onnx"]


def test_the_data_beside_an_onnx_file_comes_with_it_and_nothing_else_does(holds):
    data = ["a/m.onnx.data", "a/m.onnx_data", "a/m.onnx_data_1", "a/m.data"]
    server = holds("a/m.onnx", *data, "a/other.onnx.data", "m.onnx.data", "a/m.onnx.py", "a/x.bin", "a/b/m.onnx.data")
    path = fetched("hf://org/name/a/m.onnx")
    assert sorted(server.fetched) == sorted(["a/m.onnx", *data])
    assert {file.name for file in path.parent.iterdir() if file.is_file()} == {"m.onnx", *(d[2:] for d in data)}


def test_files_of_one_format_want_one_named(holds):
    server = holds("a.onnx", "b.onnx", "c.pt")
    with pytest.raises(Refused, match=r"holds 2 such files: a\.onnx, b\.onnx; name one, as in hf://org/name/a\.onnx"):
        fetched("hf://org/name")
    assert server.fetched == []


def test_many_files_are_named_in_part(holds):
    holds(*(f"model-{i:02}.safetensors" for i in range(30)))
    with pytest.raises(Refused, match=r"holds 30 such files: .*model-07\.safetensors and 22 more; name one"):
        fetched("hf://org/name")


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        ("hf://org/other", UsageError, "there is no model org/other on the hub, or it is private"),
        ("hf://org/name@v9", UsageError, "org/name has no revision 'v9'"),
        ("hf://org/name/m.keras", UsageError, r"org/name has no file 'm\.keras'; there is m\.onnx"),
        ("hf://org/name/x.py", Refused, r"refused: hf://org/name/x\.py is code, and AGNES does not fetch code"),
        ("hf://org/name/lib.SO", Refused, "is code"),
    ],
)
def test_what_is_not_there_or_is_code_is_said_in_one_line(address, error, words, holds):
    server = holds("m.onnx", "x.py")
    with pytest.raises(error, match=words) as caught:
        fetched(address)
    assert str(caught.value).isprintable()
    assert server.fetched == []


def test_a_repository_without_a_model_is_said(holds):
    holds("README.md", "modeling.py", "model.gguf")
    with pytest.raises(NothingApplicable, match=r"org/name holds no model file that AGNES opens$"):
        fetched("hf://org/name")


@pytest.mark.parametrize(
    ("told", "error", "words"),
    [
        ((403, "GatedRepo"), UsageError, "is gated: ask for access on its page, then log in with `hf auth login`"),
        ((401, "RepoNotFound"), UsageError, "or it is private; check the name, or log in"),
        ((418, "Teapot"), AgnesError, "the hub answered with 418"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_line(told, error, words, holds):
    holds("m.onnx", error=told)
    with pytest.raises(error, match=words) as caught:
        fetched("hf://org/name")
    assert str(caught.value).isprintable()


def test_no_connection_is_said_in_one_line(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(AgnesError, match=r"hf://org/name cannot be fetched: \w+: .*; check the connection, or give"):
        fetched("hf://org/name")


def test_offline_mode_is_said(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(AgnesError, match="cannot be fetched: HF_HUB_OFFLINE is set; give the path of a file"):
        fetched("hf://org/name")


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(NothingApplicable, match=r"pip install 'agnes-scan\[hub\]'"):
        fetched("hf://org/name")


def test_a_file_beyond_the_limit_is_not_fetched(holds):
    server = holds("m.onnx", "m.onnx.data", sizes={"m.onnx.data": hub.FILE_LIMIT})
    with pytest.raises(Refused, match=r"m\.onnx has 20000000\d\d bytes, more than 2000000000"):
        fetched("hf://org/name")
    assert server.fetched == []


@pytest.mark.parametrize(
    ("claims", "error", "words"),
    [
        ({"sizes": {"m.onnx": 3}}, Refused, r"m\.onnx is larger than the 3 bytes that the hub lists"),
        ({"sizes": {"m.onnx": 999}}, Refused, "is not of the 999 bytes"),
        ({"sizes": {"m.onnx": None}}, AgnesError, r"does not say how large m\.onnx is"),
        ({"hashes": {"m.onnx": "0" * 64}}, Refused, r"m\.onnx has not the hash that the hub lists"),
    ],
)
def test_what_comes_must_be_what_was_listed(claims, error, words, holds):
    holds("m.onnx", **claims)
    with pytest.raises(error, match=words):
        fetched("hf://org/name")


def test_names_that_lead_elsewhere_are_not_there(holds, tmp_path):
    server = holds("../m.onnx", "/m.onnx", "a/../../m.onnx", "a\\m.onnx", "C:m.onnx", "\x1b[2J.onnx", "good.onnx")
    assert fetched("hf://org/name").name == "good.onnx"
    assert server.fetched == ["good.onnx"]
    with pytest.raises(UsageError, match="has no file"):
        fetched("hf://org/name/C:m.onnx")


def test_a_revision_is_pinned_and_a_commit_is_fetched_once(holds):
    server = holds("m.onnx", older={"m.onnx": b"older"})
    found = hub.fetch("hf://org/name@v1")
    assert found.path.read_bytes() == b"older"
    assert (found.commit, str(found.address)) == (OLDER, f"hf://org/name@{OLDER}/m.onnx")
    assert hub.fetch("hf://org/name").path.read_bytes() == b"what m.onnx holds"
    count = len(server.fetched)
    assert hub.fetch(str(found.address)).path == found.path
    assert len(server.fetched) == count


def config(**labels):
    return {"config.json": json.dumps({"id2label": labels}).encode()}


def model(**more):
    return {"m.fake": b"0", **more}


def opened(monkeypatch, address="hf://org/name", **options):
    monkeypatch.setattr(hub, "PREFERENCE", ((".fake",),))
    return open_model(Path(address), LoadOptions(**options), fakes.registry(*fakes.whole_house()))


def test_the_report_knows_the_address_and_the_commit(holds, monkeypatch):
    holds(contents=model())
    facts = opened(monkeypatch).facts
    assert facts["address"] == f"hf://org/name@{COMMIT}/m.fake"
    assert facts["commit"] == COMMIT
    assert facts["name"] == "m.fake"
    assert len(facts["sha256"]) == 64


def test_class_names_come_from_the_configuration_beside_the_file(holds, monkeypatch):
    holds(contents=model(**config(**{str(i): name for i, name in enumerate(NAMES)})))
    found = opened(monkeypatch)
    assert list(found.network.class_names) == found.facts["class_names"] == found.network.facts["class_names"] == NAMES
    told = tuple("abcdefgh")
    assert opened(monkeypatch, class_names=told).facts["class_names"] != NAMES


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"id2label": 5}', b'{"id2label": {"0": "a"}}',
        b'{"id2label": {"a": "b"}}', b'{"id2label": {"0": 1, "1": 2}}', b" " * 1_000_001,
    ],
)  # fmt: skip
def test_a_configuration_that_tells_no_names_changes_nothing(text, holds, monkeypatch):
    holds(contents=model(**{"config.json": text}))
    assert opened(monkeypatch).network.class_names[0] == "class 0"


def test_names_of_classes_lose_their_escape_codes(holds, monkeypatch):
    holds(contents=model(**config(**{str(i): f"\x1b[31m{i}\n" for i in range(fakes.CLASSES)})))
    assert opened(monkeypatch).network.class_names[0] == "[31m0"


def test_the_commands_and_python_take_addresses(holds, monkeypatch, tmp_path, capsys):
    holds(contents=model())
    monkeypatch.setattr(hub, "PREFERENCE", ((".fake",),))
    monkeypatch.chdir(tmp_path)
    images = fakes.images_file(tmp_path)
    with fakes.installed(*fakes.whole_house()):
        assert cli.invoke(["inspect", "hf://org/name"]) == 0
        assert f"hf://org/name@{COMMIT}/m.fake" in capsys.readouterr().out
        assert cli.invoke(["run", "hf://org/name@main/m.fake", "--data", str(images), "--quiet"]) == 1
        report = json.loads((tmp_path / "runs" / "m" / "report.json").read_text())
        assert report["model"]["commit"] == COMMIT
        assert (tmp_path / "runs" / "m" / "repaired.fake").exists()
        assert api.scan("hf://org/name", images).model["address"].endswith("/m.fake")
        assert cli.invoke(["inspect", "hf://org/nowhere"]) == 4
    assert capsys.readouterr().err.endswith("or log in with `hf auth login`\n")


def test_the_command_by_itself_speaks_to_the_hub_that_is_set(holds, server, tmp_path):
    holds("m.onnx", "x.py")
    environment = {
        **os.environ,
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "h"),
        "HF_TOKEN": "",
        "HF_HUB_OFFLINE": "0",
    }
    done = subprocess.run(
        [sys.executable, "-m", "agnes", "inspect", "hf://org/name"],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert server.fetched == ["m.onnx"]
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("agnes: ")


def test_an_onnx_file_with_its_data_beside_it_is_opened(holds, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("agnes_onnx")
    weight = onnx.numpy_helper.from_array(np.eye(12, 5, dtype=np.float32), "w")
    nodes = [onnx.helper.make_node("Flatten", ["x"], ["f"]), onnx.helper.make_node("MatMul", ["f", "w"], ["y"])]
    source, target = (onnx.helper.make_tensor_value_info(n, 1, s) for n, s in (("x", ["n", 3, 2, 2]), ("y", None)))
    graph = onnx.helper.make_graph(nodes, "g", [source], [target], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    names = config(**{str(i): f"sign {i}" for i in range(5)})
    data = {f"onnx/{name}": (tmp_path / name).read_bytes() for name in ("m.onnx", "m.onnx.data")}
    holds(contents={**data, **names})
    network = api.open_network("hf://org/name")
    assert network.class_names == tuple(NAMES[:5])
    images = np.random.default_rng(0).random((2, 3, 2, 2), dtype=np.float32)
    assert np.allclose(network(torch.from_numpy(images)), images.reshape(2, 12)[:, :5], atol=1e-6)


PAGE = (Path(__file__).resolve().parents[1] / "docs" / "loading-hub.md").read_text(encoding="utf-8")


def test_the_commands_on_the_page_work(server, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(hub, "PREFERENCE", ((".fake", ".onnx"),))
    monkeypatch.setattr(fakes.FakeLoader, "load", fakes.hookimpl(lambda self, path: fakes.tiny_network()))
    monkeypatch.chdir(tmp_path)
    fakes.images_file(tmp_path).rename(tmp_path / "samples.npz")
    files = {"onnx/model.onnx": b"0"}
    server.repositories["org/name"] = Repository(files, {**files, "README.md": b"older"})
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)).splitlines()
    assert len(commands) >= 4
    with fakes.installed(*fakes.whole_house()):
        for line in commands:
            words = shlex.split(line.replace("samples/", "samples.npz").replace("@v1.0", "@v1"))
            assert cli.invoke(words[1:]) in ((0,) if "inspect" in line else (0, 1)), (line, capsys.readouterr().err)


def test_the_formats_and_the_limit_are_on_the_page():
    for group in hub.PREFERENCE:
        for suffix in group:
            assert f"`{suffix}`" in PAGE
    assert f"{hub.FILE_LIMIT:,}" in PAGE
