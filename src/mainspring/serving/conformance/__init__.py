"""Conformance suites of serving's ports, for pytest. The protocol's is a distribution of its own: oip-conformance."""

from mainspring.serving.conformance.routes import RoutesConformance as RoutesConformance

__all__ = ["RoutesConformance"]
