import warnings
import zipfile
from collections import OrderedDict

import hostile
import pytest
import torch
from agnes_pytorch.pickle_loader import PickleLoader
from safetensors.torch import save_file
from torch import nn

from agnes import confinement
from agnes.errors import Refused, UsageError
from agnes.loading import LoadOptions, open_model
from agnes.registry import Registry

pytestmark = pytest.mark.usefixtures("register")


def opened(path, **options):
    return PickleLoader().load(path, LoadOptions(**options))


def same(network, module):
    images = torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        return torch.allclose(network(images).softmax(1), module(images), atol=1e-6)


def test_a_state_dict_is_read_in_the_child_and_opened(made, tmp_path):
    module = made("small", 7)
    network = opened(hostile.saved(module.state_dict(), tmp_path / "m.pt"))
    assert same(network, module)
    assert network.class_count == 7
    facts = network.facts
    assert (facts["format"], facts["architecture"], facts["tensors"]) == ("pytorch", "small", 9)
    assert (facts["nested_under"], facts["key_prefix"]) == ("", "")
    assert facts["number_types"] == ["float32", "int64"]
    assert facts["isolation"] == str(confinement.strength())
    assert facts["parity"]["relative"] < 1e-6
    assert facts["parity"]["reference"].startswith("torch ")


@pytest.mark.usefixtures("unconfined")
@pytest.mark.parametrize("arch", ["small", None])
@pytest.mark.parametrize("old", [False, True])
def test_files_of_torch_before_and_since_1_6_are_opened(arch, old, made, tmp_path):
    path = hostile.saved(made("small").state_dict(), tmp_path / "m.pth", _use_new_zipfile_serialization=not old)
    network = opened(path, arch=arch)
    assert same(network, made("small"))
    assert network.facts["format"] == ("pytorch before 1.6" if old else "pytorch")


def optimiser(module):
    return torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9).state_dict()


WRAPPED = {  # how the state dict stands in the file -> the keys above it and the prefix of its own
    "state_dict": (lambda m, s: {"state_dict": s, "epoch": 4, "optimizer": optimiser(m)}, "state_dict", ""),
    "model_state_dict": (lambda m, s: {"loss": 0.5, "model_state_dict": s}, "model_state_dict", ""),
    "model": (lambda m, s: {"model": s, "args": {"lr": 0.1, "name": "x"}, "done": True}, "model", ""),
    "net": (lambda m, s: {"net": s, "acc": 93.5, "epoch": 200}, "net", ""),
    "two keys": (lambda m, s: {"model": {"state_dict": s, "step": 1}}, "model.state_dict", ""),
    "a prefix": (lambda m, s: {f"module.{k}": v for k, v in s.items()}, "", "module."),
    "a key and prefixes": (
        lambda m, s: {"state_dict": OrderedDict((f"model.module.{k}", v) for k, v in s.items())},
        "state_dict",
        "model.module.",
    ),
    "parameters": (lambda m, s: OrderedDict((k, nn.Parameter(v, v.is_floating_point())) for k, v in s.items()), "", ""),
}


@pytest.mark.usefixtures("unconfined")
@pytest.mark.parametrize("case", WRAPPED)
@pytest.mark.parametrize("old", [False, True])
def test_checkpoints_are_opened_by_their_usual_keys(case, old, made, tmp_path):
    wrap, above, prefix = WRAPPED[case]
    module = made("wide")
    content = wrap(module, module.state_dict())
    network = opened(hostile.saved(content, tmp_path / "m.pt", _use_new_zipfile_serialization=not old))
    assert same(network, module)
    assert (network.facts["nested_under"], network.facts["key_prefix"]) == (above, prefix)
    assert network.facts["architecture"] == "wide"


@pytest.mark.usefixtures("unconfined")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype, made, tmp_path):
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in made("small").state_dict().items()}
    network = opened(hostile.saved(state, tmp_path / "m.pt"))
    assert all(p.dtype == torch.float32 for p in network.module.parameters())
    assert str(dtype).removeprefix("torch.") in network.facts["number_types"]
    images = torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(network(images).softmax(1), made("small")(images), atol=2e-2)


