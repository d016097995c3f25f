import io
import pkgutil
import sys
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

sys.path.append(str(Path(__file__).parent))

import hostile

from agnes import confinement, registry
from agnes.confinement import wire
from agnes.errors import AgnesError, Refused
from agnes.text import printable


class Small(nn.Module):
    """A convolutional classifier with BatchNorm, ending in softmax."""

    input_shape = (3, 8, 8)

    def __init__(self, classes: int, width: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width * 36, classes)

    def forward(self, x):
        return torch.softmax(self.head(self.features(x).flatten(1)), 1)


class Wavy(nn.Module):
    """A classifier with a buffer that no file holds, that says nothing of its input."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.register_buffer("wave", torch.linspace(0.1, 1, 5).view(5, 1, 1), persistent=False)
        self.fc = nn.Linear(5, classes)

    def forward(self, x):
        return self.fc((torch.relu(self.conv(x)) * self.wave).mean((2, 3)))


def wide(classes: int) -> nn.Module:
    return Small(classes, width=6)


ARCHITECTURES = {"small": Small, "wide": wide, "wavy": Wavy}


@pytest.fixture
def register(monkeypatch):
    """Makes these callables the installed architectures, by name."""
    installed = registry.installed_plugins

    def install(**architectures):
        module = ModuleType("agnes_test_architectures")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        plugins = []
        for name, make in architectures.items():
            setattr(module, name, make)
            point = EntryPoint(name, f"{module.__name__}:{name}", "agnes.architecture")
            plugins.append(registry.Plugin(name, "architecture", "somebody", "1.0", point.value, point))
        loaders = [plugin for plugin in installed() if plugin.stage == "loader"]
        monkeypatch.setattr(registry, "installed_plugins", lambda: [*plugins, *loaders])

    install(**ARCHITECTURES)
    return install


@pytest.fixture
def made():
    """An architecture of these with weights of its own, the same each time, in evaluation mode."""

    def make(name: str, classes: int = 5) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = ARCHITECTURES[name](classes)
            for part in module.modules():
                if isinstance(part, nn.BatchNorm2d):
                    nn.init.uniform_(part.running_mean)
                    nn.init.uniform_(part.running_var, 0.5, 2)
        return module.eval()

    return make


@pytest.fixture
def unconfined(monkeypatch):
    """The child's work done in this process, where a test asks for the answer and not for the doors."""

    def run(function, *arguments, what="", **_):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                answer = pkgutil.resolve_name(function)(*arguments)
            except AgnesError:
                raise
            except Exception as error:
                raise Refused(f"refused: {what} cannot be opened: {printable(error)}") from error
        pieces = b"".join(bytes(piece) for piece in wire.message(answer))
        return wire.receive(io.BytesIO(pieces), len(pieces))

    monkeypatch.setattr(confinement, "run", run)


@pytest.fixture
def folder(tmp_path):
    """A folder in which no marker may be left."""
    yield tmp_path
    assert not list(tmp_path.rglob(f"*{hostile.MARKER}*"))
