import functools
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.append(str(HERE))


def _made(script, folder, *words):
    """The folder, filled with models by a Python of its own."""
    if any(find_spec(name) is None for name in ("tensorflow", "keras", "tf2onnx", "h5py")):
        pytest.skip("TensorFlow is not installed")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "KERAS_BACKEND": "tensorflow"}
    command = [sys.executable, "-W", "ignore", str(HERE / script), str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    """A folder of good models; not to be changed."""
    return _made("keras_classifiers.py", tmp_path_factory.mktemp("good"), "good")


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    """A folder of models that would touch `it-ran` in it."""
    return _made("keras_classifiers.py", tmp_path_factory.mktemp("hostile"), "hostile")


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    """The cells of the matrix that are asked for, written into one folder; not to be changed."""
    folder = tmp_path_factory.mktemp("families")
    return functools.cache(lambda cells: _made("keras_families.py", folder, *cells))


@pytest.fixture(scope="session")
def opened(good):
    """One of the good models as a Network, opened once; not to be changed."""
    from agnes.loading import LoadOptions, open_model
    from agnes.registry import Registry

    return functools.cache(lambda name: open_model(good / name, LoadOptions(), Registry.discover()).network)