@pytest.mark.usefixtures("unconfined")
def test_weights_may_be_tied_turned_or_in_another_memory_format(made, tmp_path):
    state = dict(made("small").state_dict())
    state["features.0.weight"] = state["features.0.weight"].to(memory_format=torch.channels_last)
    state["head.weight"] = state["head.weight"].t().contiguous().t()
    state["features.1.running_var"] = state["features.1.weight"]
    module = made("small")
    module.load_state_dict(state)
    assert same(opened(hostile.saved(state, tmp_path / "m.pt")), module)


@pytest.mark.usefixtures("unconfined")
def test_a_slice_of_a_larger_block_is_read_alone(made, tmp_path):
    state = dict(made("small").state_dict())
    block = torch.cat([torch.full((3,), torch.nan), state["head.bias"], torch.full((2,), torch.nan)])
    state["head.bias"] = block[3:8]
    assert same(opened(hostile.saved(state, tmp_path / "m.pt")), made("small"))


@pytest.mark.usefixtures("unconfined")
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e300])
def test_weights_that_are_not_finite_are_refused(bad, made, tmp_path):
    state = dict(made("small").state_dict())
    state["head.bias"] = torch.full((5,), bad, dtype=torch.float64)
    with pytest.raises(Refused, match=r"'head\.bias' holds numbers that are not finite"):
        opened(hostile.saved(state, tmp_path / "m.pt"))


@pytest.mark.usefixtures("unconfined")
def test_the_first_key_that_does_not_fit_is_named(made, tmp_path):
    state = dict(made("small").state_dict())
    del state["head.bias"]
    path = hostile.saved(state, tmp_path / "m.pt")
    with pytest.raises(Refused, match=r"m\.pt does not fit architecture 'small': 'head\.bias' of 5 is missing"):
        opened(path, arch="small")
    with pytest.raises(UsageError, match="did you mean 'small'"):
        opened(path, arch="smal")
    state["\x1b[31m\n"] = torch.zeros(1)
    with pytest.raises(Refused, match="fit no installed architecture") as caught:
        opened(hostile.saved(state, path))
    assert str(caught.value).isprintable()


@pytest.mark.usefixtures("unconfined")
def test_options_reach_the_network(made, tmp_path):
    path = hostile.saved(made("wavy").state_dict(), tmp_path / "m.pt")
    with pytest.raises(UsageError, match="give --input-shape"):
        opened(path)
    network = opened(path, input_shape=(3, 9, 10), mean=(0.5,), std=(0.25,), class_names=tuple("abcde"))
    images = torch.rand(2, 3, 9, 10)
    with torch.no_grad():
        assert torch.allclose(network(images), made("wavy")((images - 0.5) / 0.25), atol=1e-6)
    assert network.class_names == tuple("abcde")


@pytest.mark.usefixtures("unconfined")
@pytest.mark.parametrize("name", ["m.ckpt", "m.bin", "m.pth.tar", "weights", "m.tar"])
@pytest.mark.parametrize("old", [False, True])
def test_other_names_are_recognised_by_content(name, old, made, tmp_path):
    path = hostile.saved(made("small").state_dict(), tmp_path / name, _use_new_zipfile_serialization=not old)
    assert opened(path).facts["architecture"] == "small"


def test_what_is_another_format_is_left_alone(made, tmp_path):
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    torch.save(made("small").state_dict(), tmp_path / "m.onnx")
    with zipfile.ZipFile(tmp_path / "other", "w") as archive:
        archive.writestr("x/readme", "{}")
    for name, data in {"m.tar": b"x" * 600, "m.ckpt": b"hello", "m.bin": b"\x80", "m.pb": b"\x08\x01"}.items():
        (tmp_path / name).write_bytes(data)
    assert [path.name for path in tmp_path.iterdir() if opened(path) is not None] == []
    assert opened(tmp_path) is None


def test_safetensors_under_a_name_of_torch_go_to_their_loader(made, tmp_path):
    path = tmp_path / "m.pt"
    save_file({key: value.contiguous() for key, value in made("small").state_dict().items()}, path)
    assert opened(path) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = open_model(path, LoadOptions(), Registry.discover())
    assert found.network.facts["format"] == "safetensors"
