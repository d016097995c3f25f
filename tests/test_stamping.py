"""A found trigger, read back and put on images."""

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import agnes
from agnes import cli
from agnes.errors import AgnesError, Refused, UsageError
from agnes.features import FeatureTrigger, identity
from agnes.reports import pictures
from agnes.results import AdditiveTrigger, MaskTrigger

KNOWN = {"target": 3, "asr": 0.9, "held_out": 8}
DELTA = torch.linspace(-1, 1, 3 * 6 * 8).view(3, 6, 8)
MASK = torch.linspace(0, 1, 48).view(1, 6, 8)
TRIGGERS = [
    AdditiveTrigger(**KNOWN, delta=DELTA),
    MaskTrigger(**KNOWN, mask=MASK, pattern=DELTA.abs()),
    AdditiveTrigger(**KNOWN, delta=DELTA[:1]),
    FeatureTrigger(**KNOWN, mix=identity(3) * 0.5 + 0.02, window=3, changed=MASK[0]),
]


def stored(trigger, path):
    path.write_bytes(pictures.arrays(trigger))
    return path


def photo(path, size=(8, 6), mode="RGB", seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), mode).save(path)
    return path


def pixels(path):
    with Image.open(path) as image:
        array = np.asarray(image, np.float32) / 255
    return torch.from_numpy(array if array.ndim == 3 else array[..., None]).permute(2, 0, 1)


@pytest.mark.parametrize("trigger", TRIGGERS, ids=["additive", "mask", "grey", "feature"])
def test_what_a_run_wrote_is_read_back_and_changes_images_as_it_did(trigger, tmp_path):
    again = agnes.read_trigger(stored(trigger, tmp_path / "t.npz"))
    assert (type(again), again.target) == (type(trigger), 3)
    images = torch.rand(5, DELTA.shape[0] if trigger is not TRIGGERS[2] else 1, 6, 8)
    assert torch.equal(again.apply(images), trigger.apply(images))
    assert torch.equal(again.change(), trigger.change())


@pytest.mark.parametrize(
    ("trigger", "mode"), [(TRIGGERS[0], "RGB"), (TRIGGERS[1], "RGB"), (TRIGGERS[2], "L"), (TRIGGERS[3], "RGB")]
)
def test_an_image_is_written_with_the_trigger_on_it(trigger, mode, tmp_path):
    image = photo(tmp_path / "a.png", mode=mode)
    (made,) = agnes.apply(stored(trigger, tmp_path / "t.npz"), [image], tmp_path / "out")
    assert (made.source, made.written) == (image, tmp_path / "out" / "a.png")
    expected = trigger.apply(pixels(image)[None])[0]
    assert torch.allclose(pixels(made.written), expected, atol=0.5 / 255 + 1e-6)


def test_a_folder_keeps_its_class_folders_and_images_are_fitted(tmp_path):
    for name in ("0/a.png", "0/b.bmp", "1/a.png"):
        photo(tmp_path / "images" / name, size=(16, 12))
    out = tmp_path / "out"
    command = ["apply", str(stored(TRIGGERS[0], tmp_path / "t.npz")), str(tmp_path / "images"), "-o", str(out)]
    result = CliRunner().invoke(cli.app, command)
    assert result.output == f"3 images with the trigger in {out}\n"
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.png")) == ["0/a.png", "0/b.png", "1/a.png"]
    assert {tuple(pixels(p).shape) for p in out.rglob("*.png")} == {(3, 6, 8)}


def test_nothing_is_written_over_another_image_or_the_original(tmp_path):
    trigger = stored(TRIGGERS[0], tmp_path / "t.npz")
    first, second = photo(tmp_path / "x" / "a.png"), photo(tmp_path / "y" / "a.png", seed=1)
    before = first.read_bytes()
    with pytest.raises(UsageError, match=r"y/a.png would be written over .*x/a.png"):
        agnes.apply(trigger, [first, second], tmp_path / "out")
    with pytest.raises(UsageError, match="choose another folder with -o"):
        agnes.apply(trigger, [first], tmp_path / "x")
    assert not (tmp_path / "out").exists()
    assert first.read_bytes() == before


