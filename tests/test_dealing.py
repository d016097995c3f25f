"""Which images look for the backdoor, which repair it, and which say what the repair did."""

import pytest
import torch

from agnes.dealing import LENT_EACH, deal
from agnes.errors import UsageError
from agnes.samples import Samples

CLASSES = 4


def images(count, seed, labelled=True, source="images"):
    pixels = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return Samples(pixels, torch.arange(count) % CLASSES if labelled else None, source=source)


def dealt(samples, test=None, repair=None):
    return deal(samples, test, repair, CLASSES, torch.Generator().manual_seed(0))


def rows(samples):
    return {image.numpy().tobytes() for image in samples.images}


DATA, TEST, REPAIR = images(4, 1), images(40, 2, source="test.npz"), images(20, 3, source="repair.npz")


def test_without_further_images_everything_is_done_with_the_same():
    found = dealt(DATA)
    assert found.scan is found.repair is found.measure is DATA
    assert found.measured_on == "repair images"


def test_a_test_part_that_came_with_the_images_is_for_measuring():
    found = dealt(DATA.with_test(TEST))
    assert found.measured_on == "test data"
    assert found.repair.test is found.measure.test


def test_no_test_image_is_both_lent_and_measured():
    found = dealt(DATA, TEST)
    lent, kept = rows(found.repair) - rows(DATA), rows(found.measure.test)
    assert lent | kept == rows(TEST)
    assert not lent & kept
    assert len(lent) == 20
    assert "20 were lent" in found.notes[-1]
    assert found.measured_on == "test data"


def test_what_is_lent_holds_every_class_and_its_labels():
    found = dealt(DATA, TEST)
    assert sorted(found.repair.labels.tolist()) == sorted([*range(4), *[c for c in range(4) for _ in range(5)]])
    known = {image.numpy().tobytes(): label for image, label in zip(TEST.images, TEST.labels.tolist(), strict=True)}
    known |= {image.numpy().tobytes(): label for image, label in zip(DATA.images, DATA.labels.tolist(), strict=True)}
    for image, label in zip(found.repair.images, found.repair.labels.tolist(), strict=True):
        assert known[image.numpy().tobytes()] == label


def test_of_many_test_images_few_a_class_are_lent():
    found = dealt(DATA, images(1000, 4))
    assert len(found.repair) == len(DATA) + LENT_EACH * CLASSES
    assert len(found.measure.test) == 1000 - LENT_EACH * CLASSES


def test_images_without_labels_do_not_go_to_the_repair_beside_labelled_ones():
    found = dealt(images(4, 1, labelled=False), TEST)
    assert rows(found.repair) < rows(TEST)
    assert found.repair.labelled


def test_the_scan_sees_neither_test_nor_repair_data():
    for test, repair in ((TEST, None), (None, REPAIR), (TEST, REPAIR)):
        found = dealt(DATA, test, repair)
        assert found.scan is DATA


def test_with_repair_data_the_repair_gets_those_alone_and_the_test_data_only_measure():
    found = dealt(DATA, TEST, REPAIR)
    assert rows(found.repair) == rows(REPAIR)
    assert rows(found.measure.test) == rows(found.repair.test) == rows(TEST)
    assert found.notes == ()


def test_with_repair_data_alone_the_benign_images_measure():
    found = dealt(DATA, None, REPAIR)
    assert found.measure is DATA
    assert found.measured_on == "scan images"
    assert dealt(images(4, 1, labelled=False), None, REPAIR).measured_on is None


def test_images_that_the_repair_sees_measure_nothing():
    shared = Samples(torch.cat([TEST.images[:3], REPAIR.images]), torch.cat([TEST.labels[:3], REPAIR.labels]))
    found = dealt(DATA, TEST, shared)
    assert rows(found.measure.test) == rows(TEST) - rows(shared)
    assert "3 test images left out" in found.notes[0]
    with pytest.raises(UsageError, match="all 40 images are among those of --repair-data"):
        dealt(DATA, TEST, TEST)


def test_where_the_repair_sees_every_image_there_is_the_report_says_so():
    found = dealt(REPAIR.subset(slice(0, 4)), None, REPAIR)
    assert found.measure is found.repair
    assert found.measured_on == "repair images"
    assert "measured on what it saw" in found.notes[0]


def test_images_without_labels_are_refused():
    for test, repair, option in ((images(4, 5, False), None, "--test-data"), (TEST, images(4, 5, False), "--repair")):
        with pytest.raises(UsageError, match=f"{option}.* have no labels"):
            dealt(DATA, test, repair)
