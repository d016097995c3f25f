"""What Keras and TensorFlow save is opened, and computes what TensorFlow computes."""

import shutil

import pytest
import torch

pytest.importorskip("agnes_tensorflow")

from agnes_tensorflow import handover, loader
from agnes_tensorflow.loader import KerasLoader, SavedModelLoader

from agnes import confinement
from agnes.errors import AgnesError, NothingApplicable, Refused
from agnes.layers import BATCH_NORMS
from agnes.loading import LoadOptions
from agnes.testing import LoaderChecks

NAMES = ("plain", "normalised", "depthwise", "softmax", "rescaled", "grey", "residual")
ENDINGS = (".keras", "-sequential.keras", ".h5", "")


QUICK = ("depthwise.keras", "normalised-sequential.keras", "residual.h5", "plain")


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        pytest.param(name, ending, marks=[] if name + ending in QUICK else [pytest.mark.slow])
        for name in NAMES
        for ending in ENDINGS
        if (name, ending) != ("residual", "-sequential.keras")
    ],
)
def test_every_model_computes_what_tensorflow_computes(opened, name, ending):
    network = opened(f"{name}{ending}")
    assert network.facts["parity"]["relative"] < 1e-5
    assert network.facts["parity"]["reference"].startswith("tensorflow")
    assert network.peeled == ("softmax" if name in ("softmax", "rescaled") else None)
    assert network.input_shape == ((1, 10, 14) if name == "grey" else (3, 12, 12))
    assert network.class_count == (3 if name == "grey" else 4)
    norms = sum(isinstance(part, BATCH_NORMS) for part in network.module.modules())
    assert norms == {"normalised": 3, "depthwise": 1, "residual": 1}.get(name, 0)
    parameters = dict(network.module.named_parameters()).keys()
    assert {key for key in network.module.state_dict() if key.endswith("weight")} <= parameters, "a kernel is frozen"
    if ending:
        assert network.facts["weights_unpaired"] == 0
        assert {key for key in network.facts["weights"] if ".running_" not in key} <= parameters
    images = torch.rand(2, *network.input_shape, requires_grad=True)
    network(images).sum().backward()
    assert images.grad is not None
    assert bool(images.grad.abs().sum() > 0)


@pytest.mark.slow
def test_preprocessing_that_the_user_gives_is_part_of_the_comparison(good):
    options = LoadOptions(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), scale=2.0)
    network = KerasLoader().load(good / "plain.keras", options)
    assert network is not None
    assert network.preprocess is not None
    assert network.facts["parity"]["relative"] < 1e-5


def test_layers_are_called_as_keras_calls_them(opened):
    for name in ("residual.h5", "depthwise.keras"):
        kernels = {key: path for key, (_, path) in opened(name).facts["weights"].items() if path.endswith("kernel")}
        wrong = {key: path for key, path in kernels.items() if key.split(".")[0] != path.split("/")[0]}
        assert all("separable" in path for path in wrong.values()), wrong


def test_exact_gelu_is_known_as_one_activation(opened):
    assert "gelu" in opened("depthwise.keras").kinds


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_a_compiled_model_is_opened_without_its_optimiser(opened, ending):
    assert opened(f"compiled{ending}").facts["weights_unpaired"] == 0


def test_a_file_is_known_by_what_it_holds(good, tmp_path):
    shutil.copy(good / "plain.keras", tmp_path / "model.bin")
    shutil.copy(good / "plain.h5", tmp_path / "model")
    assert loader._kind(tmp_path / "model.bin") == "keras"
    assert loader._kind(tmp_path / "model") == "h5"


def test_what_is_no_model_of_tensorflow_is_left_to_others(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08")
    (tmp_path / "folder").mkdir()
    for path in tmp_path.iterdir():
        assert KerasLoader().load(path, LoadOptions()) is None
        assert SavedModelLoader().load(path, LoadOptions()) is None


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "folder"])
def test_without_tensorflow_the_refusal_says_what_to_install(tmp_path, monkeypatch, name):
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"x")
    else:
        path.write_bytes(b"x")
    monkeypatch.setattr(loader, "find_spec", lambda name: None)
    method = SavedModelLoader() if name == "folder" else KerasLoader()
    with pytest.raises(Refused, match=r"needs tensorflow, keras, tf2onnx, h5py.*pip install agnes-tensorflow"):
        method.load(path, LoadOptions())


def test_without_the_onnx_plugin_the_error_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "model.keras").write_bytes(b"x")
    monkeypatch.setattr(loader, "find_spec", lambda name: name)
    monkeypatch.setattr(handover, "onnx_plugin", lambda block: None)
    with pytest.raises(NothingApplicable, match="pip install agnes-onnx"):
        KerasLoader().load(tmp_path / "model.keras", LoadOptions())


def test_a_limit_that_is_reached_is_named(good):
    with pytest.raises(Refused, match="wall_seconds"):
        KerasLoader(wall_seconds=0.0001).load(good / "plain.keras", LoadOptions())
    with pytest.raises(Refused, match="size_limit"):
        KerasLoader(size_limit=100).load(good / "plain.keras", LoadOptions())
    with pytest.raises(Refused, match="size_limit"):
        SavedModelLoader(size_limit=100).load(good / "plain", LoadOptions())


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("residual.keras", r"conv2d_\d+/Conv \(Conv\)"),
        pytest.param("residual", r"\S*conv2d_\d+\S* \(Conv\)", marks=pytest.mark.slow),
        pytest.param("residual.h5", r"conv2d_\d+/Conv \(Conv\)", marks=pytest.mark.slow),
    ],
)
def test_a_difference_from_tensorflow_is_refused_with_the_first_layer_that_differs(good, monkeypatch, name, place):
    real = confinement.run

    def run(function, *arguments, **how):
        called = function.rpartition(":")[2]
        wrong = called in ("converted", "first_difference")
        return real(f"keras_altered:{called}" if wrong else function, *arguments, **how)

    monkeypatch.setattr(loader.confinement, "run", run)
    method = KerasLoader() if "." in name else SavedModelLoader()
    with pytest.raises(Refused, match=rf"differs from TensorFlow by .* \(more than 0\.001\), first at {place}; report"):
        method.load(good / name, LoadOptions())


@pytest.mark.slow
def test_limits_on_numbers_and_work_are_the_loader_s_own(good):
    for name in ("value_limit", "work_limit"):
        with pytest.raises(Refused, match=rf"keras\.{name}"):
            KerasLoader(**{name: 10}).load(good / "plain.keras", LoadOptions())
    with pytest.raises(Refused, match=r"savedmodel\.work_limit"):
        SavedModelLoader(work_limit=10).load(good / "plain", LoadOptions())


@pytest.mark.slow
def test_an_input_shape_that_is_not_the_file_s_is_refused(good):
    with pytest.raises(AgnesError, match="input shape"):
        KerasLoader().load(good / "plain.keras", LoadOptions(input_shape=(3, 5, 5)))


@pytest.mark.slow
class TestKerasConformance(LoaderChecks):
    method = KerasLoader()

    @pytest.fixture(autouse=True)
    def _good(self, good):
        self.source = good / "normalised.keras"

    def good(self, folder):
        return shutil.copy(self.source, folder / "model.keras")


@pytest.mark.slow
class TestSavedModelConformance(LoaderChecks):
    method = SavedModelLoader()

    @pytest.fixture(autouse=True)
    def _good(self, good):
        self.source = good / "normalised"

    def good(self, folder):
        return shutil.copytree(self.source, folder / "model", dirs_exist_ok=True)