def test_without_images_it_says_what_to_give(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no images found"):
        agnes.apply(stored(TRIGGERS[0], tmp_path / "t.npz"), [tmp_path / "empty"], tmp_path / "out")


def archive(path, **arrays):
    np.savez(path, **arrays)
    return path


FILTER = {
    "kind": np.array("FeatureTrigger"),
    "target": np.array(0),
    "mix": np.eye(3, 13, dtype=np.float32),
    "window": np.array(3),
    "changed": np.zeros((4, 4), np.float32),
}
WORDS = {"kind": np.array("AdditiveTrigger"), "target": np.array(0)}
ZEROS = np.zeros((3, 4, 4), np.float32)


@pytest.mark.parametrize(
    ("arrays", "error", "said"),
    [
        ({**FILTER, "window": np.array(4)}, Refused, "'window' is not an odd number"),
        ({**FILTER, "window": np.array(10**6 + 1)}, Refused, "'window' is not an odd number"),
        ({**FILTER, "mix": np.eye(3, 12, dtype=np.float32)}, Refused, "mixes no image's colours"),
        ({**FILTER, "mix": np.full((3, 13), np.inf, np.float32)}, Refused, "holds what is no number"),
        ({**FILTER, "mix": np.full((3, 13), 1e300)}, Refused, "holds what is no number"),
        ({**FILTER, "changed": np.full((4, 4), 1e300)}, Refused, "is no map of an image"),
        ({**WORDS, "delta": np.full((3, 4, 4), 1e300)}, Refused, "outside -1 to 1"),
        ({**FILTER, "changed": np.zeros((0, 4), np.float32)}, Refused, "is no map of an image"),
        ({"images": ZEROS}, UsageError, "'kind' is missing"),
        ({**WORDS}, UsageError, "'delta' is missing"),
        ({"kind": np.array("AdditiveTrigger"), "delta": ZEROS}, UsageError, "'target' is missing"),
        ({**WORDS, "kind": np.array("\x1b[2JEvil")}, UsageError, "'.2JEvil' is no trigger"),
        ({**WORDS, "kind": np.array(3.0)}, Refused, "'kind' is not a word"),
        ({**WORDS, "target": np.array(-1), "delta": ZEROS}, Refused, "not the number of a class"),
        ({**WORDS, "target": np.array([1]), "delta": ZEROS}, Refused, "not the number of a class"),
        ({**WORDS, "delta": ZEROS + np.nan}, Refused, "outside -1 to 1"),
        ({**WORDS, "delta": ZEROS + 1.5}, Refused, "outside -1 to 1"),
        ({**WORDS, "delta": np.zeros((4, 4), np.float32)}, Refused, "not an image of numbers"),
        ({**WORDS, "delta": np.zeros((3, 0, 4), np.float32)}, Refused, "not an image of numbers"),
        ({**WORDS, "delta": np.zeros((3, 4, 4), np.int64)}, Refused, "not an image of numbers"),
        ({**WORDS, "delta": np.array([[["x"]]], object)}, Refused, "Python objects"),
        (
            {**WORDS, "kind": np.array("MaskTrigger"), "mask": ZEROS[:1], "pattern": np.zeros((3, 5, 5), np.float32)},
            Refused,
            r"a mask of \(1, 4, 4\) for a pattern of \(3, 5, 5\)",
        ),
        (
            {**WORDS, "kind": np.array("MaskTrigger"), "mask": ZEROS[:1], "pattern": ZEROS - 0.5},
            Refused,
            "outside 0 to 1",
        ),
    ],
)
def test_what_is_no_trigger_is_refused_in_one_line(arrays, error, said, tmp_path):
    path = archive(tmp_path / "t.npz", **arrays)
    with pytest.raises(error, match=said) as caught:
        agnes.read_trigger(path)
    assert str(caught.value).isprintable()


def test_a_damaged_or_missing_file_is_told(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        agnes.read_trigger(tmp_path / "t.npz")
    whole = stored(TRIGGERS[0], tmp_path / "t.npz").read_bytes()
    for length in (1, 40, len(whole) - 5):
        (tmp_path / "t.npz").write_bytes(whole[:length])
        with pytest.raises(AgnesError, match=r"not a sound \.npz"):
            agnes.read_trigger(tmp_path / "t.npz")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("kind.npy", b"\x93NUMPY\x01\x00garbage")
    (tmp_path / "t.npz").write_bytes(buffer.getvalue())
    with pytest.raises(AgnesError, match=r"not a sound \.npz"):
        agnes.read_trigger(tmp_path / "t.npz")


def test_every_kind_of_trigger_has_a_picture():
    for trigger in TRIGGERS:
        assert pictures.picture(trigger, "stop", None).startswith(b"\x89PNG")
        assert trigger.channels == (1 if trigger is TRIGGERS[2] else 3)
