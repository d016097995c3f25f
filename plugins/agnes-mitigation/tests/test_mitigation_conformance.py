"""What AGNES asks of every mitigation method."""

from __future__ import annotations

from agnes_mitigation.anp import Anp
from agnes_mitigation.clp import Clp
from agnes_mitigation.fine_prune import FinePrune
from agnes_mitigation.ft_sam import FtSam
from agnes_mitigation.i_bau import IBau
from agnes_mitigation.retrain import Retrain
from agnes_mitigation.tac_prune import TacPrune
from agnes_mitigation.unlearn import Unlearn
from agnes_mitigation.weight_prune import WeightPrune
from agnes_mitigation.withstand import Withstand

from agnes.testing import MitigationChecks


class TestTacPrune(MitigationChecks):
    method = TacPrune()


class TestRetrain(MitigationChecks):
    method = Retrain(steps=4, rounds=2)


class TestClp(MitigationChecks):
    method = Clp(u=1.0)


class TestClpAuto(MitigationChecks):
    method = Clp(u="auto", layers="all")


class TestWeightPrune(MitigationChecks):
    method = WeightPrune()


class TestUnlearn(MitigationChecks):
    method = Unlearn(steps=4)


class TestFinePrune(MitigationChecks):
    method = FinePrune(steps=4)


class TestFtSam(MitigationChecks):
    method = FtSam(steps=4)


class TestPlainFineTuning(MitigationChecks):
    method = FtSam(steps=4, rho=0.0)


class TestIBau(MitigationChecks):
    method = IBau(rounds=2, search=3, steps=2)


class TestWithstand(MitigationChecks):
    method = Withstand(steps=4)


class TestAnp(MitigationChecks):
    method = Anp(steps=10)
