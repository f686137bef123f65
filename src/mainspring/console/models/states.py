"""Present state of a version, in one word."""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.console.models.listing import CHAMPION
from mainspring.registry.model import Deletion, ModelVersion

# Word -> the stylesheet's class, and what a person reads.
STATES: Mapping[str, tuple[str, str]] = {
    "live": ("live", "Live"),
    "champion": ("fresh", "Champion"),
    "removing": ("alert", "Being removed"),
    "marked": ("drifted", "Marked for deletion"),
    "registered": ("plain", "Registered"),
}


def state_of(version: ModelVersion, mark: Deletion | None, serves: Mapping[str, float]) -> str:
    """Return the word of `STATES`. A deletion mark takes precedence over an alias: a marked version cannot go live."""
    if serves:
        return "live"
    if mark is not None:
        return "removing" if mark.claimed else "marked"
    return "champion" if CHAMPION in version.aliases else "registered"
