"""Endpoints that are asked rarely, or not at all, and what they cost meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEAST_DAYS = 7  # of data, before anything is advised
FEW = 1.0  # requests an hour


@dataclass(frozen=True, slots=True)
class Idle:
    """An endpoint that is idle most of the time.

    Attributes:
        requests: In all days; `quiet`: days without any.
        cost: Of an average month.
        saved: Of that, if it left memory on days without requests; with no request at all, its whole cost.
    """

    endpoint: str
    requests: int
    days: int
    quiet: int
    cost: float
    saved: float


def idle_endpoints(
    requests: Mapping[str, Sequence[int]], costs: Mapping[str, Sequence[float]], *, month_days: float = 365 / 12
) -> list[Idle]:
    """Return the endpoints with at most one request an hour on average, the dearest first.

    Args:
        requests: Endpoint -> requests by day, of all days that were metered.
        costs: Endpoint -> its own cost by day, of the same days: memory of its models, and processor time.

    Endpoints with fewer than seven days of data are left out.
    """
    found = []
    for endpoint, counts in requests.items():
        days, own = len(counts), costs.get(endpoint, ())
        if days < LEAST_DAYS or sum(counts) > FEW * 24 * days:
            continue
        quiet = [place for place, count in enumerate(counts) if not count]
        month = sum(own) / days * month_days
        saved = month if not sum(counts) else sum(own[place] for place in quiet if place < len(own)) / days * month_days
        found.append(Idle(endpoint, sum(counts), days, len(quiet), month, saved))
    return sorted(found, key=lambda each: (-each.cost, each.endpoint))
