"""The conformance checks of AGNES, and what the two plugins promise beyond them."""

from __future__ import annotations

from agnes_example.loudest import Loudest
from agnes_example.tally import Tally

from agnes.results import Report, Verdict
from agnes.testing import ReporterChecks, StimulationChecks


class TestLoudest(StimulationChecks):
    method = Loudest()


class TestTally(ReporterChecks):
    method = Tally()


def test_the_planted_channel_comes_first(planted_network, agnes_backend):
    planted = planted_network
    images = planted.samples.images
    images[0] = planted.apply(images[:1])[0]  # one image in the set holds the trigger
    found = Loudest().stimulate(planted.network, planted.samples, agnes_backend)
    assert (found[0].layer, found[0].channel) in planted.path
    assert found[0].target == planted.target


def test_a_run_is_told_in_one_line(tmp_path):
    report = Report(model={}, data={}, verdict=Verdict("clean", 0.01))
    Tally().run_finished(report, tmp_path)
    assert (tmp_path / "tally.txt").read_text() == "clean: 0 candidates, 0 triggers, 0 repairs\n"
