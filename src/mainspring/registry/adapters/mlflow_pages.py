"""More runs than MLflow gives at once: its stores refuse to give over 50,000."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_PAGE = 10_000  # SQLite takes no more than 32,766 values in one statement, and MLflow names each run's id in one


def read_pages(ask: Callable[[int, str | None], Any], limit: int, *, page: int = _PAGE) -> list[Any]:
    """Return up to `limit` of MLflow's runs, each once, however many are added while they are read.

    Args:
        ask: Called with how many and the place where to go on; what it returns has the next place as its `token`.
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
