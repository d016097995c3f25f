import fakes
import pytest
import torch
from agnes_onnx.exporter import OnnxExporter
from agnes_pytorch.exporter import SafetensorsExporter, StateDictExporter
from agnes_pytorch.loader import SafetensorsLoader
from agnes_pytorch.pickle_loader import PickleLoader
from safetensors.torch import load_file, save_file
from torch import nn

from agnes.errors import OutputError
from agnes.loading import LoadOptions
from agnes.network import Network
from agnes.reports import exporting

pytestmark = pytest.mark.usefixtures("register")


@pytest.fixture
def opened(made, tmp_path):
    """Opens a network from a file of weights under a prefix."""

    def open_one(name="small", prefix="", **options):
        path = tmp_path / "m.safetensors"
        save_file({prefix + key: value.contiguous() for key, value in made(name).state_dict().items()}, path)
        return SafetensorsLoader().load(path, LoadOptions(**options))

    return open_one


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_repaired_network_is_written_under_the_original_keys(prefix, opened, made, tmp_path):
    network = opened(prefix=prefix, mean=(0.5,), std=(0.5,)).copy()
    with torch.no_grad():
        network.module.get_submodule("features.0").weight[1] = 0
    path = SafetensorsExporter().export(network, tmp_path / "repaired.safetensors")
    state = load_file(path)
    original = made("small").state_dict()
    assert set(state) == {prefix + key for key in original}
    changed = [key for key in original if not torch.equal(state[prefix + key], original[key])]
    assert changed == ["features.0.weight"]
    again = SafetensorsLoader().load(path, LoadOptions(mean=(0.5,), std=(0.5,)))
    images = torch.rand(3, 3, 8, 8)
    assert torch.allclose(again(images), network(images), atol=1e-6)


def test_a_network_of_another_architecture_is_said_and_nothing_kept(opened, tmp_path):
    target = tmp_path / "out.safetensors"
    folded = opened().fold_batch_norm()
    with pytest.raises(OutputError, match=r"no longer 'small': 'features\.1\.weight' of 4 is missing; write \.onnx"):
        SafetensorsExporter().export(folded, target)
    with pytest.raises(OutputError, match="of no registered architecture"):
        SafetensorsExporter().export(Network.of(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2)), target)
    assert {file.name for file in tmp_path.iterdir()} == {"m.safetensors"}


def test_what_differs_from_the_network_is_not_kept(opened, tmp_path):
    with pytest.raises(OutputError, match="differ from the network"):
        SafetensorsExporter(parity_limit=-1.0).export(opened(), tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_another_suffix_is_not_ours_and_a_missing_folder_is_said(opened, tmp_path):
    assert SafetensorsExporter().export(opened(), tmp_path / "out.onnx") is None
    with pytest.raises(OutputError, match="cannot be written"):
        SafetensorsExporter().export(opened(), tmp_path / "nowhere" / "out.safetensors")


@pytest.mark.usefixtures("unconfined")
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt"])
def test_a_repaired_network_is_written_as_a_plain_state_dict(suffix, prefix, opened, made, tmp_path):
    network = opened(prefix=prefix, mean=(0.5,), std=(0.5,)).copy()
    with torch.no_grad():
        network.module.get_submodule("features.0").weight[1] = 0
    path = StateDictExporter().export(network, tmp_path / f"repaired{suffix}")
    state = torch.load(path, weights_only=True)
    original = made("small").state_dict()
    assert list(state) == [prefix + key for key in original]
    assert [key for key in original if not torch.equal(state[prefix + key], original[key])] == ["features.0.weight"]
    again = PickleLoader().load(path, LoadOptions(mean=(0.5,), std=(0.5,)))
    images = torch.rand(3, 3, 8, 8)
    assert torch.allclose(again(images), network(images), atol=1e-6)


@pytest.mark.usefixtures("unconfined")
@pytest.mark.parametrize("above", [("state_dict",), ("model", "state_dict")])
def test_a_state_dict_below_other_keys_goes_back_below_them(above, made, tmp_path):
    original = made("small").state_dict()
    nested = original
    for key in reversed(above):
        nested = {"epoch": 3, key: nested}
    torch.save(nested, tmp_path / "m.pth")
    network = PickleLoader().load(tmp_path / "m.pth", LoadOptions()).copy()
    with torch.no_grad():
        network.module.get_submodule("features.0").weight[1] = 0
    found = torch.load(StateDictExporter().export(network, tmp_path / "repaired.pth"), weights_only=True)
    for key in above:
        found = found[key]
    assert list(found) == list(original)
    assert [key for key in original if not torch.equal(found[key], original[key])] == ["features.0.weight"]
    again = PickleLoader().load(tmp_path / "repaired.pth", LoadOptions())
    assert again.facts["nested_under"] == ".".join(above)


def test_a_state_dict_that_differs_from_the_network_is_not_kept(opened, tmp_path):
    with pytest.raises(OutputError, match=r"differ from the network .* pytorch-export\.parity_limit"):
        StateDictExporter(parity_limit=-1.0).export(opened(), tmp_path / "out.pt")
    with pytest.raises(OutputError, match="of no registered architecture"):
        StateDictExporter().export(
            Network.of(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2)), tmp_path / "o.pt"
        )
    assert {file.name for file in tmp_path.iterdir()} == {"m.safetensors"}
    assert StateDictExporter().export(opened(), tmp_path / "out.safetensors") is None


HOUSE = fakes.registry(
    fakes.plugin("onnx-export", "exporter", OnnxExporter),
    fakes.plugin("pytorch-export", "exporter", StateDictExporter),
    fakes.plugin("safetensors-export", "exporter", SafetensorsExporter),
)


@pytest.mark.parametrize(
    ("suffix", "name"),
    [
        (".pt", "repaired.pt"), (".pth", "repaired.pth"), (".ckpt", "repaired.ckpt"), (".bin", "repaired.bin"),
        (".safetensors", "repaired.safetensors"), (".pt2", "repaired.onnx"), ("", "repaired.onnx"),
    ],
)  # fmt: skip
def test_a_run_writes_the_format_that_the_model_came_in(suffix, name, opened, tmp_path):
    path, why_not = exporting.export(opened(), tmp_path / "repaired", suffix, HOUSE, {})
    assert (path, why_not) == (tmp_path / name, "")
    assert path.exists()


def test_a_run_writes_onnx_where_the_weights_fit_their_architecture_no_more(opened, tmp_path):
    path, why_not = exporting.export(opened().fold_batch_norm(), tmp_path / "repaired", ".pt", HOUSE, {})
    assert path == tmp_path / "repaired.onnx"
    assert "pytorch-export: repaired.pt: the network is no longer 'small'" in why_not
