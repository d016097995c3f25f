"""Which images look for the backdoor, which repair it, and which say what the repair did."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from agnes.errors import UsageError
from agnes.results import MeasuredOn
from agnes.text import counted

if TYPE_CHECKING:
    from agnes.samples import Samples

LENT_EACH = 20  # images a class, at most, that test data lend to the repair
LENT_SHARE = 0.5  # of the test data, at most


@dataclass(frozen=True)
class Dealt:
    """The images of a run by what they are for."""

    scan: Samples  # for looking for a backdoor, in the scan and in the re-scan
    repair: Samples  # for methods of mitigation, which never learn from a test part
    measure: Samples  # for accuracy and attack success, before the repair and after it
    notes: tuple[str, ...] = ()

    @property
    def measured_on(self) -> MeasuredOn | None:
        """Which images give the accuracy; None where none has a label."""
        if self.measure.test is not None and self.measure.test.labelled:
            return "test data"
        if not self.measure.labelled:
            return None
        return "repair images" if self.measure is self.repair else "scan images"


def deal(
    samples: Samples, test: Samples | None, repair: Samples | None, class_count: int, generator: torch.Generator
) -> Dealt:
    """The benign images, and beside them labelled ones for measuring and for repair where the user gave any.

    Test data alone serve both, each image one of the two; beside repair data they are for measuring alone.
    """
    for given, option in ((test, "--test-data"), (repair, "--repair-data")):
        if given is not None and not given.labelled:
            raise UsageError(f"{given.source}: the images of {option} have no labels; put them in one folder per class")
    if repair is not None:
        return _apart(samples, test, replace(repair, test=None))
    if test is None:
        return Dealt(samples, samples, samples)
    return _lent(samples, replace(test, test=None), class_count, generator)


def _apart(samples: Samples, test: Samples | None, repair: Samples) -> Dealt:
    """Images of their own for the repair; what they share with the others measures nothing."""
    if test is not None:
        test, notes = _unseen(replace(test, test=None), repair, "--repair-data")
        scored = samples.with_test(test)
    elif samples.test is not None:
        test, notes = _unseen(samples.test, repair, "--repair-data")
        scored = samples.with_test(test)
    else:
        scored, notes = _others(samples, repair)
    return Dealt(samples, repair if test is None else repair.with_test(test), scored, notes)


def _others(samples: Samples, repair: Samples) -> tuple[Samples, tuple[str, ...]]:
    """The benign images that the repair does not see or, where it sees all, those that it sees."""
    if samples.inverted:
        return repair, ("no images were given but those of --repair-data; the repair is measured on what it saw",)
    try:
        return _unseen(samples, repair, "--repair-data")
    except UsageError:
        return repair, ("every image of --data is among those of --repair-data; the repair is measured on what it saw",)


def _lent(samples: Samples, test: Samples, class_count: int, generator: torch.Generator) -> Dealt:
    """Test data of which a part goes to the repair, beside the benign images where these have labels."""
    notes: tuple[str, ...] = ()
    beside = samples.labelled and not samples.inverted
    if beside:
        test, notes = _unseen(test, samples, "--data")
    if len(test) < 2:
        return Dealt(samples, samples.with_test(test), samples.with_test(test), notes)
    share = min(LENT_SHARE, LENT_EACH * class_count / len(test))
    lent, kept = test.split(share, generator)
    notes += (f"of {len(test)} test images {len(lent)} were lent to the repair and {len(kept)} measured",)
    repairing = joined(samples, lent) if beside else lent
    return Dealt(samples, repairing.with_test(kept), samples.with_test(kept), notes)


def joined(one: Samples, other: Samples) -> Samples:
    """The images of both, with their labels."""
    assert one.labels is not None
    assert other.labels is not None
    labels = torch.cat([one.labels, other.labels.to(one.labels.device)])
    images = torch.cat([one.images, other.images.to(one.images.device)])
    return replace(one, images=images, labels=labels, test=None)


def _unseen(test: Samples, seen: Samples, option: str) -> tuple[Samples, tuple[str, ...]]:
    """The images that the repair does not see."""
    known = set(_pixels(seen))
    fresh = [row for row, pixels in enumerate(_pixels(test)) if pixels not in known]
    if not fresh:
        raise UsageError(
            f"{test.source}: all {len(test)} images are among those of {option}, which the repair sees; "
            "accuracy is measured on others"
        )
    if len(fresh) == len(test):
        return test, ()
    shared = counted(len(test) - len(fresh), "test image")
    return test.subset(fresh), (f"{shared} left out: also among those of {option}, which the repair sees",)


def _pixels(samples: Samples) -> list[bytes]:
    return [image.numpy().tobytes() for image in samples.images.detach().cpu()]
