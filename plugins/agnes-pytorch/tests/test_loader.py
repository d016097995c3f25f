import numpy as np
import pytest
import torch
from agnes_pytorch.loader import SafetensorsLoader
from hostile_headers import HOSTILE
from safetensors.torch import save_file

from agnes.errors import AgnesError, Refused, UsageError
from agnes.loading import LoadOptions

pytestmark = pytest.mark.usefixtures("register")


def opened(path, **options):
    return SafetensorsLoader().load(path, LoadOptions(**options))


def saved(state, path):
    save_file({key: value.contiguous().clone() for key, value in state.items()}, path)
    return path


@pytest.mark.parametrize("arch", ["small", None])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_a_state_dict_is_opened_with_its_architecture_named_or_guessed(arch, classes, made, tmp_path):
    module = made("small", classes)
    network = opened(saved(module.state_dict(), tmp_path / "m.safetensors"), arch=arch)
    images = torch.rand(4, 3, 8, 8)
    assert torch.allclose(network(images).softmax(1), module(images), atol=1e-6)
    assert network.class_count == classes
    assert network.peeled == "softmax"
    assert [layer.name for layer in network.layers] == ["features.0"]
    assert network.facts["architecture"] == "small"


@pytest.mark.parametrize("prefix", ["module.", "model.", "state_dict.module."])
def test_what_wrappers_put_before_every_key_is_left_out(prefix, made, tmp_path):
    state = {prefix + key: value for key, value in made("wide").state_dict().items()}
    network = opened(saved(state, tmp_path / "m.safetensors"))
    assert network.facts["key_prefix"] == prefix
    assert network.facts["architecture"] == "wide"


@pytest.mark.parametrize(("dtype", "name"), [(torch.bfloat16, "BF16"), (torch.float16, "F16"), (torch.float64, "F64")])
def test_other_precisions_become_float32(dtype, name, made, tmp_path):
    module = made("small")
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in module.state_dict().items()}
    network = opened(saved(state, tmp_path / "m.safetensors"))
    images = torch.rand(4, 3, 8, 8)
    assert network(images).dtype == torch.float32
    assert torch.allclose(network(images).softmax(1), module(images), atol=2e-2)
    assert name in network.facts["number_types"]


def test_buffers_that_no_file_holds_are_computed(made, tmp_path):
    module = made("wavy")
    path = saved(module.state_dict(), tmp_path / "m.safetensors")
    state = torch.get_rng_state()
    network = opened(path, input_shape=(3, 9, 10))
    assert torch.equal(torch.get_rng_state(), state)
    images = torch.rand(2, 3, 9, 10)
    assert torch.allclose(network(images), module(images), atol=1e-6)
    with pytest.raises(UsageError, match="--input-shape"):
        opened(path)


def test_counters_that_old_files_lack_are_not_missed(made, tmp_path):
    state = {k: v for k, v in made("small").state_dict().items() if not k.endswith("num_batches_tracked")}
    assert opened(saved(state, tmp_path / "m.safetensors")).facts["architecture"] == "small"


def test_options_reach_the_network(made, tmp_path):
    path = saved(made("small").state_dict(), tmp_path / "m.safetensors")
    network = opened(path, mean=(0.5,), std=(0.25,), class_names=tuple("abcde"))
    images = torch.rand(2, 3, 8, 8)
    assert network.class_names == tuple("abcde")
    assert torch.allclose(network(images).softmax(1), made("small")((images - 0.5) / 0.25), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("head.bias"), "'head.bias' of 5 is missing"),
        (lambda s: s.update({"features.0.bias": torch.zeros(9)}), "'features.0.bias' is 9 and not 4"),
        (lambda s: s.update({"more": torch.zeros(9)}), "'more' is no weight of it"),
        (lambda s: s.update({"\x1b[31m": torch.zeros(9)}), r"'\[31m' is no weight of it"),
        (lambda s: s.update({"head.weight": torch.zeros(5)}), "'head.weight' is 5 and not"),
    ],
)
def test_the_first_key_that_does_not_fit_is_named(change, words, made, tmp_path):
    state = dict(made("small").state_dict())
    change(state)
    path = saved(state, tmp_path / "m.safetensors")
    with pytest.raises(Refused, match=words) as refusal:
        opened(path, arch="small")
    assert str(refusal.value).isprintable()
    with pytest.raises(Refused, match=r"fit no installed architecture \(known: small, wavy, wide\)"):
        opened(path)


