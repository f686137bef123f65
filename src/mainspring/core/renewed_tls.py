"""TLS of clients that live long: files that changed are used for the next connection."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mainspring.core.errors import Invalid

Mark = tuple[int, int, int] | None

_log = logging.getLogger(__name__)


def mark(path: Path) -> Mark:
    """Return what changes when a file is written or replaced, its `st_ctime_ns` first; `None` if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ctime_ns, status.st_ino, status.st_size


def client_context(ca: str | None, cert: str | None = None, key: str | None = None) -> ssl.SSLContext:
    """Return a context that trusts the authorities of `ca`, by default the machine's, and shows a certificate.

    Raises:
        Invalid: A file cannot be read, is not PEM, or the key is another certificate's.
    """
    files = [Path(each) for each in (ca, cert, key) if each]

    def load() -> ssl.SSLContext:
        try:
            made = ssl.create_default_context(cafile=ca)
            if cert:
                made.load_cert_chain(cert, key, password=lambda: b"")  # for an encrypted key OpenSSL would ask
        except OSError as error:
            names = ", ".join(map(str, files))
            raise Invalid(
                f"A file of {names} cannot be used for TLS: {error}.", fix="name PEM files; the key not encrypted."
            ) from error
        return made

    context = _Renewed(ssl.PROTOCOL_TLS_CLIENT)
    context.begin(files, load)
    return context


class _Renewed(ssl.SSLContext):
    """A context whose handshakes are those of another one, made again when its files changed.

    Authorities are never taken out of a live context, so it is replaced. Files that cannot be used leave it.
    """

    def begin(self, files: list[Path], load: Callable[[], ssl.SSLContext]) -> None:
        self._files, self._load, self._marks = files, load, [mark(each) for each in files]
        self._current = load()

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        return self._renewed().wrap_socket(*arguments, **named)

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        return self._renewed().wrap_bio(*arguments, **named)

    def _renewed(self) -> ssl.SSLContext:
        marks = [mark(each) for each in self._files]
        if marks != self._marks:
            try:
                self._current, self._marks = self._load(), marks
            except Invalid as error:
                _log.warning("The former certificates stay in use: %s", error)
        return self._current
