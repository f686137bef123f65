"""Signed tokens of identity providers: JWS in compact form (RFC 7515) with claims (RFC 7519), as RFC 8725 says to check
them.

The header chooses a key and nothing else: `jku`, `jwk`, `x5u` and `x5c` are never read, and `crit` is refused. A key
verifies with the algorithms of its own type, so no token decides that a public key is a secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Denied, Invalid, MissingExtra
from mainspring.core.time import SECOND

if TYPE_CHECKING:
    from joserfc.jwk import Key

LEEWAY_US = 30 * SECOND  # by which the clocks of a provider and of this machine may differ
LONGEST = 16 * 1024  # characters of a token
_COMPACT = re.compile(r"([A-Za-z0-9_-]{1,4096})\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{1,2048})")
_MOST_KEYS = 64
_RSA_BITS = range(2048, 8193)
# Name in a header -> (type of key, curve, name in the library). EdDSA is RFC 8037's name of Ed25519.
_ALGORITHMS: Mapping[str, tuple[str, str | None, str]] = {
    "RS256": ("RSA", None, "RS256"),
    "PS256": ("RSA", None, "PS256"),
    "ES256": ("EC", "P-256", "ES256"),
    "EdDSA": ("OKP", "Ed25519", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519", "Ed25519"),
}
ALGORITHMS = tuple(_ALGORITHMS)
_PUBLIC = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_FIX = "sign in again; if that does not help, ask the administrator of the identity provider."


class NotAccepted(Denied):
    """A token that is not valid here. The message names the reason, and nothing of the token."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The token is not accepted: {reason}.", fix=_FIX)


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it was sent. Nothing of it can be trusted before `verified`."""

    algorithm: str
    kid: str | None
    typ: str
    claims: Mapping[str, Any]
    signed: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key of an issuer. `only` is the one algorithm that it is for, empty for any of its type."""

    kid: str | None
    kind: str
    curve: str | None
    only: str
    key: Key


def parse(text: str) -> Token:
    """Return the parts of a token.

    Raises:
        NotAccepted: It is no JWS in compact form with claims, or its algorithm is not one of `ALGORITHMS`.
    """
    parts = _COMPACT.fullmatch(text) if len(text) <= LONGEST else None
    if parts is None:
        raise NotAccepted("it is not a signed token")
    header, claims = _object(parts[1]), _object(parts[2])
    if "crit" in header or "b64" in header:
        raise NotAccepted("its header has an extension")
    algorithm, kid, typ = header.get("alg"), header.get("kid"), header.get("typ", "")
    if not isinstance(algorithm, str) or algorithm not in _ALGORITHMS:
        raise NotAccepted(f"its algorithm is not one of {', '.join(ALGORITHMS)}")
    if not isinstance(kid, str | None) or not isinstance(typ, str):
        raise NotAccepted("its header is malformed")
    signed = f"{parts[1]}.{parts[2]}".encode()
    return Token(algorithm, kid, typ.lower().removeprefix("application/"), claims, signed, _decoded(parts[3]))


