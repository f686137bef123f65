"""API keys: created and shown once, stored as an HMAC.

A token is `msp_<id>_<secret><crc32>`: the prefix lets scanners find a leaked one, the id finds its row, the secret has
256 random bits, and the checksum detects typing errors before a look-up.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
import zlib
from collections.abc import Callable, Iterable
from functools import partial

from mainspring.core.errors import Denied, Invalid
from mainspring.core.ids import new_id
from mainspring.core.time import DAY, Clock
from mainspring.security.model import EVERY_ROLE, ApiKey, Holder, KeyScope, Kind, Principal
from mainspring.security.ports import FindsHolders, FindsKeys, KeyStore

_TOKEN = re.compile(r"(msp_([0-9a-z]{26})_[0-9A-Za-z]{43})([0-9a-f]{8})")
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # 43 of these are 256 bits
_KEEP_S = 1.0  # how long a key found in the store is trusted: a revocation takes effect later by as much
_KEEP_KEYS = 4096
_LONGEST_LIFETIME = 10 * 366 * DAY
_GET_ONE = "run `mainspring keys create`, or ask the operator of this installation."


def issue(
    store: KeyStore,
    *,
    name: str,
    scopes: Iterable[KeyScope],
    lifetime_us: int,
    clock: Clock,
    pepper: bytes,
    created_by: str = "",
    owner: str = "",
) -> str:
    """Store a new key and return its token, which cannot be shown again.

    Args:
        name: User of the key, for people; 1 to 128 printable characters.
        scopes: Permitted actions, at least one.
        lifetime_us: Microseconds until it expires, counted from now.
        created_by: Creator of the key, as named by `registry.processes.local_user`.
        owner: Id of the account whose roles bound the key; empty for a key that has every role.

    Raises:
        Invalid: The name is empty or not printable, there is no scope, or the lifetime is not
            positive, or over ten years.
    """
    allowed = frozenset(KeyScope(scope) for scope in scopes)
    if not (0 < len(name) <= 128 and name.isprintable() and name.strip()):
        raise Invalid(f"{name[:140]!r} cannot name a key.", fix="use 1 to 128 printable characters.")
    if not allowed:
        raise Invalid(f"Key {name!r} has no scope.", fix=f"give it at least one of: {', '.join(KeyScope)}.")
    if lifetime_us <= 0:
        raise Invalid(f"Key {name!r} has a lifetime of {lifetime_us} µs.", fix="give it a positive one, such as 90d.")
    if lifetime_us > _LONGEST_LIFETIME:
        raise Invalid(
            f"Key {name!r} has a lifetime of more than ten years.", fix="give it a shorter lifetime, such as 90d."
        )
    key_id = new_id()
    body = f"msp_{key_id}_{''.join(secrets.choice(_ALPHABET) for _ in range(43))}"
    token = f"{body}{_checksum(body)}"
    now = clock.now()
    digest = _digest(pepper, token)
    store.add(ApiKey(key_id, name, allowed, digest, now, now + lifetime_us, created_by=created_by, owner=owner))
    return token


def person_of(store: FindsKeys, principal: Principal) -> str:
    """Return who acts: the account, as `user:ID` or `service:ID`, or the person of a key; empty if unknown."""
    if principal.kind is not Kind.KEY:
        return f"{principal.kind}:{principal.id}"
    key = store.find(principal.id)
    return "" if key is None else key.person


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"


def _digest(pepper: bytes, token: str) -> bytes:
    return hmac.digest(pepper, token.encode(), hashlib.sha256)


_PREFIX = "msp_"
_UNKNOWN: tuple[float, ApiKey | None] = (0.0, None)


def _nobody(_: str) -> Holder | None:
    return None


class Authenticator:
    """Authenticates callers. A key's row, a verified header and an account are cached for a second.

    Args:
        accounts: Accounts of people who sign in without a key, and of workloads.
        people: Returns the id of the account of a person's token and until when, or `None` for other tokens, as
            `person_tokens.PersonTokens.identify` does.
        workloads: Returns the service account that a workload's token stands for, and until when, as
            `workloads.Workloads.identify` does; without it tokens are refused.
    """

    def __init__(
        self,
        store: FindsKeys,
        pepper: bytes,
        clock: Clock,
        *,
        accounts: FindsHolders | None = None,
        workloads: Callable[[str], tuple[str, int]] | None = None,
        people: Callable[[str], tuple[str, int] | None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._workloads = workloads
        self._person = people
        # Accounts of verified headers, and their tokens' expiry, by the same hash as `_seen`.
        self._tokens: dict[bytes, tuple[Callable[[], Principal], int]] = {}
        self._people: dict[str, tuple[float, Holder]] = {}
        self._pepper = pepper
        self._monotonic = monotonic
        self._rows: dict[str, tuple[float, ApiKey]] = {}
        self._unknown: dict[str, float] = {}  # ids without a key, cached as long: otherwise they would take longer
        # Verified headers while a row is cached, by a hash that reveals nothing without this process's key.
        self._seen: dict[bytes, tuple[tuple[float, ApiKey], Principal]] = {}
        self._own = secrets.token_bytes(32)
        self.clock = clock

    def authenticate(self, authorization_header: str | None) -> Principal:
        """Return the principal of an `Authorization` header.

        Raises:
            Denied: The header is missing, or its key is unknown, revoked or expired.
            Unchecked: See `FindsKeys`: wait, then call again.
            Unavailable: The key cannot be looked up now.
        """
        header = authorization_header or ""
        name = hashlib.blake2b(header.encode(errors="surrogatepass"), key=self._own, digest_size=16).digest()
        seen = self._seen.get(name)
        if seen is not None:
            (since, key), principal = kept, _ = seen
            if self._monotonic() - since < _KEEP_S and self._rows.get(key.id) is kept:
                self._check_standing(key)
                return principal
            self._seen.pop(name, None)
        known = self._tokens.get(name)
        if known is not None:
            find, expires = known
            if self.clock.now() < expires:
                return find()
            self._tokens.pop(name, None)
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Denied("No API key was given.", fix="send the header `Authorization: Bearer msp_...`.")
        if (self._workloads or self._person) and not token.lstrip().startswith(_PREFIX):
            find, expires = self._holder_of(token.strip())
            principal = find()
            if len(self._tokens) >= _KEEP_KEYS:
                self._tokens.clear()
            self._tokens[name] = find, expires
            return principal
        principal = self.identify(token.strip())
        row = self._rows.get(principal.id)
        if row is not None:
            if len(self._seen) >= _KEEP_KEYS:
                self._seen.clear()
            self._seen[name] = row, principal
        return principal

    def stands(self, principal: Principal) -> bool:
        """Return whether a key that `authenticate` has accepted is still valid: cached, not revoked, not expired, its
        owner's roles unchanged.

        Also False if the key has not been looked up for a second: call `authenticate` again.
        """
        since, key = self._rows.get(principal.id, _UNKNOWN)  # never there for an account: its token may have expired
        if key is None or self._monotonic() - since >= _KEEP_S:
            return False
        if key.holder is not None and (key.holder.roles, key.holder.groups) != (principal.roles, principal.groups):
            return False
        return self._trouble(key) is None

    def identify(self, token: str) -> Principal:
        """Return the principal of a token. Raises as `authenticate` does."""
        parts = _TOKEN.fullmatch(token)
        if parts is None or not hmac.compare_digest(_checksum(parts[1]), parts[3]):
            raise Denied("This is not a valid API key: it is mistyped or cut off.", fix="copy all of it, from msp_ on.")
        key = self._find(parts[2])
        digest = _digest(self._pepper, token)
        # An unknown id takes as long as a wrong secret, and gets the same message.
        if not hmac.compare_digest(digest, key.digest if key else bytes(len(digest))) or key is None:
            raise Denied("The API key is unknown here.", fix=_GET_ONE)
        return self._standing(key)

    def principal(self, key_id: str) -> Principal:
        """Return the principal of a key id, for a session that was opened with that key.

        Raises:
            Denied: The key is unknown, revoked or has expired.
        """
        key = self._find(key_id)
        if key is None:
            raise Denied("The API key is unknown here.", fix=_GET_ONE)
        return self._standing(key)

    def user(self, account_id: str) -> Principal:
        """Return the principal of a person who signed in, by the id of their account.

        Raises:
            Denied: The account was removed or disabled.
        """
        return self._holding(account_id, self._accounts.holder if self._accounts is not None else _nobody)

    def _holder_of(self, token: str) -> tuple[Callable[[], Principal], int]:
        """Return what looks up the principal of a provider's token, and until when the token is valid."""
        person = self._person(token) if self._person is not None else None
        if person is not None:
            return partial(self.user, person[0]), person[1]
        if self._workloads is None:
            raise Denied("The token is of another issuer.", fix=_GET_ONE)
        name, expires = self._workloads(token)
        return partial(self._service, name), expires

    def _service(self, name: str) -> Principal:
        """Return the principal of a service account by its name. Raises as `user` does."""
        return self._holding(f"service/{name}", lambda _: self._accounts.service(name) if self._accounts else None)

    def _holding(self, of: str, find: Callable[[str], Holder | None]) -> Principal:
        now = self._monotonic()
        since, holder = self._people.get(of, (0.0, None))
        if holder is None or now - since >= _KEEP_S:
            holder = find(of)
            if len(self._people) >= _KEEP_KEYS:
                self._people.clear()
            if holder is not None:
                self._people[of] = (now, holder)
        if holder is None or holder.disabled_at is not None:
            self._people.pop(of, None)
            raise Denied("The account was disabled or removed.", fix="ask an administrator of this installation.")
        return Principal(holder.id, holder.name, frozenset(KeyScope), holder.kind, "", holder.groups, holder.roles)

    def _standing(self, key: ApiKey) -> Principal:
        self._check_standing(key)
        if key.holder is None:
            return Principal(key.id, key.name, key.scopes, roles=EVERY_ROLE)
        return Principal(key.id, key.name, key.scopes, Kind.KEY, key.owner, key.holder.groups, key.holder.roles)

    def _check_standing(self, key: ApiKey) -> None:
        trouble = self._trouble(key)
        if trouble is not None:
            raise Denied(trouble, fix=_GET_ONE)

    def _trouble(self, key: ApiKey) -> str | None:
        """Return why a key is not valid, `None` if it is."""
        now = self.clock.now()
        if key.revoked_at is not None and key.revoked_at <= now:
            return f"The API key {key.name!r} was revoked."
        if key.expires_at <= now:
            return f"The API key {key.name!r} has expired."
        if key.owner and (key.holder is None or key.holder.disabled_at is not None):
            return f"The owner of the API key {key.name!r} was disabled or removed."
        return None

    def _find(self, key_id: str) -> ApiKey | None:
        now = self._monotonic()
        kept = self._rows.get(key_id)
        if kept is not None and now - kept[0] < _KEEP_S:
            return kept[1]
        if now - self._unknown.get(key_id, -_KEEP_S) < _KEEP_S:
            return None
        key = self._store.find(key_id)
        if key is None:
            self._rows.pop(key_id, None)
            if len(self._unknown) >= _KEEP_KEYS:
                self._unknown.clear()
            self._unknown[key_id] = now
            return None
        if len(self._rows) >= _KEEP_KEYS:
            self._rows.clear()
        self._rows[key_id] = (now, key)
        return key
