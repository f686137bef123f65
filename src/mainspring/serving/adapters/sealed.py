"""Routes and API keys of a sealed catalog, and revocations from a file beside it. Nothing is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Never

from mainspring.core.errors import Corrupt, Invalid, Unavailable
from mainspring.core.time import SystemClock
from mainspring.security.model import ApiKey
from mainspring.serving.model import Route
from mainspring.serving.plane.sealed_catalog import read_sealed

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOST = 1 << 20  # bytes of a list of revoked keys


class SealedRoutes:
    """`Routes` of a sealed catalog."""

    def __init__(self, path: Path) -> None:
        self._sealed = read_sealed(path)

    def revision(self) -> int:
        return self._sealed.revision

    def current(self) -> Mapping[str, Route]:
        return self._sealed.routes

    def publish(self, routes: Sequence[Route], *, after: int | None = None) -> int:  # noqa: ARG002
        _refuse()


class SealedKeys:
    """`KeyStore` of a sealed catalog, with the revocations since then that the place gives.

    Args:
        path: Sealed catalog.
        revoked: File with ids of revoked keys, one a line, `#` before a comment; read again after each change. `None`:
            the place gives none.

    Each read raises `Unavailable` where the file is missing, and `Corrupt` where it is no such list: a list that cannot
    be read must not become an empty one. A key that was revoked once stays so while the process runs.
    """

    def __init__(self, path: Path, revoked: Path | None = None) -> None:
        self._keys = read_sealed(path).keys
        self._file, self._clock = revoked, SystemClock()
        self._revoked: dict[str, int] = {}  # id -> when its line was seen first, UTC epoch microseconds

    def add(self, key: ApiKey) -> None:  # noqa: ARG002
        _refuse()

    def find(self, key_id: str) -> ApiKey | None:
        self._follow()
        key = self._keys.get(key_id)
        return key if key is None else self._with_revocation(key)

    def all(self) -> list[ApiKey]:
        self._follow()
        found = map(self._with_revocation, self._keys.values())
        return sorted(found, key=lambda key: (key.created_at, key.id))

    def mark(self) -> str:
        self._follow()
        return f"sealed {len(self._revoked)}"  # ids are only added

    def _with_revocation(self, key: ApiKey) -> ApiKey:
        at = self._revoked.get(key.id)
        return key if at is None or key.revoked_at is not None else replace(key, revoked_at=at)

    def _follow(self) -> None:
        if self._file is None:
            return
        for id in _ids(self._file):
            self._revoked.setdefault(id, self._clock.now())

    def revoke(self, key_id: str, at: int) -> None:  # noqa: ARG002
        _refuse()


def _ids(file: Path) -> list[str]:
    """Return the ids in a file of revoked keys.

    Raises:
        Unavailable: It cannot be read.
        Corrupt: It is larger than such a list can be, or a line is no id.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(_MOST + 1)
    except OSError as error:
        raise Unavailable(
            f"The revoked keys {file} cannot be read: {error.strerror}.",
            fix="put the file there, empty if no key was revoked; `mainspring keys list --revoked` writes it.",
        ) from None
    lines = [line.partition(b"#")[0].strip() for line in content.splitlines()]
    ids = [line.decode("ascii", "replace") for line in lines if line]
    wrong = next((each for each in ids if not _ID.fullmatch(each)), None)
    if wrong is not None or len(content) > _MOST:
        told = f"has the line {wrong!r}" if wrong is not None else f"is larger than {_MOST:,} bytes"
        raise Corrupt(f"The list of revoked keys {file} {told}.", fix="write one id of a key on each line.")
    return ids


def _refuse() -> Never:
    raise Invalid(
        "The catalog is sealed in an image, and cannot be changed.",
        fix="change the installation, and build the image again.",
    )
