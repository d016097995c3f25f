import os
import time
import warnings

import hostile
import numpy as np
import pytest
import torch
from agnes_pytorch.pickle_loader import PickleLoader
from hostile_files import FILES
from torch import nn

from agnes import confinement, registry
from agnes.errors import NothingApplicable, Refused, UsageError
from agnes.loading import LoadOptions

pytestmark = pytest.mark.usefixtures("register")


def opened(path, loader=PickleLoader(), **options):  # noqa: B008
    return loader.load(path, LoadOptions(**options))


PROGRAMS = {  # how it is made, the format that is told of, the shape that has to be given
    "scripted": (lambda f, _: hostile.script(f / "m.pt"), "TorchScript", (3, 8, 8)),
    "exported": (lambda f, _: hostile.exported(f / "m.pt2"), "torch.export", None),
    "pickled whole": (lambda f, module: hostile.saved(module, f / "m.pth"), "pickled module", (3, 8, 8)),
}


@pytest.fixture
def module():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5), nn.Softmax(1))
        return nn.Sequential(*parts).eval()


@pytest.mark.parametrize("case", PROGRAMS)
def test_a_trusted_program_is_opened_by_way_of_onnx(case, module, folder):
    make, form, shape = PROGRAMS[case]
    network = opened(make(folder, module), trust_model_code=True, input_shape=shape)
    assert network.input_shape == (3, 8, 8)
    assert network.class_count == 5
    assert network.facts["format"] == form
    assert network.facts["by_way_of"] == "onnx"
    assert network.facts["trusted"] is True
    assert network.facts["parity"]["relative"] < 1e-5
    assert "batch_norm" in network.kinds
    assert network.peeled == ("softmax" if form == "pickled module" else None)
    images = torch.rand(3, 3, 8, 8, requires_grad=True)
    network(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0


@pytest.mark.usefixtures("unconfined")
def test_a_trusted_program_has_the_preprocessing_that_was_told(module, folder):
    path = hostile.saved({"epoch": 3, "model": module}, folder / "m.pt")
    network = opened(path, trust_model_code=True, input_shape=(3, 8, 8), mean=(0.5,), std=(0.25,))
    images = torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(network(images).softmax(1), module((images - 0.5) / 0.25), atol=1e-6)


@pytest.mark.usefixtures("unconfined")
def test_a_program_of_images_as_height_width_channels_is_opened_by_its_layout(module, folder):
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = module

        def forward(self, x):
            return self.module(x.permute(0, 3, 1, 2))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(Turned(), torch.rand(2, 8, 8, 3)).save(folder / "m.pt")
    network = opened(folder / "m.pt", trust_model_code=True, input_shape=(3, 8, 8), layout="NHWC")
    images = torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(network(images).softmax(1), module(images), atol=1e-6)


@pytest.mark.usefixtures("unconfined")
def test_a_program_exported_for_any_batch_is_compared_on_several_images(folder):
    path = hostile.exported(folder / "m.pt2", dynamic_shapes=({0: torch.export.Dim("batch")},))
    facts = opened(path, trust_model_code=True).facts
    assert facts["batch"] == "any"
    assert facts["parity"]["images"] == 4


@pytest.mark.usefixtures("unconfined")
def test_weights_that_only_a_trusted_pickle_holds_are_opened_as_weights(made, folder):
    path = hostile.saved({"state_dict": made("small").state_dict(), "best": np.float64(0.5)}, folder / "m.pt")
    with pytest.raises(Refused, match=r"would import 'numpy"):
        opened(path)
    network = opened(path, trust_model_code=True)
    images = torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(network(images).softmax(1), made("small")(images), atol=1e-6)
    assert network.facts["architecture"] == "small"


@pytest.mark.usefixtures("unconfined")
@pytest.mark.parametrize("case", ["scripted", "pickled whole"])
def test_a_program_that_does_not_say_its_images_wants_them_said(case, module, folder):
    path = PROGRAMS[case][0](folder, module)
    with pytest.raises(UsageError, match=f"{path.name} does not say what images it takes; give --input-shape"):
        opened(path, trust_model_code=True)


@pytest.mark.usefixtures("unconfined")
def test_another_shape_than_the_exported_one_is_refused(folder):
    with pytest.raises(Refused, match=r"takes images of \[3, 8, 8\], and \[3, 9, 9\] was given"):
        opened(hostile.exported(folder / "m.pt2"), trust_model_code=True, input_shape=(3, 9, 9))


@pytest.mark.usefixtures("unconfined")
def test_without_the_onnx_plugin_a_program_names_it(module, folder, monkeypatch):
    monkeypatch.setattr(registry, "installed_plugins", list)
    path = hostile.saved(module, folder / "m.pt")
    with pytest.raises(NothingApplicable, match=r"by way of ONNX, .*pip install agnes-onnx"):
        opened(path, trust_model_code=True, input_shape=(3, 8, 8))


TRUSTED = {  # what the user trusted by mistake -> what is said of it
    "os.makedirs": r"m\.pt cannot be opened: PermissionError",
    "before 1.6": r"holds an object of type int and no network",
}


@pytest.fixture
def doors():
    if not confinement.strength().strong:
        pytest.skip("the doors do not close here")


@pytest.mark.usefixtures("doors")
@pytest.mark.parametrize("case", ["os.makedirs", pytest.param("before 1.6", marks=pytest.mark.slow)])
def test_a_file_that_was_trusted_by_mistake_still_finds_the_doors_closed(case, folder):
    path = FILES[case][0](folder)
    with pytest.raises(Refused, match=TRUSTED[case]) as caught:
        opened(path, trust_model_code=True, input_shape=(3, 8, 8))
    assert str(caught.value).isprintable()


@pytest.mark.usefixtures("unconfined")
def test_a_torch_package_is_not_opened_for_trust_either(folder):
    with pytest.raises(Refused, match="name no network; save the network itself"):
        opened(FILES["torch.package"][0](folder), trust_model_code=True)


@pytest.mark.usefixtures("doors")
def test_a_trusted_program_cannot_write(folder):
    path = FILES["TorchScript that writes"][0](folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(path)(torch.rand(1, 3, 8, 8))
    (folder / hostile.MARKER).unlink()  # fails where it is not there
    assert opened(path, trust_model_code=True, input_shape=(3, 8, 8)).class_count == 5


def test_a_trusted_file_that_never_ends_is_stopped(folder):
    path = hostile.saved(hostile.Runs(time.sleep, 600), folder / "m.pt")
    begun = time.monotonic()
    with pytest.raises(Refused, match=r"m\.pt took more than 1 s; .* raise wall_seconds"):
        opened(path, PickleLoader(wall_seconds=1), trust_model_code=True, input_shape=(3, 8, 8))
    assert time.monotonic() - begun < 60


@pytest.mark.slow
def test_a_trusted_file_that_ends_the_child_is_a_refusal(folder):
    path = hostile.saved(hostile.Runs(os._exit, 0), folder / "m.pt")
    with pytest.raises(Refused, match=r"m\.pt made the child process answer with garbage"):
        opened(path, trust_model_code=True, input_shape=(3, 8, 8))
