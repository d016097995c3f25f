"""What AGNES asks of every mitigation method."""

from __future__ import annotations

from agnes_mitigation.tac_prune import TacPrune

from agnes.testing import MitigationChecks


class TestTacPrune(MitigationChecks):
    method = TacPrune()
