"""Promises of read_samples: the arrays of an .npz are taken exactly as they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import ZEROS, arrays_file

from agnes.errors import UsageError
from agnes.samples import read_samples


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 4),
    height=st.integers(4, 7),
    width=st.integers(4, 7),
    channels=st.sampled_from([1, 3]),
    layout=st.sampled_from(["NCHW", "NHWC", "NHW"]),
    dtype=st.sampled_from(["uint8", "<f4", ">f4", "f8", "f2"]),
    packed=st.booleans(),
    told=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_npz_arrays_are_taken_exactly_as_they_are(
    tmp_path, count, height, width, channels, layout, dtype, packed, told, seed
):
    channels = 1 if layout == "NHW" else channels
    bytes_ = np.random.default_rng(seed).integers(0, 256, (count, channels, height, width), dtype=np.uint8)
    stored = bytes_ if dtype == "uint8" else (bytes_ / 255).astype(dtype)
    expected = (stored / np.float32(255) if dtype == "uint8" else stored).astype(np.float32)
    laid = {"NCHW": stored, "NHWC": stored.transpose(0, 2, 3, 1), "NHW": stored[:, 0]}[layout]
    labels = np.arange(count)
    (np.savez_compressed if packed else np.savez)(tmp_path / "x.npz", images=laid, labels=labels)
    found = read_samples(tmp_path / "x.npz", input_shape=(channels, height, width) if told else None)
    assert np.array_equal(found.images.numpy(), expected)
    assert found.images.is_contiguous()
    assert found.labels.tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("names", "test"),
    [
        (("images", "labels"), None),
        (("x", "y"), None),
        (("X", "Y"), None),
        (("x_test", "y_test"), None),
        (("test_images", "test_labels"), None),
        (("arr_0", "arr_1"), None),
        (("images", "labels"), ("test_images", "test_labels")),
        (("x_train", "y_train"), ("x_test", "y_test")),
    ],
)
def test_npz_arrays_are_known_by_their_usual_names(tmp_path, names, test):
    zeros, ones = np.zeros((2, 4, 5, 3), np.uint8), np.full((1, 4, 5, 3), 255, np.uint8)
    held = {names[0]: zeros, names[1]: [3, 1]} | ({test[0]: ones, test[1]: [2]} if test else {})
    np.savez(tmp_path / "x.npz", **held)
    found = read_samples(tmp_path / "x.npz")
    assert found.labels.tolist() == [3, 1]
    assert found.shape == (3, 4, 5)
    assert (found.test is None) == (test is None)
    if found.test is not None:
        assert found.test.labels.tolist() == [2]
        assert found.test.images.min() == 1


def test_one_array_alone_is_the_images(tmp_path):
    np.savez(tmp_path / "x.npz", digits=np.zeros((2, 4, 5), np.uint8))
    found = read_samples(tmp_path / "x.npz")
    assert found.shape == (1, 4, 5)
    assert not found.labelled


@pytest.mark.parametrize("labels", [[[2], [0]], [[0, 0, 1], [1, 0, 0]], [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]])
def test_label_columns_and_one_hot_rows_are_understood(tmp_path, labels):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 4, 5, 3), np.uint8), y=np.array(labels))
    assert read_samples(tmp_path / "x.npz").labels.tolist() == [2, 0]


def test_the_networks_shape_settles_an_ambiguous_layout(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 3, 9, 1), np.uint8))
    assert read_samples(tmp_path / "x.npz", input_shape=(3, 9, 1)).shape == (3, 9, 1)
    assert read_samples(tmp_path / "x.npz", input_shape=(1, 3, 9)).shape == (1, 3, 9)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 5), (4, 4, 5)])
def test_arrays_are_never_resized(tmp_path, shape):
    path = arrays_file(images=ZEROS)(tmp_path)
    with pytest.raises(UsageError, match=r"images of 3x4x5, but the network takes .* a folder of image files"):
        read_samples(path, input_shape=shape)
