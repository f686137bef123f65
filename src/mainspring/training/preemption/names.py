"""Names of clouds that announce a preemption."""

from __future__ import annotations

from mainspring.core.errors import Invalid

NAMES = ("aws", "gcp", "azure")
DETECT = "detect"  # the one that the machine's firmware names


def check_name(name: str) -> None:
    """Raise unless notices of that name can be heard; empty for none.

    Raises:
        Invalid: The name is unknown.
    """
    if name and name not in (*NAMES, DETECT):
        raise Invalid(f"There is no cloud {name!r}.", fix=f"use one of {', '.join(NAMES)}, or {DETECT!r}.")
