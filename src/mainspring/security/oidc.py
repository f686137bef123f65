"""A client of OpenID Connect: authorization code with PKCE (RFC 7636), refresh, and the device flow (RFC 8628)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlencode

from mainspring.core.errors import Denied, Invalid, Unavailable
from mainspring.core.settings import SignIn
from mainspring.security.issuers import Issuer
from mainspring.security.secrets import read_private
from mainspring.security.tokens import LONGEST, NotAccepted, check_identity, parse

_DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
_LONGEST_WAIT_S, _LONGEST_DEVICE_S = 60, 1_800  # between two polls, and in all
_MOST_GROUPS, _LONGEST_NAME = 1_000, 128
_LAST = frozenset({"invalid_grant", "access_denied", "expired_token"})  # errors that end what they answer


class Pending(Unavailable):
    """The person has not confirmed the device yet. `slower` asks for a longer wait between two polls."""

    def __init__(self, *, slower: bool) -> None:
        super().__init__("The sign-in is not confirmed yet.")
        self.slower = slower


class Refused(Unavailable):
    """The provider refuses what it was asked, and will again."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A person, as the identity provider says. Only `issuer` and `subject` together tell who it is."""

    issuer: str
    subject: str
    name: str
    email: str  # empty unless the provider has verified it
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A log-in that has begun in a browser: what it must come back with, and the page that was wanted."""

    state: str
    nonce: str
    verifier: str
    wanted: str


@dataclass(frozen=True, slots=True, repr=False)
class Tokens:
    """Answer of a token endpoint; empty texts where it has none."""

    identity: str
    access: str
    refresh: str
    lifetime_s: int


@dataclass(frozen=True, slots=True, repr=False)
class Device:
    """A device that waits to be confirmed: the code and address to show, and how to poll."""

    code: str
    user_code: str
    address: str
    complete: str  # the address with the code in it; may be empty
    interval_s: int
    lifetime_s: int


class Provider:
    """The identity provider of people.

    Args:
        command_line: Whether the client is the one of the command line, which has no secret.
    """

    def __init__(self, settings: SignIn, issuer: Issuer, *, command_line: bool = False) -> None:
        self.issuer = issuer
        self._settings = settings
        self._public = command_line and bool(settings.cli_client_id)
        self.client = settings.cli_client_id if self._public else settings.client_id

    def begin(self, redirect: str, wanted: str = "/") -> tuple[str, Attempt]:
        """Return the address to send a browser to, and what to check when it comes back.

        Args:
            redirect: Address to which the provider sends the browser back, as it is registered there.

        Raises:
            Unavailable, Invalid: See `Issuer.metadata`.
        """
        attempt = Attempt(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(32), wanted)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(attempt.verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self.client,
            "redirect_uri": redirect,
            "scope": " ".join(self._settings.scopes),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        address = self._endpoint("authorization")
        return f"{address}{'&' if '?' in address else '?'}{urlencode(query)}", attempt

    def finish(self, attempt: Attempt, redirect: str, answer: Mapping[str, str]) -> tuple[Identity, Tokens]:
        """Return who has signed in, from the query with which the browser came back.

        Raises:
            Denied: It is of another attempt, was refused by the provider, or the person is not admitted.
            Unavailable: The provider does not answer.
        """
        if not hmac.compare_digest(answer.get("state", "").encode(errors="surrogatepass"), attempt.state.encode()):
            raise Denied("The sign-in does not belong to this browser.", fix="begin again at the log-in page.")
        if answer.get("iss", self.issuer.url) != self.issuer.url:  # RFC 9207
            raise Denied("The answer is of another identity provider.", fix="begin again at the log-in page.")
        code = answer.get("code", "")
        if "error" in answer or not code:
            raise Denied("The identity provider did not sign you in.", fix="ask its administrator for access.")
        sent = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect}
        tokens = self._tokens({**sent, "code_verifier": attempt.verifier})
        return self.identify(tokens, attempt.nonce), tokens

    def refresh(self, refresh: str) -> Tokens:
        """Return new tokens; the refresh token is the old one where the provider does not replace it.

        Raises:
            Denied: The provider has ended it: the person was removed, or has signed out.
            Unavailable: The provider does not answer.
        """
        tokens = self._tokens({"grant_type": "refresh_token", "refresh_token": refresh})
        return Tokens(tokens.identity, tokens.access, tokens.refresh or refresh, tokens.lifetime_s)

    def identify(self, tokens: Tokens, nonce: str | None) -> Identity:
        """Return whose tokens these are.

        Args:
            nonce: As it was sent; `None` where there was no browser to bind to.

        Raises:
            NotAccepted: The ID token is missing or not valid.
            Denied: The person is not admitted.
        """
        if not tokens.identity:
            raise NotAccepted("there is no ID token")
        token = parse(tokens.identity)
        claims = self.issuer.waited(token)
        trusted = self._settings.issuer.audiences
        check_identity(token, claims, client=self.client, trusted=trusted, nonce=nonce, access=tokens.access or None)
        return identity_of(self._settings, claims)

    def look_up(self, access: str, last: Identity, *, refreshed: bool) -> Identity:
        """Return the person whose access token this is, as the userinfo endpoint describes them now.

        Args:
            last: What was known of the person. A claim that the endpoint leaves out is as it was.
            refreshed: Whether the token is new, which says that the person is there. Then no endpoint is needed.

        Raises:
            Denied: The provider does not know the person any more, or the person is not admitted.
            Invalid: The provider has no such endpoint.
            Unavailable: The provider does not answer.
        """
        if refreshed and not self.issuer.metadata().userinfo:
            document: Any = {"sub": last.subject}
        else:
            headers = {"Authorization": f"Bearer {access}"}
            status, document = self.issuer.request("GET", self._endpoint("userinfo"), headers=headers)
            if status in (401, 403):
                raise Denied("The identity provider has ended this sign-in.", fix="sign in again.")
            if status != 200 or not isinstance(document, dict):
                raise Unavailable(f"The identity provider {self.issuer.url} answered {status}.")
        known: dict[str, Any] = {
            "sub": "",
            self._settings.groups_claim: list(last.groups),
            self._settings.name_claim: last.name,
        }
        if "email" not in document:
            known |= {"email": last.email, "email_verified": bool(last.email)}
        return identity_of(self._settings, {**known, **document, "iss": last.issuer})

    def begin_device(self) -> Device:
        """Begin a sign-in that a person confirms on another device.

        Raises:
            Invalid: The provider has no device flow, or refuses the client.
            Unavailable: The provider does not answer.
        """
        sent = {"client_id": self.client, "scope": " ".join(self._settings.scopes)}
        status, given = self._post(self._endpoint("device"), sent)
        if status != 200 or not isinstance(given, dict):
            raise Invalid(
                f"The identity provider {self.issuer.url} answered {status} to a device.",
                fix="allow this client the device flow there.",
            )
        code, user_code, address = (_text(given, name) for name in ("device_code", "user_code", "verification_uri"))
        if not (code and user_code and address):
            raise Invalid("The identity provider's answer to a device cannot be read.")
        complete, seconds = (
            _text(given, "verification_uri_complete"),
            min(_seconds(given, "interval", 5), _LONGEST_WAIT_S),
        )
        lifetime = min(_seconds(given, "expires_in", 300), _LONGEST_DEVICE_S)
        return Device(code, user_code, address, complete, seconds, lifetime)

    def poll_device(self, device: Device) -> tuple[Identity, Tokens]:
        """Return who has confirmed the device.

        Raises:
            Pending: Nobody has yet: wait, then call again.
            Denied: It was refused, has expired, or the person is not admitted.
            Refused: The provider refuses the client.
            Unavailable: The provider does not answer.
        """
        tokens = self._tokens({"grant_type": _DEVICE, "device_code": device.code})
        return self.identify(tokens, None), tokens

    def end_session(self, back: str) -> str:
        """Return the address that ends the session at the provider; empty if it has none, or does not answer."""
        try:
            address = self.issuer.metadata().end_session
        except (Unavailable, Invalid):
            return ""
        query = urlencode({"client_id": self.client, "post_logout_redirect_uri": back})
        return f"{address}{'&' if '?' in address else '?'}{query}" if address else ""

    def _endpoint(self, name: str) -> str:
        found: str = getattr(self.issuer.metadata(), name)
        if not found:
            raise Invalid(f"The identity provider {self.issuer.url} has no {name} endpoint.")
        return found

    def _tokens(self, sent: Mapping[str, str]) -> Tokens:
        status, given = self._post(self._endpoint("token"), sent)
        error = given.get("error") if isinstance(given, dict) else None
        if error in ("authorization_pending", "slow_down"):
            raise Pending(slower=error == "slow_down")
        if error in _LAST:
            raise Denied("The identity provider has ended this sign-in.", fix="sign in again.")
        if status != 200 or not isinstance(given, dict):
            refused = 400 <= status < 500 and status not in (408, 429)
            raise (Refused if refused else Unavailable)(
                f"The identity provider {self.issuer.url} answered {status} to the client {self.client!r}.",
                fix="see whether client_id, its secret and its redirect address are as they are registered there.",
            )
        identity, access, refresh = (_text(given, name) for name in ("id_token", "access_token", "refresh_token"))
        return Tokens(identity, access, refresh, _seconds(given, "expires_in", 300))

    def _post(self, address: str, sent: Mapping[str, str]) -> tuple[int, Any]:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        secret = "" if self._public else self._secret()
        if secret:
            pair = f"{quote_plus(self.client)}:{quote_plus(secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            sent = {**sent, "client_id": self.client}
        return self.issuer.request("POST", address, body=urlencode(sent).encode(), headers=headers)

    def _secret(self) -> str:
        file = self._settings.client_secret_file
        if file is None:
            return self._settings.client_secret
        return read_private(file, "client's secret").decode().strip()


def _text(given: Mapping[str, Any], name: str) -> str:
    """Return a printable text of an answer, empty without one."""
    found = given.get(name, "")
    if not isinstance(found, str) or len(found) > LONGEST or not found.isprintable():
        raise NotAccepted("the answer of the identity provider cannot be read")
    return found


def _seconds(given: Mapping[str, Any], name: str, default: int) -> int:
    found = given.get(name)
    return found if isinstance(found, int) and 0 < found < 86_400 * 366 else default


def identity_of(settings: SignIn, claims: Mapping[str, Any]) -> Identity:
    """Return the person whose verified claims these are.

    Raises:
        Denied: The person is not among those who are admitted.
    """
    email = claims.get("email") if claims.get("email_verified") is True else None
    email = email if isinstance(email, str) and email.isprintable() and len(email) <= 254 else ""
    listed = claims.get(settings.groups_claim, [])
    groups = tuple(each for each in listed if isinstance(each, str)) if isinstance(listed, list) else ()
    domain = email.rpartition("@")[2].lower()
    refused = (settings.allowed_domains and domain not in settings.allowed_domains) or (
        settings.allowed_groups and not set(groups) & set(settings.allowed_groups)
    )
    if refused:
        raise Denied(
            "Your account at the identity provider may not use this installation.",
            fix="ask its administrator: allowed_groups and allowed_domains say who may.",
        )
    subject = str(claims["sub"])
    name = claims.get(settings.name_claim)
    named = name if isinstance(name, str) and name.strip() and name.isprintable() else email or subject
    return Identity(str(claims["iss"]), subject, named[:_LONGEST_NAME], email, groups[:_MOST_GROUPS])
