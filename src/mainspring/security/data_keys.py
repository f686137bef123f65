"""Data keys: stored wrapped, unwrapped when they are used, and kept in memory for a time."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mainspring.core.errors import Corrupt, Denied, MainspringError, Unavailable
from mainspring.core.files import write_atomic
from mainspring.core.time import Clock
from mainspring.security.model import DataKey, StoredKey, Wrapped
from mainspring.security.ports import DataKeyStore, KeyService

SECRET_BYTES = 32
SUBJECT_NAMES, ENTITY_NAMES = "subject-names", "entity-names"  # purposes of HMACs
NEVER_RENEWED = frozenset({SUBJECT_NAMES, ENTITY_NAMES})  # under another key, each name would have another HMAC
_CHECK_S = 60.0  # between looks for a newer key, which another process may have made
_RETRY_S = 1.0

_log = logging.getLogger(__name__)


class OneKey:
    """`Keys` of a single key in memory, for what does not outlive the process."""

    def __init__(self, secret: bytes | None = None) -> None:
        secret = os.urandom(SECRET_BYTES) if secret is None else secret
        self._key = DataKey("0" * 32, secret)

    def newest(self, purpose: str) -> DataKey:  # noqa: ARG002
        return self._key

    def secrets(self, ids: Sequence[str]) -> list[bytes]:
        if any(each != self._key.id for each in ids):
            raise _unknown(next(each for each in ids if each != self._key.id))
        return [self._key.secret] * len(ids)


@dataclass(frozen=True, slots=True)
class _Held:
    """An unwrapped key, when the service unwrapped it, and when a newer one was last looked for, seconds."""

    key: DataKey
    since: float
    checked: float


class DataKeys:
    """`Keys` over a store of wrapped keys and the service that unwraps them.

    What encrypts (`newest`) waits for the service if a key is needed for the first time, or was not used for as long as
    keys are kept. Else a thread asks it, at half of that time; while it does not answer, `newest` fails at once.

    Args:
        store: Opens the store, which may be away when this process starts.
        project: Name of the project. It is part of what each wrapped key is bound to.
        keep_us: How long an unwrapped key is used without asking the service again, microseconds.
        copy: File with the wrapped keys that encrypt, from which a process starts while the catalog is away.
        monotonic: Returns seconds.
    """

    def __init__(
        self,
        store: Callable[[], DataKeyStore],
        service: KeyService,
        clock: Clock,
        *,
        project: str,
        keep_us: int,
        copy: Path | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._service = service
        self._clock = clock
        self._project = project
        self._keep_s = keep_us / 1_000_000
        self._copy = copy
        self._monotonic = monotonic
        self._changing = threading.Lock()
        self._newest: dict[str, _Held] = {}  # by purpose
        self._failed: dict[str, tuple[MainspringError, float]] = {}  # by purpose: the last failure, and its time
        self._asking: set[str] = set()  # purposes
        self._opened: dict[str, tuple[bytes, float]] = {}  # id -> secret, and when it was unwrapped

    def newest(self, purpose: str) -> DataKey:
        held, now = self._newest.get(purpose), self._monotonic()
        if held is not None and now - held.since <= self._keep_s:
            if now - held.checked > min(_CHECK_S, self._keep_s / 2):
                self._ask_aside(purpose, now)
            return held.key
        failed = self._failed.get(purpose)
        if failed is None or now - failed[1] > _CHECK_S:
            return self._ask(purpose)
        self._ask_aside(purpose, now)
        raise Unavailable(
            f"Values of {purpose} cannot be encrypted, as their key cannot be had: {failed[0].what}",
            fix="make the key service and the catalog reachable; `mainspring encryption status` asks both.",
        )

    def secrets(self, ids: Sequence[str]) -> list[bytes]:
        now = self._monotonic()
        wanted = [
            each for each in dict.fromkeys(ids)
            if each not in self._opened or now - self._opened[each][1] > self._keep_s
        ]  # fmt: skip
        if wanted:
            found = self._find(wanted)
            for each, stored in zip(wanted, found, strict=True):
                if stored is None:
                    raise _unknown(each)
            opened = self._unwrap([stored for stored in found if stored is not None])
            self._opened.update((each, (secret, now)) for each, secret in zip(wanted, opened, strict=True))
        return [self._opened[each][0] for each in ids]

    def stored(self, purpose: str) -> StoredKey:
        """Return the newest key of a purpose as it is stored, made if there is none."""
        return self._stored(purpose)

    def opened(self, stored: StoredKey) -> DataKey:
        """Return a key that the store may lack, as that of a backup.

        Raises:
            Corrupt: The service does not open it.
        """
        return DataKey(stored.id, self._unwrap([stored])[0])

    def renew(self, purpose: str) -> StoredKey:
        """Make another key for a purpose, and return it: it encrypts in this process now, in others within a minute."""
        return self.adopt(self.draft(purpose))

    def draft(self, purpose: str) -> StoredKey:
        """Return the next key of a purpose, wrapped by the service, and not stored yet."""
        newest = self._store().newest(purpose)
        return self._wrapped(purpose, 1 if newest is None else newest.number + 1)

    def adopt(self, draft: StoredKey) -> StoredKey:
        """Store a draft, without asking the service; return the key with its number, which another may have stored."""
        made = self._store().add(draft)
        self._newest.pop(draft.purpose, None)
        return made

    def rewrap(self, former: KeyService | None = None) -> int:
        """Wrap all keys under the current master key that are not; return how many were. It may be repeated.

        Args:
            former: Service that unwraps the keys which the current one does not open.
        """
        current, stored = self._service.version(), self._store().all()
        theirs = [] if former is None else [key for key in stored if not self._opens(key)]
        mine = [key for key in stored if key.wrapped.version != current and key not in theirs]
        if not mine and not theirs:
            return 0
        opened = self._unwrap(mine) + self._unwrap(theirs, former)
        contexts = [self._context(key) for key in [*mine, *theirs]]
        return self._store().rewrap([*mine, *theirs], self._service.wrap(opened, contexts))

    def check(self) -> int:
        """Unwrap every key by asking the service, and return their number.

        Raises:
            Corrupt: One does not open.
        """
        return len(self._unwrap(self._store().all()))

    def _ask(self, purpose: str) -> DataKey:
        """Get the newest key of a purpose from the store and the service."""
        try:
            stored = self._stored(purpose)
            held, now = self._newest.get(purpose), self._monotonic()
            known = held is not None and held.key.id == stored.id and now - held.since <= self._keep_s / 2
            since = held.since if held is not None and known else now
            key = held.key if held is not None and known else DataKey(stored.id, self._unwrap([stored])[0])
        except MainspringError as error:
            self._failed[purpose] = error, self._monotonic()
            raise
        self._failed.pop(purpose, None)
        self._newest[purpose] = _Held(key, since, now)
        return key

    def _ask_aside(self, purpose: str, now: float) -> None:
        with self._changing:
            failed = self._failed.get(purpose)
            if purpose in self._asking or (failed is not None and now - failed[1] < _RETRY_S):
                return
            self._asking.add(purpose)

        def ask() -> None:
            try:
                self._ask(purpose)
            except MainspringError as error:
                _log.warning("The key that encrypts %s was not renewed: %s", purpose, error)
            finally:
                self._asking.discard(purpose)

        threading.Thread(target=ask, name="data-keys", daemon=True).start()

    def readopt(self) -> None:
        """Store the keys of which the catalog has none of their purpose, from the copy beside it: it was restored."""
        for purpose, copied in self._copied().items():
            if self._store().newest(purpose) is None:
                self._store().add(copied)

    def _stored(self, purpose: str) -> StoredKey:
        try:
            stored = self._store().newest(purpose) or self._make(purpose, 1)
        except Unavailable:
            copied = self._copied().get(purpose)
            if copied is None:
                raise
            return copied
        known = self._copied()
        if self._copy is not None and known.get(purpose) != stored:
            write_atomic(self._copy, msgspec.json.encode({**known, purpose: stored}))
        return stored

    def _make(self, purpose: str, number: int) -> StoredKey:
        """Store a new key, and return the one that has this number: another process may have been first."""
        return self._store().add(self._wrapped(purpose, number))

    def _wrapped(self, purpose: str, number: int) -> StoredKey:
        blank = StoredKey(os.urandom(16).hex(), purpose, number, Wrapped(b"", ""), self._clock.now())
        (wrapped,) = self._service.wrap([secrets.token_bytes(SECRET_BYTES)], [self._context(blank)])
        return StoredKey(blank.id, purpose, number, wrapped, blank.created_at)

    def _find(self, ids: Sequence[str]) -> list[StoredKey | None]:
        try:
            return self._store().find(ids)
        except Unavailable:
            copied = {each.id: each for each in self._copied().values()}
            if not copied.keys() >= {*ids}:
                raise
            return [copied[each] for each in ids]

    def _copied(self) -> dict[str, StoredKey]:
        """Return the keys in the copy by purpose; none where it is missing or damaged."""
        try:
            return {} if self._copy is None else msgspec.json.decode(self._copy.read_bytes(), type=dict[str, StoredKey])
        except (OSError, msgspec.DecodeError):
            return {}

    def _opens(self, key: StoredKey) -> bool:
        try:
            self._unwrap([key])
        except (Corrupt, Denied):  # some services refuse a key of another as one that the caller may not use
            return False
        return True

    def _unwrap(self, keys: Sequence[StoredKey], service: KeyService | None = None) -> list[bytes]:
        asked = self._service if service is None else service
        opened = asked.unwrap([key.wrapped for key in keys], [self._context(key) for key in keys])
        for key, secret in zip(keys, opened, strict=True):
            if len(secret) != SECRET_BYTES:
                raise Corrupt(f"The data key {key.id} has {len(secret)} bytes.", fix="restore the catalog.")
        return opened

    def _context(self, key: StoredKey) -> str:
        return f"mainspring/{self._project}/{key.purpose}/{key.id}"


def _unknown(key_id: str) -> Corrupt:
    return Corrupt(
        f"The data key {key_id[:40]} of an encrypted value is unknown.",
        fix="restore the catalog in which the value was encrypted from a backup.",
    )
