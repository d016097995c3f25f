"""Checks of what opens and writes model files."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from agnes.calling import call
from agnes.errors import AgnesError, Refused
from agnes.loading import LoadOptions, open_model
from agnes.network import Network
from agnes.registry import Registry
from agnes.testing.inputs import tiny_network
from agnes.testing.method_checks import MethodChecks
from agnes.testing.watching import differences, network_facts


class _Hostile:
    """Unpickled, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


class LoaderChecks(MethodChecks):
    """Write one good file in `good`; say in `options` what a user must say to have it opened."""

    stage = "loader"
    options: LoadOptions = LoadOptions()

    def good(self, folder: Path) -> Path:
        """Write a model that the loader opens into the folder, and return its path."""
        raise NotImplementedError("write a model file of your format into the folder and return its path")

    def open(self, path: Path) -> Network | None:
        """The loader, called as the engine calls it."""
        return call("load", self.name(), self.method, path=path, options=self.options)

    def opened(self, folder: Path) -> Network:
        """The network of the good file."""
        path = self.good(folder)
        network = self.open(path)
        assert isinstance(network, Network), f"{self.name()} gives {network!r} for its own {path.name}"
        return network

    def test_it_opens_a_good_file(self, tmp_path: Path) -> None:
        network = self.opened(tmp_path)
        logits = network(_noise(network))
        assert logits.shape == (4, network.class_count)
        assert bool(logits.isfinite().all()), "the logits are not all numbers"
        training = [name for name, part in network.module.named_modules() if part.training]
        assert not training, f"the network is in training mode at '{training[0]}'; call eval()"
        assert network.layers, "the network has no layer that can be read"

    def test_the_same_file_gives_the_same_logits(self, tmp_path: Path) -> None:
        first = self.opened(tmp_path)
        second = self.open(self.good(tmp_path))
        assert second is not None
        images = _noise(first)
        assert torch.equal(first(images), first(images)), "the same network gives other logits the second time"
        assert torch.equal(first(images), second(images)), "the same file gives another network the second time"

    def test_an_image_is_classified_alike_alone_and_among_others(self, tmp_path: Path) -> None:
        network = self.opened(tmp_path)
        images = _noise(network)
        alone = torch.cat([network(image[None]) for image in images])
        torch.testing.assert_close(alone, network(images), rtol=1e-4, atol=1e-5)

    def test_the_file_and_its_folder_are_left_as_they_were(self, tmp_path: Path) -> None:
        path = self.good(tmp_path)
        before = _contents(tmp_path)
        self.open(path)
        assert not differences(before, _contents(tmp_path)), (
            f"{self.name()} wrote beside the file; use a temporary folder"
        )

    @pytest.mark.parametrize("suffix", [".agnes-unknown", ".txt", ""])
    def test_a_foreign_file_is_left_to_others(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"foreign{suffix}"
        path.write_bytes(b"this is no model\n" * 20)
        assert _answer(self.open, path) is None, f"{self.name()} claims to open what is no model"

    def test_a_broken_file_is_refused_and_never_crashes(self, tmp_path: Path) -> None:
        good = self.good(tmp_path)
        if good.is_dir():
            pytest.skip("the format is a folder")
        content = good.read_bytes()
        middle = len(content) // 2
        for number, broken in enumerate(
            (b"\x00" * 64, random.Random(0).randbytes(512), content[:middle], content[:40])
        ):
            path = tmp_path / f"broken{number}{good.suffix}"
            path.write_bytes(broken)
            assert _answer(self.open, path) is None, f"{self.name()} opens a broken file"

    @pytest.mark.parametrize("kind", ["pickle", "torch", "zip"])
    def test_code_hidden_in_a_file_is_not_run(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / f"hostile{self.good(tmp_path).suffix}"
        mark = tmp_path / "it-ran"
        content = pickle.dumps(_Hostile(mark))
        if kind == "pickle":
            path.write_bytes(content)
        elif kind == "torch":
            torch.save({"weights": _Hostile(mark)}, path)
        else:
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                archive.writestr("archive/data.pkl", content)
            path.write_bytes(packed.getvalue())
        assert _answer(self.open, path) is None, f"{self.name()} opens a pickle that is no model"
        assert not mark.exists(), f"{self.name()} ran code from a file; load weights only"


class ExporterChecks(MethodChecks):
    """Say in `suffix` what the format is called; a written file is opened as `agnes` opens it, or in `reopened`."""

    stage = "exporter"
    suffix: str = ""
    network_name: str = "plain"  # of agnes.testing.networks
    tolerance: float = 1e-4

    def reopened(self, path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
        """The written model as a function of images in [0, 1]; here: what an installed loader makes of it."""
        return open_model(path, LoadOptions(), Registry.discover()).network

    def export(self, network: Network, path: Path) -> Path | None:
        """The exporter, called as the engine calls it."""
        return call("export", self.name(), self.method, network=network, path=path)

    def test_it_writes_its_format(self, tmp_path: Path) -> None:
        assert self.suffix.startswith("."), f"set {type(self).__name__}.suffix, as in '.onnx'"
        path = tmp_path / f"model{self.suffix}"
        written = self.export(tiny_network(self.network_name), path)
        assert written is not None, f"{self.name()} writes no {self.suffix}"
        assert written.exists(), f"{self.name()} says that it wrote {written.name}, which is not there"
        assert written.parent == tmp_path, f"{self.name()} writes to {written.parent}"

    def test_what_it_writes_classifies_as_the_network_does(self, tmp_path: Path) -> None:
        network = tiny_network(self.network_name)
        written = self.export(network, tmp_path / f"model{self.suffix}")
        assert written is not None
        model, images = self.reopened(written), _noise(network)
        torch.testing.assert_close(model(images), network(images), rtol=self.tolerance, atol=self.tolerance)

    def test_a_foreign_suffix_is_left_to_others(self, tmp_path: Path) -> None:
        assert self.export(tiny_network(self.network_name), tmp_path / "model.agnes-unknown") is None
        assert not list(tmp_path.iterdir()), f"{self.name()} wrote for a suffix that is not its own"

    def test_the_network_is_left_as_it_was(self, tmp_path: Path) -> None:
        network = tiny_network(self.network_name)
        before = network_facts(network)
        self.export(network, tmp_path / f"model{self.suffix}")
        changed = differences(before, network_facts(network))
        assert not changed, f"{self.name()} changed {', '.join(changed)}; write a copy"


def _answer(open_file: Callable[[Path], Network | None], path: Path) -> Network | None:
    """What a loader says to a bad file: nothing, or a refusal with a reason."""
    try:
        return open_file(path)
    except Refused:
        return None
    except AgnesError as error:
        raise AssertionError(f"a bad file is answered with {type(error).__name__}, not Refused: {error}") from error


def _noise(network: Network) -> torch.Tensor:
    return torch.rand((4, *network.input_shape), generator=torch.Generator().manual_seed(0))


def _contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "a folder"
        for path in sorted(folder.rglob("*"))
    }
