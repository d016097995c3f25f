"""What AGNES asks of every abstraction method, asked of deepabstract."""

from __future__ import annotations

from agnes_abstraction.deepabstract import DeepAbstract

from agnes.testing import AbstractionChecks


class TestDeepAbstract(AbstractionChecks):
    method = DeepAbstract()
    networks = ("fully_connected", "batch_norm", "average_pooled")
