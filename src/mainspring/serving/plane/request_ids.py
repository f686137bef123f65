"""Request ids for logs and traces: the caller's, else a fresh one."""

from __future__ import annotations

import os
from itertools import count

REQUEST_ID = "x-request-id"  # the header, and gRPC's metadatum
LONGEST_ID = 128


class RequestIds:
    """Names the requests of one process."""

    def __init__(self) -> None:
        self._start = f"{os.urandom(8).hex()}-"
        self._numbers = count(1)

    def name(self, given: str | bytes | None) -> str:
        """Return the id of a request."""
        return repeatable(given) or self.fresh()

    def fresh(self) -> str:
        """Return a unique id."""
        return f"{self._start}{next(self._numbers):x}"


def repeatable(given: str | bytes | None) -> str:
    """Return a caller's name for its request; empty if there is none that can stand in a log's line as it is."""
    if isinstance(given, str) and len(given) <= LONGEST_ID and given.isascii() and given.isprintable():
        return given
    return ""