def test_weights_that_fit_several_architectures_want_one_named(register, made, tmp_path):
    register(one=lambda classes: made("small", classes), other=lambda classes: made("small", classes))
    path = saved(made("small").state_dict(), tmp_path / "m.safetensors")
    with pytest.raises(Refused, match=r"several architectures \(one, other\); say which with --arch"):
        opened(path)
    assert opened(path, arch="other").facts["architecture"] == "other"


def test_an_unknown_architecture_is_said_with_the_nearest(made, tmp_path):
    path = saved(made("small").state_dict(), tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match="did you mean 'small'"):
        opened(path, arch="smal")


def test_an_architecture_that_fails_does_not_hide_the_others(register, made, tmp_path):
    def broken(classes):
        raise OSError("no such thing")

    path = saved(made("small").state_dict(), tmp_path / "m.safetensors")
    register(broken=broken, small=lambda classes: made("small", classes))
    assert opened(path).facts["architecture"] == "small"
    register(broken=broken)
    with pytest.raises(Refused, match="known: broken; architecture 'broken' cannot be made"):
        opened(path)


def test_an_unknown_suffix_is_recognised_by_content_and_others_are_left_alone(made, tmp_path):
    path = saved(made("small").state_dict(), tmp_path / "m.safetensors")
    assert opened(path.rename(tmp_path / "weights")) is not None
    (tmp_path / "m.onnx").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    (tmp_path / "m.txt").write_bytes(b"hello, this is text")
    assert opened(tmp_path / "m.onnx") is None
    assert opened(tmp_path / "m.txt") is None
    assert opened(tmp_path) is None


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_or_broken_file_is_refused_in_one_plain_line(case, tmp_path):
    content, words = HOSTILE[case]
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(Refused, match=words) as refusal:
        opened(path, arch="small")
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(bad, made, tmp_path):
    state = dict(made("small").state_dict())
    state["head.bias"] = torch.full((5,), bad)
    with pytest.raises(Refused, match=r"'head\.bias' holds numbers that are not finite"):
        opened(saved(state, tmp_path / "m.safetensors"))


def damaged(content, seed):
    """A file of which bits of the header or of the weights are turned, or the end is missing."""
    rng, changed = np.random.default_rng(seed), bytearray(content)
    near = len(changed) if seed % 3 == 0 else 900
    for place in rng.integers(0, near, 3):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed[: int(rng.integers(1, len(changed)))] if seed % 4 == 0 else changed)


def outcomes(seeds, made, folder):
    """What was said of damaged files; empty where one was opened."""
    path = saved(made("small").state_dict(), folder / "m.safetensors")
    content, said = path.read_bytes(), set()
    for seed in seeds:
        path.write_bytes(damaged(content, seed))
        try:
            opened(path)
            said.add("")
        except AgnesError as error:
            said.add(str(error))
    return said


@pytest.mark.parametrize("part", range(4))
def test_flipped_and_missing_bytes_never_end_in_anything_but_a_network_or_a_refusal(part, made, tmp_path):
    said = outcomes(range(10 * part, 10 * part + 10), made, tmp_path)
    assert len(said) > 2
    assert all(not text or text.isprintable() for text in said)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_a_thousand_damaged_files_end_in_networks_or_refusals(part, made, tmp_path):
    said = outcomes(range(1000 + 100 * part, 1100 + 100 * part), made, tmp_path)
    assert len(said) > 10
    assert all(not text or text.isprintable() for text in said)
