"""Calls of a server of models that the profile names, such as `/v1/embeddings` and `/v1/rerank`."""

from __future__ import annotations

import threading
import time

from mainspring.core.circuit_breaker import Breaker, BreakerRule
from mainspring.core.http_exchange import FAILURES, Reply, exchange
from mainspring.core.settings import UpstreamServer

MOST_BYTES = 64 << 20  # of an answer
# A search waits for a server in one of few threads: two that waited in vain are enough.
_RULE = BreakerRule(window="30s", least=2, opens="1s", longest="30s", probes=1)


class Circuit:
    """Circuit breaker of a server that threads call."""

    def __init__(self) -> None:
        self._breaker, self._lock = Breaker(_RULE), threading.Lock()

    def begin(self) -> bool:
        """Return whether a call may go; then say how it `ended`."""
        with self._lock:
            return self._breaker.begin(_now())

    def ended(self, *, answered: bool) -> None:
        """Count a call."""
        with self._lock:
            (self._breaker.succeeded if answered else self._breaker.failed)(_now())


def _now() -> int:
    return time.monotonic_ns() // 1000


def post(server: UpstreamServer, key: str, path: str, body: bytes, within_s: float) -> Reply | None:
    """Return what a server answers to a body of JSON; `None` if it does not, within the time.

    Args:
        key: Sent as a bearer's token; empty: none is sent.
        path: Below the server's address.
    """
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    given = {"ca": server.ca, "cert": server.cert, "cert_key": server.cert_key}
    files = {name: str(file) for name, file in given.items() if file is not None}
    url = f"{server.url.rstrip('/')}/{path}"
    try:
        return exchange("POST", url, body=body, headers=headers, within_s=within_s, most_bytes=MOST_BYTES, **files)
    except FAILURES:
        return None
