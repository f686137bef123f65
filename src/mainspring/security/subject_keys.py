"""Keys of persons and other subjects, one each: a subject is erased by destroying its key.

A subject is known here by an HMAC of its name. Its key is an envelope under a data key, so a rotation of the master key
touches no subject. A destroyed key stays as a mark, in the catalog and in a file beside: a catalog that was restored
from before an erasure has the key again, and the file says that it must not be used.
"""

from __future__ import annotations

import hmac
import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mainspring.core.files import disk_errors, make_folder, sync_folder
from mainspring.core.time import Clock
from mainspring.security import envelopes
from mainspring.security.data_keys import SECRET_BYTES, SUBJECT_NAMES
from mainspring.security.model import DataKey, StoredSubject
from mainspring.security.ports import Keys, SubjectKeyStore

WRAPS = "subjects"  # purpose of what wraps keys
_KEPT_S = 1.0  # how long keys and marks are used without asking the catalog what was destroyed
_MOST = 100_000  # keys in memory
_DIGEST = 32
_LINE = 2 * _DIGEST + 2  # bytes of a mark: a digest between line ends


class SubjectKeys:
    """Keys of subjects over a store, wrapped by data keys. Thread-safe.

    Args:
        store: Opens the store.
        erased: File of the digests of erased subjects. Back it up apart, and never restore an older one over it.
        monotonic: Returns seconds.
    """

    def __init__(
        self,
        store: Callable[[], SubjectKeyStore],
        keys: Keys,
        erased: Path,
        clock: Clock,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._keys = keys
        self._file = erased
        self._clock = clock
        self._monotonic = monotonic
        self._changing = threading.Lock()
        self._by_digest: dict[bytes, tuple[DataKey, float]] = {}  # and when the store was asked
        self._by_id: dict[str, bytes] = {}  # id -> digest
        self._others: set[str] = set()  # ids that are no subject's
        self._marks: frozenset[bytes] = frozenset()  # the file's content as of `_read`
        self._read: tuple[int, int] | None = None
        self._asked = -math.inf  # when the store's marks were

    def keys(self, subjects: Sequence[str]) -> list[DataKey | None]:
        """Return the keys of subjects, made where there is none; `None` for an erased subject.

        Raises:
            Unavailable: The catalog or the key service does not answer.
        """
        digests = self.digests(subjects)
        known = self._known(list(dict.fromkeys(digests)))
        if missing := [each for each, key in known.items() if key is None]:
            marks = self._erased()
            missing = [each for each in missing if each not in marks]
        if missing:
            made = [(DataKey(os.urandom(16).hex(), secrets.token_bytes(SECRET_BYTES)), each) for each in missing]
            under, now = self._keys.newest(WRAPS), self._clock.now()
            self._store().add(
                [StoredSubject(key.id, each, _wrapped(under, each, key), now, None) for key, each in made]
            )
            known |= self._known(missing)
        return [known[each] for each in digests]

    def secrets(self, ids: Sequence[str]) -> list[bytes | None]:
        """Return the secrets of the keys, of subjects or others; `None` where a subject was erased.

        Raises:
            Corrupt: A key is unknown.
            Unavailable: As `keys`.
        """
        wanted = list(dict.fromkeys(ids))
        digests = {each: self._by_id.get(each) for each in wanted}
        unknown = [each for each, digest in digests.items() if digest is None and each not in self._others]
        if unknown:
            for each, digest in zip(unknown, self._store().subjects(unknown), strict=True):
                digests[each] = digest
                if digest is None:
                    self._others.add(each)
                else:
                    self._by_id[each] = digest
        mine = {each: digest for each, digest in digests.items() if digest is not None}
        others = [each for each in wanted if each not in mine]
        found: dict[str, bytes | None] = dict(zip(others, self._keys.secrets(others), strict=True))
        known = self._known(list(dict.fromkeys(mine.values())))
        for each, digest in mine.items():
            key = known[digest]
            found[each] = None if key is None or key.id != each else key.secret
        return [found[each] for each in ids]

    def ids(self, subjects: Sequence[str]) -> list[str | None]:
        """Return the ids of the subjects' keys, also of destroyed ones; `None` where there never was one.

        Raises:
            Unavailable: As `keys`.
        """
        return [None if key is None else key.id for key in self._store().find(self.digests(subjects))]

    def are_of_subjects(self, ids: Sequence[str]) -> list[bool]:
        """Return whether keys are those of subjects."""
        return [digest is not None for digest in self._store().subjects(ids)]

    def erased(self, subjects: Sequence[str]) -> list[bool]:
        """Return whether subjects were erased, on any machine, at the latest a second ago.

        Raises:
            Unavailable: As `keys`.
        """
        marks = self._erased()
        return [each in marks for each in self.digests(subjects)] if marks else [False] * len(subjects)

    def erased_since(self) -> list[bytes]:
        """Return the digests of erased subjects of which only the file knows: the catalog was restored."""
        stored = {*self._store().destroyed()}
        return [each for each in self._marked() if each not in stored]

    def destroy(self, subjects: Sequence[str]) -> int:
        """Destroy the keys of subjects, which get none again; return how many were not erased before.

        Every process stops within a second to read what they encrypted. Killed between its steps, it is finished by
        the next process that uses a subject's key.
        """
        digests = list(dict.fromkeys(self.digests(subjects)))
        marks = self._erased()
        new = [each for each in digests if each not in marks]
        self._mark(new)
        self._store().destroy(digests, self._clock.now())
        with self._changing:
            for each in digests:
                self._by_digest.pop(each, None)
        return len(new)

    def _known(self, digests: Sequence[bytes]) -> dict[bytes, DataKey | None]:
        """Return the keys that are stored and not destroyed."""
        if not digests:
            return {}
        marks, now = self._erased(), self._monotonic()
        held = {each: self._by_digest.get(each) for each in digests}
        asked = [each for each, key in held.items() if key is None or now - key[1] > _KEPT_S]
        if asked:
            there = [key for key in self._store().find(asked) if key is not None and key.wrapped]
            fresh = [key for key in there if (old := held[key.subject]) is None or old[0].id != key.id]
            under = self._keys.secrets([envelopes.key_of(key.wrapped) for key in fresh])
            opened = {
                key.id: DataKey(key.id, envelopes.unseal(secret, WRAPS, key.subject.hex(), key.wrapped))
                for key, secret in zip(fresh, under, strict=True)
            }
            found: dict[bytes, tuple[DataKey, float]] = {}
            for key in there:
                old = held[key.subject]
                found[key.subject] = (opened[key.id] if key.id in opened or old is None else old[0]), now
            with self._changing:
                if len(self._by_id) + len(there) > _MOST:
                    self._by_digest.clear()
                    self._by_id.clear()
                for digest in asked:
                    self._by_digest.pop(digest, None)
                self._by_digest.update(found)
                self._by_id.update((key.id, key.subject) for key in there)
            held |= {digest: found.get(digest) for digest in asked}
        return {digest: None if key is None or digest in marks else key[0] for digest, key in held.items()}

    def digests(self, subjects: Sequence[str]) -> list[bytes]:
        """Return the HMACs by which subjects are known here, 32 bytes each."""
        if not subjects:
            return []
        secret = self._keys.newest(SUBJECT_NAMES).secret
        return [hmac.digest(secret, each.encode(), "sha256") for each in subjects]

    def _erased(self) -> frozenset[bytes]:
        """Return the digests of erased subjects, as the file has them now. Once a second it is compared with the
        catalog first: each gets what only the other has.
        """
        now = self._monotonic()
        if now - self._asked > _KEPT_S:
            stored = {*self._store().destroyed()}
            marks = self._marked()
            self._mark([each for each in stored if each not in marks])
            if restored := [each for each in marks if each not in stored]:
                self._store().destroy(restored, self._clock.now())
            self._asked = now
        return self._marked()

    def _marked(self) -> frozenset[bytes]:
        try:
            status = self._file.stat()
        except FileNotFoundError:
            return frozenset()
        if (read := (status.st_size, status.st_mtime_ns)) != self._read:
            lines = self._file.read_bytes().split(b"\n")  # of a torn one the next mark begins a new line
            self._marks = frozenset(bytes.fromhex(each.decode()) for each in lines if _is_digest(each))
            self._read = read
        return self._marks

    def _mark(self, digests: Sequence[bytes]) -> None:
        if not digests:
            return
        make_folder(self._file.parent)
        content = b"".join(b"\n" + each.hex().encode() + b"\n" for each in digests)
        with disk_errors(self._file):
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                while content:  # a torn mark is written again: another process may have written behind it
                    content = content[os.write(descriptor, content) // _LINE * _LINE :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(self._file.parent)


def _wrapped(under: DataKey, subject: bytes, key: DataKey) -> bytes:
    return envelopes.seal(under, WRAPS, subject.hex(), key.secret)


def _is_digest(line: bytes) -> bool:
    return len(line) == 2 * _DIGEST and all(each in b"0123456789abcdef" for each in line)
