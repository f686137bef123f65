"""Pagination over MLflow's run search, which returns at most 50,000 runs per call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_PAGE = 10_000  # MLflow puts every run id into one statement, and SQLite allows 32,766 values


def read_pages(ask: Callable[[int, str | None], Any], limit: int, *, page: int = _PAGE) -> list[Any]:
    """Return up to `limit` MLflow runs without duplicates, even if runs are added meanwhile.

    Args:
        ask: Called with a page size and a page token (None at first); its result has the next page's `token`.
    """
    found: dict[str, Any] = {}
    token = None
    while len(found) < limit:
        part = ask(min(page, limit - len(found)), token)
        found.update((run.info.run_id, run) for run in part)
        token = part.token
        if not token:
            break
    return list(found.values())
