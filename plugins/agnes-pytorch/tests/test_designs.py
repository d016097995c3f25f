"""Architectures that come as Python code: opened in the child, for trust alone."""

import hostile
import numpy as np
import pytest
import torch
from agnes_pytorch import designs, opening
from agnes_pytorch.exporter import SafetensorsExporter
from agnes_pytorch.loader import SafetensorsLoader
from agnes_pytorch.pickle_loader import PickleLoader
from safetensors.torch import save_file
from torch import nn

from agnes import confinement
from agnes.errors import AgnesError, OutputError, Refused, UsageError
from agnes.loading import LoadOptions
from agnes.network import Network

pytestmark = pytest.mark.usefixtures("register")

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes, width=4):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width * 36, classes)

    def forward(self, x):
        return torch.softmax(self.head(self.features(x).flatten(1)), 1)

class Shaped(Net):
    input_shape = (3, 8, 8)

def of_five(width=4):
    return Net(5, width)

def by_name(num_classes=1000):
    return Net(num_classes)

def wide(classes):
    return Net(classes, 6)

def broken(classes):
    raise OSError("no such\\nthing")

NUMBER = 4
"""


@pytest.fixture
def code(folder):
    path = folder / "net.py"
    path.write_text(CODE)
    return path


@pytest.fixture
def weights(made, folder):
    return hostile.saved(made("small").state_dict(), folder / "m.pt")


def opened(path, arch, loader=PickleLoader(), **options):  # noqa: B008
    return loader.load(path, LoadOptions(arch=str(arch) if arch else None, **{"trust_model_code": True, **options}))


def same(network, module):
    images = torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        return torch.allclose(network(images).softmax(1), module(images), atol=1e-6)


def test_weights_are_opened_in_an_architecture_of_ones_own_in_the_child(code, weights, made):
    network = opened(weights, f"{code}:Net", input_shape=(3, 8, 8))
    assert same(network, made("small"))
    facts = network.facts
    assert (facts["format"], facts["architecture_code"], facts["by_way_of"]) == ("pytorch", "net.py:Net", "onnx")
    assert facts["trusted"] is True
    assert len(facts["architecture_sha256"]) == 64
    assert facts["isolation"] == str(confinement.strength())
    assert facts["parity"]["relative"] < 1e-5
    assert "batch_norm" in network.kinds
    assert [layer.name for layer in network.layers] == ["features.0"]


@pytest.mark.usefixtures("unconfined")
@pytest.mark.parametrize("name", ["of_five", "by_name", "Shaped"])
def test_a_function_is_asked_for_so_many_classes_where_it_takes_them(name, code, weights, made):
    shape = None if name == "Shaped" else (3, 8, 8)
    assert same(opened(weights, f"{code}:{name}", input_shape=shape), made("small"))


@pytest.mark.usefixtures("unconfined")
def test_safetensors_and_prefixed_keys_are_opened_so_too(code, folder, made):
    state = {f"module.{key}": value.contiguous() for key, value in made("small", 7).state_dict().items()}
    save_file(state, folder / "m.safetensors")
    network = opened(folder / "m.safetensors", f"{code}:Shaped", SafetensorsLoader(), mean=(0.5,), std=(0.25,))
    images = torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(network(images).softmax(1), made("small", 7)((images - 0.5) / 0.25), atol=1e-6)
    with pytest.raises(OutputError, match=r"of no registered architecture; write it as \.onnx"):
        SafetensorsExporter().export(network, folder / "out.safetensors")


def test_without_trust_the_code_is_refused_and_the_installed_ones_are_named(code, weights, folder):
    code.write_text(f"open({str(folder / hostile.MARKER)!r}, 'w')")
    with pytest.raises(Refused, match=r"net\.py is Python code.* Name an installed architecture \(small, wavy, wide\)"):
        opened(weights, f"{code}:Net", trust_model_code=False)


@pytest.mark.usefixtures("unconfined")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wide", r"m\.pt does not fit architecture 'net\.py:wide': 'features\.0\.weight' is 4x3x3x3 and not 6x3x3x3"),
        ("broken", r"'net\.py:broken' cannot be made for 2 classes: OSError: no such$"),
        ("NUMBER", r"net\.py has no class or function 'NUMBER'"),
        ("Nothing", r"net\.py has no class or function 'Nothing'"),
    ],
)
def test_what_the_code_does_not_make_is_said(name, words, code, weights):
    with pytest.raises(AgnesError, match=words) as caught:
        opened(weights, f"{code}:{name}", input_shape=(3, 8, 8))
    assert str(caught.value).isprintable()


@pytest.mark.usefixtures("unconfined")
def test_what_is_missing_is_asked_for(code, weights, folder):
    with pytest.raises(UsageError, match="give --input-shape"):
        opened(weights, f"{code}:Net")
    with pytest.raises(UsageError, match=r"says no class or function; write --arch .*net\.py:NAME"):
        opened(weights, code)
    with pytest.raises(UsageError, match="there is no model file"):
        opened(weights, folder / "nowhere.py:Net")


def test_an_installed_architecture_is_no_code():
    assert designs.asked(None) is None
    assert designs.asked("small") is None
    assert designs.asked("small:x") is None
    assert designs.asked("a:b.PY:Net") == (designs.Path("a:b.PY"), "Net")


def test_trusted_code_still_finds_the_doors_closed(code, made, folder):
    if not confinement.strength().strong:
        pytest.skip("the doors do not close here")
    save_file(made("small").state_dict(), folder / "m.safetensors")
    code.write_text(f"open({str(folder / hostile.MARKER)!r}, 'w')")
    with pytest.raises(Refused, match=r"m\.safetensors cannot be opened: PermissionError"):
        opened(folder / "m.safetensors", f"{code}:Net", SafetensorsLoader(), input_shape=(3, 8, 8))


# --- the user's own images -------------------------------------------------------------------------------------------


@pytest.fixture
def images(folder):
    np.savez(folder / "images.npz", images=np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8))
    return folder / "images.npz"


@pytest.mark.usefixtures("unconfined")
def test_weights_are_compared_on_the_users_images_too(weights, images):
    parity = opened(weights, "small", images=images).facts["parity"]
    assert (parity["images"], parity["real_images"]) == (6, 4)


@pytest.mark.usefixtures("unconfined")
@pytest.mark.parametrize("program", ["code", "scripted", "exported for two"])
def test_programs_are_compared_on_the_users_images_too(program, code, weights, images, folder):
    path, arch = weights, f"{code}:Net"
    if program == "scripted":
        path, arch = hostile.script(folder / "s.pt"), ""
    if program == "exported for two":
        path, arch = hostile.exported(folder / "m.pt2"), ""
    network = opened(path, arch, images=images, input_shape=(3, 8, 8), mean=(0.5,))
    parity = network.facts["parity"]
    assert parity["real_images"] == 4
    assert parity["images"] == (6 if program == "exported for two" else 8)
    assert parity["relative"] < 1e-5


def test_a_network_that_differs_on_the_users_images_alone_is_refused(monkeypatch):
    class Odd(nn.Module):
        def forward(self, x):
            return x[:, 0, 0, :5] + (x == 1).sum((1, 2, 3)).unsqueeze(1)

    network = Network.of(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), (3, 8, 8))
    monkeypatch.setattr(Network, "__call__", lambda self, x: x[:, 0, 0, :5])
    assert opening.parity(network, Odd(), None)["relative"] == 0
    with pytest.raises(Refused, match="differs from the file's own"):
        opening.parity(network, Odd(), torch.ones(2, 3, 8, 8))


def test_the_first_part_that_differs_is_named(made):
    other = made("small")
    network = Network.of(made("small"), (3, 8, 8))
    with torch.no_grad():
        other.features[1].bias += 1
    with pytest.raises(Refused, match=r"differs from the file's own by .*, first at 'features\.1'; report this model"):
        opening.parity(network, other, None)
    assert not any(part._forward_hooks for module in (other, network.module) for part in module.modules())
