import subprocess
import sys
import time

import hostile
import numpy as np
import pytest
import torch
from agnes_pytorch.pickle_loader import PickleLoader
from hostile_files import FILES

from agnes import confinement
from agnes.errors import Refused
from agnes.loading import LoadOptions

pytestmark = pytest.mark.usefixtures("register")


def opened(path, loader=PickleLoader(), **options):  # noqa: B008
    return loader.load(path, LoadOptions(**options))


def refusal(path, **options):
    with pytest.raises(Refused) as caught:
        opened(path, **options)
    return str(caught.value)


@pytest.mark.usefixtures("unconfined")
@pytest.mark.parametrize("case", FILES)
def test_a_hostile_or_broken_file_is_refused_in_one_plain_line(case, folder):
    make, words = FILES[case]
    path = make(folder)
    begun = time.monotonic()
    with pytest.raises(Refused, match=words) as caught:
        opened(path, arch="small")
    assert time.monotonic() - begun < 20
    said = str(caught.value)
    assert said.isprintable()
    assert said.startswith("refused: ")
    assert len(said) < 700


def test_these_files_would_do_it_elsewhere(folder):
    for case in ("os.makedirs", "before 1.6"):
        torch.load(FILES[case][0](folder), weights_only=False)
        marker = folder / hostile.MARKER
        marker.rmdir() if marker.is_dir() else marker.unlink()  # fails where it is not there


def test_what_the_child_finds_out_is_a_refusal_too(folder):
    path = FILES["a view of 64 GiB"][0](folder)
    assert "declares 17179869184 numbers" in refusal(path, arch="small")


def test_weights_beyond_the_memory_limit_are_said(folder, made):
    path = hostile.saved({"a": torch.zeros(1 << 26)}, folder / "m.pt")
    with pytest.raises(Refused, match=r"m\.pt took more than 0\.125 GiB of memory; .* raise memory of the loader"):
        opened(path, PickleLoader(memory=1 << 27), arch="small")


def test_files_beyond_the_size_limit_are_not_read(folder):
    for path in (
        hostile.saved(hostile.plain(), folder / "m.pt"),
        hostile.old_pickles(folder / "old.pt", thing={}),
    ):
        with pytest.raises(Refused, match=r"more than pytorch\.size_limit \(100\)"):
            opened(path, PickleLoader(size_limit=100))


GARBAGE = [
    None,
    7,
    {},
    {"above": [], "kinds": [], "arrays": {}},
    {"above": [], "kinds": [], "arrays": {"a": 1}},
    {"above": [], "kinds": [], "arrays": {1: np.zeros(1)}},
    {"above": [], "kinds": [], "arrays": {"a": np.zeros(1, ">f4")}},
    {"above": [], "kinds": [], "arrays": {"a": np.zeros(1, "c8")}},
    {"above": [], "kinds": 5, "arrays": {"a": np.zeros(1)}},
    {"onnx": b"", "logits": None, "shape": [3, 8, 8]},
    {"onnx": b"x", "logits": np.zeros((4, 5)), "shape": [3, 8, 8, 9]},
    {"onnx": "x", "logits": np.zeros((4, 5)), "shape": [3, 8, 8]},
]


@pytest.mark.parametrize("answer", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize("trust", [False, True])
def test_an_answer_of_a_child_that_was_taken_over_is_not_believed(answer, trust, folder, monkeypatch):
    monkeypatch.setattr(confinement, "run", lambda *_, **__: answer)
    path = hostile.saved(torch.nn.ReLU() if trust else hostile.plain(), folder / "m.pt")
    with pytest.raises(Refused, match=r"m\.pt made the child process answer with garbage"):
        opened(path, trust_model_code=trust, input_shape=(3, 8, 8))


def test_the_command_says_one_line_and_leaves_with_3(folder):
    path = FILES["a name with escape codes"][0](folder).rename(folder / "m\x1b[31m\n.pt")
    command = [sys.executable, "-m", "agnes", "inspect", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder)
    assert done.returncode == 3
    said = done.stdout + done.stderr
    assert "would import '[31mos.sys]0;tem'" in " ".join(said.split())
    assert "Traceback" not in said
    assert "\x1b" not in said
