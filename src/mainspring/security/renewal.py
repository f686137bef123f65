"""Certificates of a server that runs: the files are loaded again once they have changed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm

from mainspring.core.errors import Invalid
from mainspring.core.renewed_tls import Mark, mark
from mainspring.core.settings import Tls
from mainspring.core.time import SECOND, Clock, SystemClock
from mainspring.security.tls import check

LOOK_S = 1.0
_SETTLED_US = SECOND  # since the last change of a file: a pair is not replaced in one instant
_AGAIN_S = 60.0  # until files that were refused are tried again unchanged: they may have been valid too early

_log = logging.getLogger(__name__)

Loaded = TypeVar("Loaded")


@dataclass(frozen=True, slots=True)
class Renewals:
    """How often files were loaded again or refused, and when what is served expires (UTC epoch microseconds)."""

    loaded: int
    refused: int
    expires: int


class Renewing(Generic[Loaded]):
    """Object made of a certificate's files, such as an SSL context, and made again when they change.

    New files that cannot be served leave the former in use: the reason is logged, and counted.

    Args:
        load: Makes it of files that were checked.

    Attributes:
        current: The newest.

    Raises:
        Invalid: The files cannot be served now; see `tls.check`.
    """

    def __init__(self, tls: Tls, load: Callable[[Tls], Loaded], clock: Clock | None = None) -> None:
        self._tls = tls
        self._load = load
        self._clock = clock or SystemClock()
        self._state = self._seen()
        self._expires = check(tls, now=self._clock.now()).expires
        self.current = load(tls)
        self._loaded = self._refused = 0
        self._told = ""
        self._again = 0.0

    @property
    def renewals(self) -> Renewals:
        return Renewals(self._loaded, self._refused, self._expires)

    def look(self) -> bool:
        """Load the files if they have changed and none was written within a second. Return whether they were."""
        state, now = self._seen(), self._clock.now()
        pending = bool(self._told) and time.monotonic() >= self._again
        if state == self._state and not pending:
            return False
        changed = max((each[0] // 1000 for each in state if each is not None), default=0)
        if 0 <= now - changed < _SETTLED_US:
            return False
        self._state = state
        try:
            expires = check(self._tls, now=now).expires
            self.current = self._load(self._tls)
        except (Invalid, OSError, ValueError, UnsupportedAlgorithm) as error:
            self._refused += 1
            self._again = time.monotonic() + _AGAIN_S
            if str(error) != self._told:
                _log.error("The former certificate stays in use: %s", error)
            self._told = str(error) or type(error).__name__
            return False
        self._expires, self._told = expires, ""
        self._loaded += 1
        _log.info("The certificate %s was loaded again.", self._tls.cert)
        return True

    def _seen(self) -> list[Mark]:
        return [mark(each) for each in (self._tls.cert, self._tls.key, self._tls.client_ca) if each is not None]
