"""Files that images are built of, on this machine by their SHA-256: fetched once, checked each time."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mainspring.core.environment import for_child
from mainspring.core.errors import Corrupt, Unavailable
from mainspring.core.files import write_atomic
from mainspring.core.http_exchange import FAILURES, exchange
from mainspring.deploy.images.debian import DebianPackage
from mainspring.deploy.images.layers import Layer
from mainspring.deploy.images.wheels import Wheel

MIRROR = "http://deb.debian.org"
ARCHIVE = "http://snapshot.debian.org/archive"
_WITHIN_S, _MOST = 60.0, 256 << 20
_GLIBC = range(41, 16, -1)  # minor versions up to that of the base
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


class _Stored(msgspec.Struct):
    digest: str
    diff_id: str
    size: int


@dataclass(frozen=True, slots=True)
class Store:
    """A folder with files by their digest, and layers by what they were made of.

    Args:
        mirror: Address of a mirror of Debian.
        date: Of the lock, as `debian.Base.date`.
        archive: Address of the archive of Debian's days, for what a mirror no longer has.
    """

    folder: Path
    mirror: str = MIRROR
    date: str = ""
    archive: str = ARCHIVE

    def packages(self, wanted: Sequence[DebianPackage]) -> list[bytes]:
        """Return the contents of Debian packages.

        Raises:
            Unavailable: One cannot be fetched.
            Corrupt: What was fetched is not what the lock names.
        """
        with ThreadPoolExecutor(4) as threads:
            return list(threads.map(self._package, wanted))

    def _package(self, package: DebianPackage) -> bytes:
        known = self._known(package.sha256)
        if known is not None:
            return known
        archive, _, path = package.path.partition("/")
        day = self.date.replace("-", "")
        places = (f"{self.mirror}/{package.path}", f"{self.archive}/{archive}/{day}T235959Z/{path}")
        trouble = ""
        for url in places:
            try:
                reply = exchange("GET", url.replace("+", "%2B"), within_s=_WITHIN_S, most_bytes=_MOST)
            except FAILURES as error:
                trouble = trouble or f"{url}: {error}"
                continue
            if reply.status == 200:
                return self._keep(reply.body, package.sha256, url)
            trouble = trouble or f"{url}: status {reply.status}"
        raise Unavailable(
            f"The package {package.name} could not be fetched: {trouble}.",
            fix="check the network, or set `mirror` of the target to a mirror of Debian.",
        )

    def wheels(self, wanted: Sequence[Wheel], arch: str) -> list[bytes]:
        """Return the contents of wheels. pip fetches those that are missing, from where it is configured to.

        Raises:
            Unavailable: One cannot be fetched, or is not what the lock names.
        """
        missing = [each for each in wanted if self._known(each.sha256) is None]
        if missing:
            self._download(missing, arch)
        found = [self._known(each.sha256) for each in wanted]
        return [each for each in found if each is not None]

    def _download(self, missing: Sequence[Wheel], arch: str) -> None:
        machine = _MACHINES[arch]
        platforms = [f"manylinux_2_{minor}_{machine}" for minor in _GLIBC] + [f"manylinux2014_{machine}"]
        platforms += ["manylinux2010_x86_64", "manylinux1_x86_64"] if arch == "amd64" else []
        with tempfile.TemporaryDirectory() as folder:
            names = Path(folder) / "requirements.txt"
            names.write_text("".join(f"{each.name}=={each.version} --hash=sha256:{each.sha256}\n" for each in missing))
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
            command += ["--disable-pip-version-check", "--only-binary=:all:", "--python-version", "3.13"]
            command += ["--implementation", "cp", "--abi", "cp313", "--abi", "abi3", "--abi", "none"]
            command += [part for each in platforms for part in ("--platform", each)]
            command += ["--dest", folder, "--requirement", str(names)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=for_child({}))
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if line.strip()] or ["pip failed"]
                raise Unavailable(
                    f"Wheels could not be fetched: {lines[-1]}", fix="check the network and pip's configuration."
                )
            for each in missing:
                self._keep((Path(folder) / each.file).read_bytes(), each.sha256, each.file)

    def _known(self, digest: str) -> bytes | None:
        try:
            content = (self.folder / "files" / digest).read_bytes()
        except FileNotFoundError:
            return None
        return content if hashlib.sha256(content).hexdigest() == digest else None

    def _keep(self, content: bytes, digest: str, what: str) -> bytes:
        found = hashlib.sha256(content).hexdigest()
        if found != digest:
            raise Corrupt(
                f"{what} has the SHA-256 {found[:16]}…, and the lock {digest[:16]}….",
                fix="use another mirror; if it stays, somebody has changed the package.",
            )
        self._write(self.folder / "files" / digest, content)
        return content

    def layer(self, key: str) -> Layer | None:
        """Return the layer that was made of `key`; `None` if there is none, or if it is damaged."""
        try:
            stored = msgspec.json.decode((self.folder / "layers" / f"{key}.json").read_bytes(), type=_Stored)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        content = self._known(stored.digest)
        return None if content is None else Layer(content, stored.digest, stored.diff_id, stored.size)

    def keep_layer(self, key: str, made: Layer) -> None:
        self._keep(made.content, made.digest, "a layer")
        stored = _Stored(made.digest, made.diff_id, made.size)
        self._write(self.folder / "layers" / f"{key}.json", msgspec.json.encode(stored))

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
