"""Two suites: what every routing table must do (`RoutesConformance`, for pytest), and what every server of the Open
Inference Protocol must (`python -m mainspring.serving.conformance URL`, which needs neither pytest nor a client).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mainspring.serving.conformance.routes import RoutesConformance as RoutesConformance

__all__ = ["RoutesConformance"]


def __getattr__(name: str) -> Any:
    if name != "RoutesConformance":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mainspring.serving.conformance.routes import RoutesConformance  # imports pytest

    return RoutesConformance
