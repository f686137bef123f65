"""Requests to a metadata service."""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.core.http_exchange import FAILURES, Reply, exchange
from mainspring.training.preemption.notices import Unheard

_MOST = 64 << 10  # bytes of an answer


def ask(cloud: str, url: str, headers: Mapping[str, str], *, within_s: float = 5.0, method: str = "GET") -> Reply:
    """Return an answer, of any status.

    Raises:
        Unheard: There is none.
    """
    try:
        return exchange(method, url, headers=headers, within_s=within_s, most_bytes=_MOST)
    except FAILURES as error:
        raise Unheard(f"The metadata service of {cloud} does not answer: {type(error).__name__}: {error}.") from error


def unexpected(cloud: str, reply: Reply) -> Unheard:
    """Return the error of an answer that the service does not give."""
    said = reply.body[:80].decode(errors="replace")
    return Unheard(f"The metadata service of {cloud} answers with status {reply.status}: {said!r}.")
