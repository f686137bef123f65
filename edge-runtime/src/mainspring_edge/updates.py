"""Packages from a repository of The Update Framework (TUF 1.0), over HTTPS.

TUF's client refuses what is not signed by the project's roles, is older than what was seen (rollback) or has expired
(freeze). Two things are added for devices. The largest versions seen are also kept in the device's own state, because
the client's files are not synced. And a clock that is behind the latest instant known to be past is not believed: it
would make expired metadata valid again.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from tuf.api.exceptions import DownloadError, DownloadHTTPError, ExpiredMetadataError, RepositoryError
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from mainspring_edge.errors import EdgeError, Refused
from mainspring_edge.files import make_folder, sync_tree, write_durable
from mainspring_edge.memory import Memory
from mainspring_edge.package import INDEX, SIGNATURE

METADATA, TARGETS = "metadata", "targets"
_ROLES = ("root", "timestamp", "snapshot", "targets")
_CHUNK_BYTES = 1 << 16
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Unreachable(EdgeError):
    """The repository did not answer, or was too slow. The update is tried again later."""


def client_context(ca: str | None, certificate: tuple[str, str] | None) -> ssl.SSLContext:
    """Return a context that trusts `ca`, by default the machine's authorities, and shows a certificate if it has one.

    Args:
        certificate: PEM files of the certificate and of its key.
    """
    context = ssl.create_default_context(cafile=ca)
    if certificate is not None:
        context.load_cert_chain(*certificate)
    return context


class Updates:
    """Fetches packages of one project.

    Args:
        url: Address of the repository: https, or http on this machine.
        root: The first root metadata, given to the device when it was set up.
        ca: PEM file of authorities; by default the machine's.
        certificate: PEM files of a client certificate and of its key.
        now: Clock, UTC epoch microseconds.
        patience_s: The longest time for one file.

    Raises:
        Refused: The address is not https.
    """

    def __init__(
        self,
        memory: Memory,
        url: str,
        root: bytes,
        *,
        ca: str | None = None,
        certificate: tuple[str, str] | None = None,
        now: Callable[[], int] = lambda: time.time_ns() // 1000,
        patience_s: float = 600.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise Refused("address", f"The repository is {url!r:.200}: it has to be https.")
        self._memory, self._url, self._root, self._now = memory, url.rstrip("/"), root, now
        self._folder = memory.folder / "tuf"
        self._fetcher = HttpsFetcher(ca, patience_s, certificate)

    def fetch(self, name: str, version: int, folder: Path, before: Path | None = None) -> None:
        """Write a package into `folder`, durably, its signature last. Files with the right content, there or in
        `before`, are not fetched.

        Raises:
            Refused: The repository's metadata is refused (`rollback`, `expired`, `signature`), or has no such version.
            Unreachable: It does not answer.
        """
        updater = self._refreshed()
        prefix = f"{name}/{version}/"
        index = self._target(updater, prefix + INDEX)
        try:
            names = [str(each) for each in json.loads(index)["files"]]
        except (ValueError, KeyError, TypeError):
            raise Refused("format", f"{prefix}{INDEX} of the repository is not the index of a package.") from None
        if any("/" in each or each.startswith(".") or each in (INDEX, SIGNATURE) for each in names):
            raise Refused("format", f"{prefix}{INDEX} lists names that no package has.")
        for left in folder.iterdir():
            if left.name not in names:
                left.unlink()
        for each in names:
            self._keep(updater, prefix + each, folder / each, before and before / each)
        write_durable(folder / INDEX, index)
        write_durable(folder / SIGNATURE, self._target(updater, prefix + SIGNATURE))

    def time_us(self) -> int:
        """The time by which metadata expires: this device's clock, or the latest instant known to be past."""
        return max(self._now(), self._memory.state.time_us)

    def _refreshed(self) -> Updater:
        """Return a client with verified, current metadata, and remember its versions."""
        make_folder(self._folder)
        make_folder(self._folder / "root_history")
        for left in self._folder.glob("tmp*"):  # temporary files of a client whose power was cut
            left.unlink()
        try:
            updater = Updater(
                str(self._folder), f"{self._url}/{METADATA}/", None, f"{self._url}/{TARGETS}/", self._fetcher,
                bootstrap=self._root,
            )  # fmt: skip
            # The client has no argument for its time; this is what its own tests set.
            updater._trusted_set.reference_time = datetime.fromtimestamp(self.time_us() / 1e6, UTC)
            updater.refresh()
        except DownloadError as error:
            raise Unreachable(f"The repository {self._url} cannot be read: {_cause(error)}.") from error
        except ExpiredMetadataError as error:
            raise Refused("expired", self._expired(error)) from error
        except RepositoryError as error:
            raise Refused(_reason(error), f"The repository's metadata is refused: {error}.") from error
        self._remember(updater)
        return updater

    def _remember(self, updater: Updater) -> None:
        trusted = updater._trusted_set
        found = {role: int(getattr(trusted, role).version) for role in _ROLES}
        seen = self._memory.state.seen
        older = [role for role in _ROLES if found[role] < seen.get(role, 0)]
        if older:
            raise Refused(
                "rollback",
                f"The repository's {older[0]} has version {found[older[0]]}; this device has seen {seen[older[0]]}.",
            )
        if found != seen:
            sync_tree(self._folder)
            self._memory.keep(seen=found)

    def _expired(self, error: ExpiredMetadataError) -> str:
        today = datetime.fromtimestamp(self.time_us() / 1e6, UTC).date()
        return (
            f"The repository's metadata has expired ({error}) by this device's date, {today}: it was not signed again "
            "for too long, an old copy is being served, or the clock of this device is ahead."
        )

    def _target(self, updater: Updater, path: str) -> bytes:
        """Return a small file of the repository."""
        info = updater.get_targetinfo(path)
        if info is None:
            raise Refused("missing", f"The repository has no {path}.")
        beside = self._folder / "fetched.partial"
        self._download(updater, info, beside)
        content = beside.read_bytes()
        beside.unlink()
        return content

    def _keep(self, updater: Updater, path: str, to: Path, before: Path | None) -> None:
        """Write a file of the repository to `to` unless its content is there or in the active slot."""
        info = updater.get_targetinfo(path)
        if info is None:
            raise Refused("missing", f"The repository has no {path}.")
        wanted = info.hashes.get("sha256", "")
        if _sha256(to) == wanted:
            return
        if before is not None and _sha256(before) == wanted:
            write_durable(to, before.read_bytes())
            return
        beside = to.with_name(".fetched.partial")
        self._download(updater, info, beside)
        write_durable(to, beside.read_bytes())
        beside.unlink()

    def _download(self, updater: Updater, info: Any, to: Path) -> None:
        try:
            updater.download_target(info, str(to))
        except DownloadError as error:
            raise Unreachable(f"{info.path} cannot be fetched: {_cause(error)}.") from error
        except RepositoryError as error:
            raise Refused("changed", f"{info.path} is not the file that was signed: {error}.") from error


