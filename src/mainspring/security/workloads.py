"""Tokens of workloads: a platform's word on what runs there (Kubernetes, GitHub Actions, a cloud), which stands for a
service account by stated claims.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mainspring.core.errors import Denied
from mainspring.core.settings import Workload, WorkloadIssuer
from mainspring.core.time import Clock
from mainspring.security.hosts import subject_pattern
from mainspring.security.issuers import Issuer
from mainspring.security.tokens import LEEWAY_US, NotAccepted, expiry, parse


class Workloads:
    """Workloads of the configured issuers.

    Args:
        waits: Whether a call may wait for an issuer; without it `Unchecked` is raised instead.
    """

    def __init__(self, issuers: Sequence[WorkloadIssuer], clock: Clock, *, waits: bool) -> None:
        self._waits = waits
        self._issuers = {each.issuer.url: (Issuer(each.issuer, clock), _rules(each.workloads)) for each in issuers}

    def identify(self, text: str) -> tuple[str, int]:
        """Return the service account that a token stands for, and until when (UTC epoch microseconds).

        Raises:
            NotAccepted: It is not valid here.
            Denied: It is valid, and of no workload that is configured, or of several.
            Unchecked, Unavailable: See `Issuer.verify`.
        """
        token = parse(text)
        issuer = token.claims.get("iss")
        known = self._issuers.get(issuer) if isinstance(issuer, str) else None
        if known is None:
            raise NotAccepted("it is of another issuer")
        if token.typ not in ("", "jwt", "at+jwt"):
            raise NotAccepted("it is not of a workload")
        claims = known[0].waited(token) if self._waits else known[0].verify(token)
        accounts = {
            account for account, fits, named in known[1] if fits.fullmatch(claims["sub"]) and _has(claims, named)
        }
        if len(accounts) != 1:
            how = "no workload" if not accounts else "several workloads"
            raise Denied(
                f"The token is valid, and of {how} of this installation.", fix="ask its operator: see `workloads`."
            )
        return accounts.pop(), expiry(claims) + LEEWAY_US


def _rules(given: Sequence[Workload]) -> list[tuple[str, re.Pattern[str], Mapping[str, str]]]:
    return [(each.account, subject_pattern(each.subject), each.claims) for each in given]


def _has(claims: Mapping[str, Any], named: Mapping[str, str]) -> bool:
    return all(claims.get(name) == value for name, value in named.items())
