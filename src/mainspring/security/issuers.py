"""Issuers of tokens: their discovery documents and keys, fetched from the configured address alone and cached.

Keys are fetched again an hour after the last time, and for a token that names a key which is not known, but no sooner
than `RETRY_S` after the last try. While the issuer is away its keys stay valid for `KEEP_S` after they were fetched.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mainspring.core.errors import Invalid, MainspringError, Unavailable
from mainspring.core.http_exchange import FAILURES, Reply, exchange
from mainspring.core.settings import TrustedIssuer
from mainspring.core.time import Clock
from mainspring.security.hosts import check_address
from mainspring.security.ports import Unchecked
from mainspring.security.tokens import Token, VerifyingKey, check_claims, key_of, read_keys, verified

REFRESH_S = 3_600.0
RETRY_S = 30.0
FIRST_RETRY_S = 5.0  # where there are no keys at all
KEEP_S = 86_400.0
WITHIN_S = 5.0  # of a connection, and of its answer
MOST_BYTES = 256 * 1024

Ask = Callable[..., Reply]


@dataclass(frozen=True, slots=True)
class Metadata:
    """An issuer's discovery document, as far as it is used here. Empty: the provider has no such endpoint."""

    keys: str
    authorization: str = ""
    token: str = ""
    userinfo: str = ""
    device: str = ""
    end_session: str = ""


_ENDPOINTS = {
    "authorization": "authorization_endpoint",
    "token": "token_endpoint",
    "userinfo": "userinfo_endpoint",
    "device": "device_authorization_endpoint",
    "end_session": "end_session_endpoint",
}


