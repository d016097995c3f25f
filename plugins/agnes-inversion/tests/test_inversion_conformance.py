"""What AGNES asks of every inversion method."""

from __future__ import annotations

from agnes_inversion.tao import TaoInversion

from agnes.testing import InversionChecks


class TestTaoInversion(InversionChecks):
    method = TaoInversion(steps=30, warm_up=30)
