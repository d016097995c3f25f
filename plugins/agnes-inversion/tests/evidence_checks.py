"""What a diagnosis with a trigger in its evidence promises of both."""

from agnes.results import Evidence
from agnes.testing import DiagnosisChecks, InversionChecks


class EvidenceChecks(DiagnosisChecks):
    """Evidence that comes with a trigger that can be applied and stored as an inversion's can."""

    def check(self, results, network, samples):
        super().check(results, network, samples)
        items = [results] if isinstance(results, Evidence) else results
        triggers = [evidence.trigger for evidence in items if evidence.trigger is not None]
        assert triggers, "no evidence has a trigger"
        InversionChecks().check(triggers, network, samples)