class Issuer:
    """An issuer with its keys, for any number of threads. No request waits for it unless it has to.

    Args:
        ask: Sends a request, as `core.http_exchange.exchange` does.
        monotonic: Returns seconds.
    """

    def __init__(
        self,
        settings: TrustedIssuer,
        clock: Clock,
        *,
        ask: Ask = exchange,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = settings.url
        self._settings = settings
        self._clock = clock
        self._ask = ask
        self._monotonic = monotonic
        self._changing = threading.Lock()
        self._keys: tuple[VerifyingKey, ...] = ()
        self._fetched: float | None = None
        self._tried: float | None = None
        self._fetching: Future[None] | None = None
        self._failed: MainspringError | None = None
        self._metadata: tuple[float, Metadata] | None = None

    def verify(self, token: Token) -> Mapping[str, Any]:
        """Return the claims of a token of this issuer for one of its audiences, its times checked.

        Raises:
            NotAccepted: It is not valid here.
            Unchecked: The keys are being fetched: wait, then call again.
            Unavailable: There are no keys, as the issuer does not answer.
        """
        # The claims cost nothing to look at: a token that cannot be valid fetches no keys.
        check_claims(token.claims, issuer=self.url, audiences=self._settings.audiences, now=self._clock.now())
        return verified(token, self._keys_for(token))

    def waited(self, token: Token, longest_s: float = 2 * WITHIN_S) -> Mapping[str, Any]:
        """Do as `verify` does, but wait for the keys where they have to be fetched."""
        try:
            return self.verify(token)
        except Unchecked as unchecked:
            unchecked.block(longest_s)
            return self.verify(token)

    def _keys_for(self, token: Token) -> tuple[VerifyingKey, ...]:
        with self._changing:
            now = self._monotonic()
            age = None if self._fetched is None else now - self._fetched
            usable = age is not None and age < KEEP_S
            named = usable and key_of(token, self._keys) is not None
            due = self._tried is None or now - self._tried >= (RETRY_S if usable else FIRST_RETRY_S)
            if due and self._fetching is None and (not named or (age or 0.0) >= REFRESH_S):
                self._tried, self._fetching = now, Future()
                threading.Thread(target=self._fetch, args=(self._fetching,), daemon=True).start()
            if named:
                return self._keys
            if self._fetching is not None:
                raise Unchecked(f"The keys of {self.url} are being fetched.", self._fetching)
            if usable:
                return self._keys  # without the key that the token names
            raise Unavailable(f"There are no keys of {self.url}: {self._failed}")

    def _fetch(self, done: Future[None]) -> None:
        keys, failed = None, None
        try:
            keys = read_keys(self._key_set())
        except MainspringError as error:
            failed = error
        finally:
            with self._changing:
                self._failed, self._fetching = failed, None
                if keys is not None:
                    self._keys, self._fetched = keys, self._monotonic()
            done.set_result(None)

    def _key_set(self) -> Any:
        if self._settings.keys is None:
            return self.get_json(self.metadata(fresh=True).keys)
        try:
            return json.loads(self._settings.keys.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise Unavailable(f"The key set {self._settings.keys} cannot be read: {error}.") from None

    def metadata(self, *, fresh: bool = False) -> Metadata:
        """Return the discovery document, fetched at most an hour ago; while the issuer is away, the last one.

        Args:
            fresh: Fetch it now; the last one is not taken instead.

        Raises:
            Unavailable: The issuer does not answer.
            Invalid: Its document is of another issuer, or names addresses that are not safe.
        """
        kept, now = self._metadata, self._monotonic()
        if kept is not None and not fresh and now - kept[0] < REFRESH_S:
            return kept[1]
        try:
            found = self._discovered()
        except Unavailable:
            if kept is None or fresh:
                raise
            found = kept[1]  # asked for again in an hour
        self._metadata = now, found
        return found

    def _discovered(self) -> Metadata:
        document = self.get_json(f"{self.url.rstrip('/')}/.well-known/openid-configuration")
        if not isinstance(document, dict) or document.get("issuer") != self.url:
            raise Invalid(
                f"The discovery document at {self.url} is of another issuer.",
                fix="write the issuer exactly as its own document does, with or without the slash at its end.",
            )
        own = {check_address(self.url, "The issuer"), *self._settings.hosts}
        keys = self._address(document, "jwks_uri")
        if urlsplit(keys).hostname not in own:
            raise Invalid(
                f"The keys of {self.url} are on another host.",
                fix="if that host is the provider's too, add its name to `hosts`.",
            )
        return Metadata(keys, **{name: self._address(document, full) for name, full in _ENDPOINTS.items()})

    def _address(self, document: Mapping[str, Any], name: str) -> str:
        found = document.get(name)
        if found is None:
            return ""
        what = f"{name} of the identity provider"
        if not isinstance(found, str):
            raise Invalid(f"{what} is not an address.")
        check_address(found, what, loopback=self.url.startswith("http:"))
        return found

    def get_json(self, url: str, *, headers: Mapping[str, str] | None = None) -> Any:
        """Return the JSON at an address of the issuer. Raises as `request` does."""
        status, document = self.request("GET", url, headers=headers)
        if status != 200:
            raise Unavailable(f"The identity provider {self.url} answered {status}.")
        return document

    def request(
        self, method: str, url: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Send a request to the issuer, and return the status and the JSON of its answer.

        Raises:
            Unavailable: There is no answer in time, or it is too large or no JSON.
        """
        settings = self._settings
        sent = {"Accept": "application/json", **(headers or {})}
        try:
            reply = self._ask(
                method,
                url,
                body=body,
                headers=sent,
                within_s=WITHIN_S,
                most_bytes=MOST_BYTES,
                ca=None if settings.ca is None else str(settings.ca),
            )
            if not reply.whole:
                raise Unavailable(f"The identity provider {self.url} answered more than {MOST_BYTES // 1024} KiB.")
            return reply.status, json.loads(reply.body)
        except (*FAILURES, RecursionError) as error:
            said = str(error).strip() or type(error).__name__
            raise Unavailable(f"The identity provider {self.url} gave no usable answer: {said}.") from None
