"""Promises of agnes.testing: what keeps the contract passes, its words are checked, and its fixtures serve."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from methods import Groups, Hears, Opens, OpensChecks, Scores, Silences, Stains, Suspects, Writes, breaching

import agnes
from agnes import testing
from agnes.hookspecs import METHOD_STAGES
from agnes.method import Method
from agnes.results import AdditiveTrigger, Evidence
from agnes.testing import (
    AbstractionChecks,
    DiagnosisChecks,
    ExporterChecks,
    InversionChecks,
    MitigationChecks,
    ReporterChecks,
    StimulationChecks,
    tiny_network,
)
from agnes.testing import networks as tiny
from agnes.testing.running_checks import RunningChecks
from agnes.testing.watching import differences, fingerprint, global_facts, network_facts, tensors_in

HOUSE = str(Path(agnes.__path__[0]).parent)


class TestGroups(AbstractionChecks):
    method = Groups()


class TestSuspects(StimulationChecks):
    method = Suspects()


class TestStains(InversionChecks):
    method = Stains()


class TestScores(DiagnosisChecks):
    method = Scores()


class TestSilences(MitigationChecks):
    method = Silences()


class TestHears(ReporterChecks):
    method = Hears()


class TestOpens(OpensChecks):
    pass


class TestWrites(ExporterChecks):
    method = Writes()
    suffix = ".plain"

    def reopened(self, path):
        return Opens().load(path, None)


# --- form and settings -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Formless(Method):
    loud: bool = False
    shape: Any = field(default_factory=object)  # what no text can say

    needs: ClassVar[frozenset[str]] = frozenset({"luck"})

    def asks(self):
        return {"prayer": {"length": 3}}

    def diagnose(self, network):
        return None


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ("test_it_implements_its_hook_with_known_arguments", "decorate one of"),
        ("test_it_says_in_one_line_what_it_does", "has no docstring"),
        ("test_every_setting_has_a_default_and_a_comment", "Formless.loud has no comment"),
        ("test_its_needs_are_known_words", "needs .'luck'"),
        ("test_what_it_asks_of_other_stages_can_be_asked", "asks stage 'prayer'"),
    ],
)
def test_a_method_of_bad_form_is_told_what_to_mend(check, said):
    with pytest.raises(AssertionError, match=said):
        getattr(breaching(DiagnosisChecks, Formless()), check)()


def test_a_setting_that_no_file_can_hold_is_noticed(tmp_path):
    with pytest.raises(Exception, match="shape takes"):
        breaching(DiagnosisChecks, Formless()).test_settings_survive_the_command_line_and_agnes_toml(tmp_path)


def test_every_stage_of_methods_has_its_checks():
    stages = {kind.stage for name in testing.__all__ if isinstance(kind := getattr(testing, name), type)
              and issubclass(kind, RunningChecks)}  # fmt: skip
    assert stages == set(METHOD_STAGES)


# --- watching --------------------------------------------------------------------------------------------------------


NETWORK = tiny_network("plain")
STAIN = AdditiveTrigger(target=1, asr=0.5, held_out=2, delta=torch.zeros(tiny.INPUT_SHAPE))


def test_a_fingerprint_sees_every_bit():
    one = Evidence("e", 1.0, 2.0, (float("nan"),))
    assert fingerprint(one) == fingerprint(replace(one))
    assert fingerprint(one) != fingerprint(replace(one, score=float(np.nextafter(1.0, 2.0))))
    assert fingerprint(STAIN) != fingerprint(replace(STAIN, delta=-STAIN.delta))  # minus zero is not zero
    assert fingerprint({"a": [NETWORK]}) == fingerprint({"a": [NETWORK.copy()]})
    assert fingerprint(NETWORK) != fingerprint(tiny_network("plain", 1))


def test_tensors_are_found_wherever_a_result_holds_them():
    found = list(tensors_in({"a": [STAIN, (torch.ones(1),)], "b": 3}))
    assert [tuple(tensor.shape) for tensor in found] == [tiny.INPUT_SHAPE, (1,)]


def test_without_a_change_nothing_differs():
    assert differences(network_facts(NETWORK), network_facts(NETWORK)) == []
    assert differences(global_facts(), global_facts()) == []


# --- fixtures --------------------------------------------------------------------------------------------------------

USING_FIXTURES = """
import pytest, torch

def test_tiny(agnes_network, agnes_samples, unlabelled_samples, agnes_backend):
    agnes_samples.check_against(agnes_network.input_shape, agnes_network.class_count)
    assert sorted(agnes_samples.labels.tolist()) == list(range(agnes_network.class_count))
    assert unlabelled_samples.labels is None
    assert agnes_backend.device.type == "cpu"

def test_planted(planted_network):
    assert planted_network.trigger.target == planted_network.target

def test_messages():
    from agnes.results import Evidence
    from agnes.testing import DiagnosisChecks, tiny_network
    DiagnosisChecks().check(Evidence("x", float("nan"), 1.0), tiny_network("plain"), None)
"""


def test_the_fixtures_serve_tests_written_elsewhere(tmp_path):
    (tmp_path / "test_elsewhere.py").write_text(USING_FIXTURES)
    found = metadata.entry_points(group="pytest11", name="agnes.testing.fixtures")
    plugin = [] if found else ["-p", "agnes.testing.fixtures"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *plugin, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": HOUSE, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 failed, 5 passed" in done.stdout, done.stdout + done.stderr
    assert "x: nan is not finite" in done.stdout


def test_pytest_starts_without_torch():
    code = "import sys, json, agnes.testing.fixtures; print(json.dumps(sorted({'torch', 'numpy'} & set(sys.modules))))"
    environment = {**os.environ, "PYTHONPATH": HOUSE}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_every_name_is_there_and_no_other():
    assert all(getattr(testing, name) is not None for name in testing.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = testing.Nonsense
