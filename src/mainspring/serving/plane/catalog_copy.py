"""A gateway's copy of the catalog's routing table and API keys, and of a text with what else it serves.

Why: docs/adr/0022-static-stability.md. One thread reads the catalog. Requests read this process's memory, whatever the
catalog does: where it is away they are answered by what is known, for a stated time. A key that is not known is looked
for by the same thread, for all who wait at once: however many are shown, the catalog is asked fifty times a second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace

from mainspring.core.errors import MainspringError, Unavailable
from mainspring.core.time import DAY, HOUR, Clock, format_duration
from mainspring.security.model import ApiKey, Holder
from mainspring.security.ports import KeyStore, Unchecked
from mainspring.serving.model import Route
from mainspring.serving.plane.copy_file import CopyFile, Kept
from mainspring.serving.ports import Routes

POLL_S = 0.2
STALE_S = 3.0  # without a word of the catalog, after which what is known counts as stale
_AT_LEAST_S = 0.02  # between two looks for unknown keys
_KEYS_S = 0.5  # between two looks for revoked keys
_FURTHER_S = 1.0  # between two readings of the further content
_ALL_KEYS_S = 60.0  # between two readings of all keys, whatever their mark says
_SAVE_S = 60.0  # the saved instant of the last confirmation is at most so much too old
_FIRST_S, _FIRST_WITHOUT_S = 1.0, 5.0  # how long a start waits for the catalog, with a copy and without
_UNKNOWN_S, _MOST_UNKNOWN = 1.0, 4096  # how long a key counts as unknown without another look
_MOST_WAITING = 256  # callers with unknown keys who wait for one look

_log = logging.getLogger(__name__)
Connect = Callable[[], tuple[Routes, KeyStore]]


@dataclass(frozen=True, slots=True)
class _Known:
    revision: int
    highest: int
    routes: Mapping[str, Route]
    keys: Mapping[str, ApiKey]
    services: Mapping[str, Holder]
    table: int = 1  # how often `routes` were others, this time included
    further: str = ""


class CatalogCopy:
    """A `RoutingTable`, `FindsKeys` and `FindsHolders` from memory.

    `start` begins to follow the catalog, `stop` ends it.

    Args:
        connect: Opens the catalog; called in the thread, again after each failure.
        clock: The machine's.
        services: Returns the service accounts by name, for tokens of workloads; called where keys are read.
        further: Returns a text with further content of the catalog; called in the thread.
        max_stale_us: Longest time that keys and routes stay valid without the catalog's confirmation.
        file: File that saves the copy for the next start.
    """

    def __init__(
        self,
        connect: Connect,
        clock: Clock,
        *,
        services: Callable[[], Mapping[str, Holder]] = dict,
        further: Callable[[], str] = str,
        max_stale_us: int = HOUR,
        file: CopyFile | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._read_services = services
        self._read_further = further
        self._clock = clock
        self._max_stale_us = max_stale_us
        self._file = file
        self._monotonic = monotonic
        self._known: _Known | None = None
        self._confirmed = self._confirmed_at = 0.0  # monotonic, and UTC epoch seconds
        self._away: bool | None = None  # whether the last look failed; `None` before the first
        self._mark: str | None = None
        self._keys_at = self._all_keys_at = self._further_at = self._saved_at = float("-inf")
        self._lock = threading.Lock()
        self._wanted = False  # whether someone waits for a look
        self._asked: set[str] = set()
        self._checked: Future[None] = Future()
        self._unknown: dict[str, float] = {}
        self._wake = threading.Event()
        self._looked = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Load the saved copy and begin to follow the catalog. Idempotent."""
        if self._thread is not None:
            return
        kept = self._file.load() if self._file is not None else None
        if kept is not None:
            age_s = max(0, self._clock.now() - kept.confirmed_at) / 1e6
            self._confirmed, self._confirmed_at = self._monotonic() - age_s, kept.confirmed_at / 1e6
            self._known = _Known(
                kept.revision, kept.highest, kept.routes, kept.keys, kept.services, further=kept.further
            )
        # A daemon: a look that hangs must not keep the process from its end.
        self._thread = threading.Thread(target=self._follow, name="catalog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, unless it hangs."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(1.0)

    # State

    @property
    def age_s(self) -> float:
        """Seconds since the catalog last confirmed the copy."""
        return self._monotonic() - self._confirmed

    @property
    def stale_since(self) -> int | None:
        """The instant of the last confirmation, UTC epoch microseconds, where it is long ago; else `None`."""
        if self._known is None or self.age_s < STALE_S:
            return None
        return int(self._confirmed_at * 1e6)

    @property
    def went_back(self) -> bool:
        """True if the routing table's revision is lower than it was: the catalog was restored from a backup."""
        known = self._known
        return known is not None and known.revision < known.highest

    @property
    def trouble(self) -> str | None:
        """Reason why no request can be answered without the catalog, `None` if some can."""
        if self._known is None:
            return "The catalog does not respond, and there is no local copy of it."
        if self.age_s * 1e6 > self._max_stale_us:
            return f"The catalog has not responded for more than {format_duration(self._max_stale_us)}."
        return None

    # Routes

    def revision(self) -> int:
        return self._table().revision

    def current(self) -> Mapping[str, Route]:
        return self._table().routes

    def mark(self) -> int:
        """Return a number that changes with the table, also where another table has the same revision."""
        return self._table().table

    def _table(self) -> _Known:
        """Return the copy; the first call reads the catalog, or waits for a read."""
        self._looked.wait(_FIRST_S if self._known is not None else _FIRST_WITHOUT_S)
        self._looked.set()
        if self._known is None:
            raise Unavailable("The catalog does not respond, and there is no local copy of it.")
        return self._known

    # Further content

    def further(self) -> str:
        """Return the text with further content: the same object while it is the same. The first call waits for the
        first look at the catalog.

        Raises:
            Unavailable: It is not known.
        """
        return self._table().further

    def look(self, within_s: float) -> bool:
        """Wait until the catalog was looked at again, or for a time at most; return whether it responded."""
        with self._lock:
            self._wanted, checked = True, self._checked
        self._wake.set()
        try:
            checked.result(within_s)
        except TimeoutError:
            return False
        return self._away is False

    # Keys

    def find(self, key_id: str) -> ApiKey | None:
        trouble, known = self.trouble, self._known
        if trouble is not None or known is None:
            raise Unavailable(trouble or "")
        key = known.keys.get(key_id)
        if key is not None:
            return key
        if self._monotonic() - self._unknown.get(key_id, float("-inf")) < _UNKNOWN_S:
            return None
        if self._away is not False or self.age_s > STALE_S:
            raise Unavailable("The API key is unknown, and the catalog, which may contain it, does not respond.")
        with self._lock:
            if len(self._asked) >= _MOST_WAITING and key_id not in self._asked:
                raise Unavailable("Too many unknown API keys are being looked up.")
            self._asked.add(key_id)
            checked = self._checked
        self._wake.set()
        raise Unchecked("The API key was not looked up in time.", checked)

    def holder(self, account_id: str) -> Holder | None:  # noqa: ARG002
        return None  # people sign in at the console alone

    def service(self, name: str) -> Holder | None:
        trouble, known = self.trouble, self._known
        if trouble is not None or known is None:
            raise Unavailable(trouble or "")
        return known.services.get(name)

    # The thread

    def _follow(self) -> None:
        while not self._stopping:
            with self._lock:
                asked, checked, wanted = self._asked, self._checked, self._wanted
                self._asked, self._checked, self._wanted = set(), Future(), False
            try:
                self._look(keys=bool(asked), further=wanted)
                if self._away:
                    _log.warning("The catalog responds again.")
                self._away = False
            except Exception as error:
                if not self._away:
                    _log.error(
                        "The catalog does not respond; its last known state is served: %s",
                        error,
                        exc_info=not isinstance(error, MainspringError),
                    )
                self._away = True
            finally:
                self._settle(asked)
                checked.set_result(None)
                self._looked.set()
            if asked:
                time.sleep(_AT_LEAST_S)
            self._wake.wait(POLL_S)
            self._wake.clear()

    def _settle(self, asked: set[str]) -> None:
        """Remember which of the keys that were looked for are not there."""
        if self._away is not False or self._known is None:
            return
        if len(self._unknown) + len(asked) > _MOST_UNKNOWN:
            self._unknown = {}
        now = self._monotonic()
        self._unknown |= dict.fromkeys(asked - self._known.keys.keys(), now)

    def _look(self, *, keys: bool, further: bool) -> None:
        routes, store = self._connect()
        known, begun = self._known, self._monotonic()
        revision = routes.revision()
        if known is not None and known.revision and not revision:
            raise Unavailable("The catalog has lost its routing table.", fix="restore it from a backup.")
        # After an absence of either, the same revision may be of another table: a backup, and what was published since.
        followed = known is not None and self._away is False and revision == known.revision
        table = known.routes if known is not None and followed else dict(routes.current())
        if known is not None and table == known.routes:
            table = known.routes
        found: Mapping[str, ApiKey] = known.keys if known is not None else {}
        services: Mapping[str, Holder] = known.services if known is not None else {}
        if keys or begun - self._keys_at >= _KEYS_S:
            found, services = self._read_keys(store, found, services, begun)
        text = known.further if known is not None else ""
        if further or begun - self._further_at >= _FURTHER_S:
            read, self._further_at = self._read_further(), begun
            text = text if read == text else read
        highest = max(revision, known.highest if known is not None else 0)
        if known is not None and revision < highest and revision != known.revision:
            _log.error(
                "The catalog went back in time: its routing table has revision %d, after %d. It is followed; "
"revoked keys stay revoked.", revision, highest,
            )  # fmt: skip
        self._confirmed, self._confirmed_at = begun, self._clock.now() / 1e6
        changed = known is None or (revision, table, found, services, text) != (
            known.revision,
            known.routes,
            known.keys,
            known.services,
            known.further,
        )
        if changed:
            number = 1 if known is None else known.table + (table is not known.routes)
            self._known = _Known(revision, highest, table, found, services, number, text)
        if self._file is not None and (changed or begun - self._saved_at >= _SAVE_S):
            self._save(self._file)
            self._saved_at = begun

    def _read_keys(
        self, store: KeyStore, before: Mapping[str, ApiKey], services: Mapping[str, Holder], now: float
    ) -> tuple[Mapping[str, ApiKey], Mapping[str, Holder]]:
        """Return all keys but those that expired over a day ago, and the service accounts; what is given where nothing
        changed.
        """
        mark = store.mark()
        self._keys_at = now
        if mark == self._mark and now - self._all_keys_at < _ALL_KEYS_S:
            return before, services
        wall = self._clock.now()
        found = {key.id: _still_revoked(key, before.get(key.id)) for key in store.all() if key.expires_at > wall - DAY}
        services = self._read_services()
        self._mark, self._all_keys_at = mark, now
        return before if found == before else found, services

    def _save(self, file: CopyFile) -> None:
        known = self._known
        if known is not None:
            file.save(
                Kept(
                    of=file.of,
                    confirmed_at=int(self._confirmed_at * 1e6),
                    revision=known.revision,
                    highest=known.highest,
                    routes=dict(known.routes),
                    keys=dict(known.keys),
                    services=dict(known.services),
                    further=known.further,
                )
            )


def _still_revoked(key: ApiKey, before: ApiKey | None) -> ApiKey:
    """Return a key; a catalog from a backup does not take a revocation back."""
    if key.revoked_at is None and before is not None and before.revoked_at is not None:
        return replace(key, revoked_at=before.revoked_at)
    return key
