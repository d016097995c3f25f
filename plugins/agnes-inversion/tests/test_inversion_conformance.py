"""What AGNES asks of every inversion method."""

from __future__ import annotations

from agnes_inversion.abs import AbsFeature, AbsMask
from agnes_inversion.neural_cleanse import NeuralCleanse
from agnes_inversion.tao import TaoInversion
from agnes_inversion.two_stage import TwoStage

from agnes.testing import InversionChecks


class TestTaoInversion(InversionChecks):
    method = TaoInversion(steps=30, warm_up=30)


class TestNeuralCleanse(InversionChecks):
    method = NeuralCleanse(steps=10)


class TestAbsMask(InversionChecks):
    method = AbsMask(steps=6, null=3)


class TestAbsFeature(InversionChecks):
    method = AbsFeature(steps=6, null=3)


class TestTwoStage(InversionChecks):
    method = TwoStage(steps=6, null=3)
