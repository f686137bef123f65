"""File with a gateway's copy of the catalog, for a start while the catalog is unavailable.

A tag (HMAC-SHA-256 by a key made of the installation's pepper) stands before the content: what anybody without the
pepper wrote or changed is not read. No secret is in it beyond what the catalog holds: of API keys their HMACs.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from pathlib import Path

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.core.files import write_atomic
from mainspring.security.model import ApiKey, Holder
from mainspring.serving.model import Route

_FORMAT = 1
_TAG_BYTES = 32

_log = logging.getLogger(__name__)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The routing table, the API keys and the service accounts by name, as the catalog had them.

    Attributes:
        of: Identity of the catalog and its project.
        confirmed_at: Instant of the catalog's last confirmation, UTC epoch microseconds.
        highest: The highest revision that the routing table ever had: a lower one comes from a backup.
        further: Text of `CatalogCopy.further`; empty where a gateway of an earlier version wrote the copy.
    """

    of: str
    confirmed_at: int
    revision: int
    highest: int
    routes: dict[str, Route]
    keys: dict[str, ApiKey]
    services: dict[str, Holder] = {}
    further: str = ""
    format: int = _FORMAT


class CopyFile:
    """File that stores `Kept`, readable by its owner alone.

    Args:
        of: Identity of the copied catalog and its project; the copy of another catalog is not read.
        pepper: The installation's.
    """

    def __init__(self, path: Path, *, of: str, pepper: bytes) -> None:
        self.path = path
        self.of = of
        self._key = hmac.digest(pepper, b"the gateway's copy of the catalog", hashlib.sha256)

    def load(self) -> Kept | None:
        """Return the last saved copy; `None` if there is none, if it cannot be read, or if it is of another catalog."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:  # another user's, say
            _log.error("The copy of the catalog cannot be read: %s", error)
            return None
        tag, body = content[:_TAG_BYTES], content[_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(body)):
            _log.error("%s is damaged or was changed, and is ignored.", self.path)
            return None
        try:
            kept = msgspec.json.decode(body, type=Kept)
        except msgspec.DecodeError as error:  # of another version of the package
            _log.warning("%s cannot be read: %s", self.path, error)
            return None
        return kept if kept.of == self.of and kept.format == _FORMAT else None

    def save(self, kept: Kept) -> None:
        """Replace the saved copy. A full disk loses only the copy."""
        body = msgspec.json.encode(kept)
        try:
            write_atomic(self.path, self._tag(body) + body)
        except (MainspringError, OSError) as error:
            _log.warning("The copy of the catalog was not saved: %s", error)

    def _tag(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)
