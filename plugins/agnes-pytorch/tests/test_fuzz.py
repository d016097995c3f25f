import warnings

import hostile
import numpy as np
import pytest
from agnes_pytorch.pickle_loader import PickleLoader

from agnes.errors import AgnesError
from agnes.loading import LoadOptions

pytestmark = pytest.mark.usefixtures("register", "unconfined")


def flipped(data, rng, most=3):
    """The bytes with a few of their bits turned, a few lost, or an end that is missing."""
    data = bytearray(data)
    for place in rng.integers(0, len(data), rng.integers(1, most + 1)):
        data[place] ^= 1 << int(rng.integers(8))
    if rng.random() < 0.2:
        return bytes(data[: int(rng.integers(1, len(data)))])
    if rng.random() < 0.1:
        place = int(rng.integers(len(data)))
        del data[place : place + int(rng.integers(1, 9))]
    return bytes(data)


def fuzzed(folder, made, kind, rng):
    """A good file of a kind, damaged: anywhere, or in its pickle with checksums that are right again."""
    state = made("small").state_dict()
    if kind == "pickle":
        path = hostile.saved(state, folder / "m.pt")
        members = hostile.parts(path).items()
        return hostile.zipped(path, [(n, flipped(d, rng) if n.endswith("data.pkl") else d) for n, d in members])
    if kind == "TorchScript":
        path = hostile.script(folder / "m.pt")
    elif kind == "legacy":
        path = hostile.saved(state, folder / "m.pt", _use_new_zipfile_serialization=False)
    else:
        path = hostile.saved(state, folder / "m.pt")
    return hostile.written(path, flipped(path.read_bytes(), rng))


def became_of(folder, made, seeds):
    """What became of damaged files: 'opened', or what was said."""
    outcomes = set()
    for seed in seeds:
        rng = np.random.default_rng(seed)
        path = fuzzed(folder, made, ("pickle", "zip", "legacy", "pickle", "TorchScript")[seed % 5], rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                network = PickleLoader().load(path, LoadOptions())
                outcomes.add("nobody's" if network is None else "opened")
            except AgnesError as error:
                outcomes.add(str(error))
    return outcomes


@pytest.mark.parametrize("part", range(4))
def test_damaged_files_end_in_a_network_or_a_refusal(part, folder, made):
    outcomes = became_of(folder, made, range(part * 25, part * 25 + 25))
    assert len(outcomes) > 2
    assert all(said.isprintable() for said in outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_many_damaged_files_end_in_a_network_or_a_refusal(part, folder, made):
    outcomes = became_of(folder, made, range(1000 + part * 100, 1100 + part * 100))
    assert len(outcomes) > 2
    assert all(said.isprintable() for said in outcomes)
