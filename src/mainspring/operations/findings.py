"""Outcomes of checks of an installation, as `doctor` reports them."""

from __future__ import annotations

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One check's outcome, as `doctor` reports it."""

    check: str
    ok: bool
    detail: str
    fix: str = ""


def well(check: str, detail: str) -> Finding:
    """Return the outcome of a check that found no problem."""
    return Finding(check=check, ok=True, detail=detail)
