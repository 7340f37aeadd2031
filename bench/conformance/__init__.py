"""Conformance suites for plug-ins, for pytest and for ``bench check``.

Subclass one under a name that pytest collects and say which plug-in it tests::

    from bench.conformance import MethodConformance

    class TestMine(MethodConformance):
        method = "mine[average=5]"  # a name as of --methods, or a Distiller class that is not installed yet
"""

from bench.conformance.method import MethodConformance
from bench.conformance.plugins import CodecConformance, EvaluatorConformance, StudentConformance
from bench.conformance.runner import Outcome, run

__all__ = ["CodecConformance", "EvaluatorConformance", "MethodConformance", "Outcome", "StudentConformance", "run"]
