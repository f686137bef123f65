"""One check's outcome, as `doctor` tells it."""

from __future__ import annotations

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One check's outcome."""

    check: str
    ok: bool
    detail: str
    fix: str = ""


def well(check: str, detail: str) -> Finding:
    return Finding(check=check, ok=True, detail=detail)
