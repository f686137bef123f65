"""What every adapter of the registry's ports has to do. Derive a test class and give it the fixture."""

from mainspring.registry.conformance.blobs import BlobsConformance
from mainspring.registry.conformance.decisions import (
    ApprovalsConformance,
    DeletionsConformance,
    TrustedKeysConformance,
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
]
