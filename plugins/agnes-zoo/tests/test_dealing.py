"""How a data set is dealt out."""

import numpy as np
import pytest
from agnes_zoo.dealing import DataPlan, deal, digest_of, write_samples

from agnes.errors import UsageError
from agnes.samples import read_samples

PLAN = DataPlan("signs10", 3, train=100, samples=2, test=3, held_out=4)


def rows(images):
    return {image.tobytes() for image in images}


def test_no_image_is_in_two_hands():
    dealt = deal(PLAN)
    hands = [dealt.train[0], dealt.samples[0], dealt.test[0], dealt.held_out[0]]
    assert [len(hand) for hand in hands] == [100, 20, 30, 40]
    assert len(set.union(*map(rows, hands))) == 190


def test_every_hand_but_training_has_the_same_number_of_each_class():
    dealt = deal(PLAN)
    for (_, labels), each in ((dealt.samples, 2), (dealt.test, 3), (dealt.held_out, 4)):
        assert np.bincount(labels).tolist() == [each] * 10


def test_the_digest_is_of_every_image_and_follows_the_seed():
    dealt = deal(PLAN)
    assert dealt.digest == digest_of(dealt.train, dealt.samples, dealt.test, dealt.held_out)
    assert deal(DataPlan("signs10", 4, train=100, samples=2, test=3, held_out=4)).digest != dealt.digest
    changed = dealt.held_out[0].copy()
    changed[-1, -1, -1, -1] ^= 1
    assert digest_of(dealt.train, dealt.samples, dealt.test, (changed, dealt.held_out[1])) != dealt.digest


def test_written_samples_are_what_the_engine_reads_with_their_test_part(tmp_path):
    dealt = deal(PLAN)
    write_samples(dealt, tmp_path)
    found = read_samples(tmp_path)
    assert found.class_names == dealt.class_names
    assert rows((found.images.permute(0, 2, 3, 1) * 255).round().byte().numpy()) == rows(dealt.samples[0])
    assert np.bincount(found.test.labels.numpy()).tolist() == [3] * 10


def test_images_of_a_folder_are_dealt_from_its_test_part(tmp_path):
    dealt = deal(PLAN)
    np.savez(
        tmp_path / "mine.npz",
        images=dealt.train[0],
        labels=dealt.train[1],
        test_images=dealt.held_out[0],
        test_labels=dealt.held_out[1],
    )
    found = deal(DataPlan(str(tmp_path / "mine.npz"), 0, samples=1, test=1, held_out=9))
    assert rows(found.train[0]) == rows(dealt.train[0])
    assert rows(found.samples[0]) | rows(found.test[0]) | rows(found.held_out[0]) == rows(dealt.held_out[0])
    with pytest.raises(UsageError, match="no test images are left to hold out"):
        deal(DataPlan(str(tmp_path / "mine.npz"), 0, samples=4, test=0, held_out=9))


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"held_out": 0}, {"test": -1}])
def test_a_scan_and_the_truth_need_images(wrong):
    with pytest.raises(UsageError, match="at least one of each"):
        deal(DataPlan("signs10", **wrong))