def _decoded(text: str) -> bytes:
    """Return the bytes of base64url without padding; a second spelling of the same bytes is refused."""
    try:
        content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise NotAccepted("it is not base64url") from None
    if base64.urlsafe_b64encode(content).rstrip(b"=") != text.encode():
        raise NotAccepted("it is not base64url")
    return content


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(_decoded(text).decode(), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise NotAccepted("it is not JSON") from None
    if not isinstance(found, dict):
        raise NotAccepted("it is not a JSON object")
    return found


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")  # which of the two counts would depend on the parser
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def read_keys(document: Any) -> tuple[VerifyingKey, ...]:
    """Return the keys of a JWK set that can verify a signature here; others are left out (RFC 7517, section 5).

    Raises:
        Invalid: It is not a JWK set, or has over 64 keys.
        MissingExtra: The extra `oidc` is not installed.
    """
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(listed) > _MOST_KEYS:
        raise Invalid(f"The answer is not a JWK set of at most {_MOST_KEYS} keys.")
    return tuple(key for key in map(_key, listed) if key is not None)


def _key(given: Any) -> VerifyingKey | None:
    try:
        from joserfc.errors import JoseError
        from joserfc.jwk import JWKRegistry
    except ImportError as error:
        raise MissingExtra("Sign-in with an identity provider (joserfc)", "oidc") from error
    kind = given.get("kty") if isinstance(given, dict) else None
    if not isinstance(kind, str) or kind not in _PUBLIC or given.get("use", "sig") != "sig":
        return None
    kid, only, operations = given.get("kid"), given.get("alg", ""), given.get("key_ops", ["verify"])
    if not isinstance(kid, str | None) or not isinstance(only, str) or not isinstance(operations, list):
        return None
    if "verify" not in operations:
        return None
    if kind == "RSA" and not _modulus_fits(given.get("n")):
        return None
    try:
        key = JWKRegistry.import_key({"kty": kind, **{name: given[name] for name in _PUBLIC[kind]}})
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return VerifyingKey(kid, kind, given.get("crv"), only, key)


def _modulus_fits(text: Any) -> bool:
    """Return whether an RSA key is neither too small to be safe nor so large that each signature takes long."""
    try:
        return int.from_bytes(_decoded(text)).bit_length() in _RSA_BITS if isinstance(text, str) else False
    except NotAccepted:
        return False


def verified(token: Token, keys: Sequence[VerifyingKey]) -> Mapping[str, Any]:
    """Return a token's claims if one of these keys signed it.

    Raises:
        NotAccepted: No key has its `kid` and is for its algorithm, or the signature is another's.
    """
    from joserfc.jws import JWSRegistry

    key = key_of(token, keys)
    if key is None:
        raise NotAccepted("its issuer has no key of that name for its algorithm")
    algorithm = JWSRegistry.algorithms[_ALGORITHMS[token.algorithm][2]]
    if not algorithm.verify(token.signed, token.signature, key.key):
        raise NotAccepted("its signature is wrong")
    return token.claims


def key_of(token: Token, keys: Sequence[VerifyingKey]) -> VerifyingKey | None:
    """Return the key that a token names; without a `kid` the only one for its algorithm, if there is but one."""
    kind, curve, _ = _ALGORITHMS[token.algorithm]
    fitting = [
        key
        for key in keys
        if key.kind == kind
        and key.curve == (curve or key.curve)
        and key.only in ("", token.algorithm)
        and token.kid in (None, key.kid)
    ]
    return fitting[0] if len(fitting) == 1 else None


def check_claims(claims: Mapping[str, Any], *, issuer: str, audiences: Collection[str], now: int) -> str:
    """Check issuer, audience and times, and return the subject.

    Args:
        audiences: Names of this installation, one of which the token must be for.
        now: UTC epoch microseconds.

    Raises:
        NotAccepted: A claim is missing or is not as it has to be.
    """
    if claims.get("iss") != issuer:
        raise NotAccepted("it is of another issuer")
    if not audiences_of(claims) & set(audiences):
        raise NotAccepted("it is for another audience")
    expires, begins, issued = (_instant(claims, name) for name in ("exp", "nbf", "iat"))
    if expires is None:
        raise NotAccepted("it has no expiry")
    if expires + LEEWAY_US <= now:
        raise NotAccepted("it has expired")
    if max(begins or 0, issued or 0) - LEEWAY_US > now:
        raise NotAccepted("it is not valid yet; see whether this machine's clock is right")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not (0 < len(subject) <= 255 and subject.isprintable()):
        raise NotAccepted("it has no subject")
    return subject


def audiences_of(claims: Mapping[str, Any]) -> frozenset[str]:
    """Return the audiences of a token.

    Raises:
        NotAccepted: They are malformed.
    """
    given = claims.get("aud", [])
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise NotAccepted("its audience is malformed")
    return frozenset(listed)


def expiry(claims: Mapping[str, Any]) -> int:
    """Return the expiry (UTC epoch microseconds) of claims that were checked."""
    return _instant(claims, "exp") or 0


def _instant(claims: Mapping[str, Any], name: str) -> int | None:
    """Return an instant in UTC epoch microseconds."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        raise NotAccepted(f"its {name} is not an instant")
    return int(value * SECOND)


def check_identity(
    token: Token,
    claims: Mapping[str, Any],
    *,
    client: str,
    trusted: Collection[str],
    nonce: str | None,
    access: str | None,
) -> None:
    """Check what an ID token has beyond other tokens (OpenID Connect Core 1.0, sections 3.1.3.7 and 3.1.3.8).

    Args:
        client: This client's id at the provider.
        trusted: Audiences that it may have beside the client.
        nonce: As this client has sent it; `None` if it has sent none.
        access: Access token that came with it; its hash is checked where the ID token has one.

    Raises:
        NotAccepted: It is of another log-in, for another client, or no ID token.
    """
    if token.typ not in ("", "jwt"):
        raise NotAccepted("it is not an ID token")
    audiences, party = audiences_of(claims), claims.get("azp")
    if client not in audiences or audiences - {client, *trusted}:
        raise NotAccepted("it is for another audience")
    if party != client and (party is not None or len(audiences) > 1):
        raise NotAccepted("it was issued to another client")
    if claims.get("iat") is None:
        raise NotAccepted("it does not say when it was issued")
    given = claims.get("nonce")
    if nonce is not None and not (isinstance(given, str) and _equal(given, nonce)):
        raise NotAccepted("it is of another log-in")
    digest = claims.get("at_hash")
    if digest is not None and access is not None:
        expected = _half_hash(access, token.algorithm)
        if not isinstance(digest, str) or not _equal(digest, expected):
            raise NotAccepted("it came with another's access token")


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(errors="surrogatepass"), expected.encode())


def _half_hash(text: str, algorithm: str) -> str:
    """Return the left half of the hash of the signature's algorithm: SHA-256, for Ed25519 SHA-512."""
    hashed = (hashlib.sha512 if algorithm in ("EdDSA", "Ed25519") else hashlib.sha256)(text.encode()).digest()
    return base64.urlsafe_b64encode(hashed[: len(hashed) // 2]).rstrip(b"=").decode()
