"""Conformance suites of the registry's ports. Derive a test class for each adapter and provide its fixture."""

from mainspring.registry.conformance.blobs import BlobsConformance
from mainspring.registry.conformance.decisions import (
    ApprovalsConformance,
    DeletionsConformance,
    TrustedKeysConformance,
    WaiversConformance,
)
from mainspring.registry.conformance.run_search import RunSearchConformance
from mainspring.registry.conformance.tracking import TrackingConformance
from mainspring.registry.conformance.versions import VersionsConformance

__all__ = [
    "ApprovalsConformance",
    "BlobsConformance",
    "DeletionsConformance",
    "RunSearchConformance",
    "TrackingConformance",
    "TrustedKeysConformance",
    "VersionsConformance",
    "WaiversConformance",
]