class HttpsFetcher(FetcherInterface):  # type: ignore[misc]  # the library is not seen by the type checker
    """Reads files by HTTPS, following no redirect, with a limit on the time for each.

    Attributes:
        fetched_bytes: Bytes read so far.
    """

    def __init__(self, ca: str | None, patience_s: float, certificate: tuple[str, str] | None = None) -> None:
        self._patience_s = patience_s
        self.fetched_bytes = 0
        context = client_context(ca, certificate)
        self._open = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), urllib.request.HTTPHandler(), _NoRedirect()
        ).open

    def _fetch(self, url: str) -> Iterator[bytes]:
        end = time.monotonic() + self._patience_s
        try:
            answer = self._open(url, timeout=min(20.0, self._patience_s))
        except HTTPError as error:
            raise DownloadHTTPError(f"{url}: {error.reason}", error.code) from error
        return self._read(answer, url, end)

    def _read(self, answer: Any, url: str, end: float) -> Iterator[bytes]:
        with answer:
            while part := answer.read1(_CHUNK_BYTES):
                if time.monotonic() > end:  # a server may send a byte now and then for ever
                    raise DownloadError(f"{url} took longer than {self._patience_s:g} s")
                self.fetched_bytes += len(part)
                yield part


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _cause(error: BaseException) -> str:
    said = str(error)
    return f"{said} ({error.__cause__})" if error.__cause__ is not None else said


def _reason(error: RepositoryError) -> str:
    """Return one word for reports."""
    name = type(error).__name__
    return {"BadVersionNumberError": "rollback", "UnsignedMetadataError": "signature"}.get(name, "metadata")
