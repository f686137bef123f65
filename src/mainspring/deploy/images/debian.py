"""The base of an image: files of a few Debian packages, without a shell, a package manager, or scripts of theirs.

`base.toml` has the packages by their SHA-256. Each leaves its control file where scanners look for it, as distroless
images do, and its copyright.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import msgspec

from mainspring.core.errors import Corrupt, Invalid
from mainspring.deploy.images.layers import Entry
from mainspring.deploy.images.locks import read_lock

USER = 10001  # of processes in an image
STATE = "var/lib/mainspring"
SHARED = "var/lib/mainspring-stores"  # stores in files that several containers of a machine share
PYTHON = "usr/bin/python3.13"
LIBRARY = "usr/lib/python3.13"
_LEFT_OUT = re.compile(
    r"usr/share/(man|locale|lintian|bug|doc-base|info|perl5|apps|base-files|python3/runtime\.d)/"
    r"|usr/share/doc/(?!.*/copyright$)|usr/share/(pixmaps|applications|menu|binfmts)/"
    r"|usr/lib/[a-z0-9_]+-linux-gnu/gconv/|etc/(update-motd\.d|profile\.d|default|dpkg|apt)/"
    r"|usr/lib/python3\.13/(idlelib|ensurepip|pydoc_data|turtledemo|test)/|var/(backups|local|mail)"
)
_CERTIFICATES = "usr/share/ca-certificates/mozilla/"
_MEMBER = 60  # bytes of a header in an ar archive


class DebianPackage(msgspec.Struct, frozen=True, kw_only=True):
    """A package of the lock.

    Attributes:
        path: Below the address of a mirror.
        size: Bytes.
    """

    name: str
    version: str
    path: str
    sha256: str
    size: int


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """Packages of an image's base, by architecture.

    Attributes:
        date: Of the lock, YYYY-MM-DD. All files of an image have this day.
    """

    date: str
    amd64: tuple[DebianPackage, ...]
    arm64: tuple[DebianPackage, ...]

    def packages(self, arch: str) -> tuple[DebianPackage, ...]:
        return self.amd64 if arch == "amd64" else self.arm64


def base() -> Base:
    """Return the lock of the base."""
    return read_lock("base.toml", Base)


def base_entries(packages: Sequence[bytes]) -> list[Entry]:
    """Return the files of a base.

    Args:
        packages: Contents of `.deb` files.

    Raises:
        Corrupt: One is no Debian package.
    """
    found: dict[str, Entry] = {}
    for package in packages:
        for entry in package_entries(package):
            known = found.setdefault(entry.path, entry)
            if known != entry and not (known.content is None and entry.content is None):
                raise Corrupt(f"Two packages have the file {entry.path}.", fix="write the lock of the base anew.")
    bundle = b"".join(found[name].content or b"" for name in sorted(found) if name.startswith(_CERTIFICATES))
    own = [
        Entry(path="usr/bin/python3", link="python3.13"),
        Entry(path="etc/ssl/certs/ca-certificates.crt", content=bundle),
        Entry(path="usr/lib/ssl/cert.pem", link="/etc/ssl/certs/ca-certificates.crt"),
        Entry(path="etc/passwd", content=_accounts("/nonexistent:/usr/sbin/nologin", f"/{STATE}:/usr/sbin/nologin")),
        Entry(path="etc/group", content=b"root:x:0:\nmainspring:x:%d:\n" % USER),
        Entry(path="etc/nsswitch.conf", content=b"passwd: files\ngroup: files\nhosts: files dns\n"),
        Entry(path="tmp", mode=0o777),
        Entry(path=STATE, mode=0o700, owner=USER),
        Entry(path=SHARED, mode=0o700, owner=USER),
    ]
    return [*(entry for name, entry in found.items() if name not in {each.path for each in own}), *own]


def _accounts(root: str, user: str) -> bytes:
    return f"root:x:0:0:root:{root}\nmainspring:x:{USER}:{USER}:mainspring:{user}\n".encode()


def package_entries(package: bytes) -> Iterator[Entry]:
    """Yield the files of a `.deb` file that an image needs, and its control file.

    Raises:
        Corrupt: It is no Debian package.
    """
    members = dict(_members(package))
    try:
        control = next(content for name, content in members.items() if name.startswith("control.tar"))
        data = next(content for name, content in members.items() if name.startswith("data.tar"))
        with tarfile.open(fileobj=io.BytesIO(control)) as tar:
            file = tar.extractfile("./control")
            fields = file.read() if file is not None else b""
        name = next(line for line in fields.decode().splitlines() if line.startswith("Package: ")).split()[1]
        yield Entry(path=f"var/lib/dpkg/status.d/{name}", content=fields)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            yield from _kept(tar)
    except (StopIteration, KeyError, tarfile.TarError, EOFError, OSError) as error:
        raise Corrupt(
            f"A package cannot be read: {error}.", fix="remove the cache of images and build again."
        ) from None


def _kept(tar: tarfile.TarFile) -> Iterator[Entry]:
    for each in tar:
        path = str(PurePosixPath(each.name))
        if path == "." or _LEFT_OUT.match(f"{path}/" if each.isdir() else path):
            continue
        if each.issym():
            yield Entry(path=path, mode=0o777, link=each.linkname)
        elif each.isdir():
            yield Entry(path=path, mode=each.mode & 0o755)
        elif (file := tar.extractfile(each)) is not None:  # a hard link has the content of its file
            yield Entry(path=path, mode=each.mode & 0o755, content=file.read())


def _members(package: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the members of an ar archive, by name."""
    if not package.startswith(b"!<arch>\n"):
        raise Corrupt("A package is no ar archive.", fix="remove the cache of images and build again.")
    at = 8
    while at + _MEMBER <= len(package):
        header = package[at : at + _MEMBER]
        try:
            size = int(header[48:58])
        except ValueError:
            raise Corrupt("A package is damaged.", fix="remove the cache of images and build again.") from None
        yield header[:16].decode("ascii", "replace").rstrip(" /"), package[at + _MEMBER : at + _MEMBER + size]
        at += _MEMBER + size + size % 2


def check_architecture(arch: str) -> str:
    """Return an architecture that the lock has.

    Raises:
        Invalid: It has none such.
    """
    if arch not in ("amd64", "arm64"):
        raise Invalid(f"The architecture {arch!r} is unknown.", fix='write "linux/amd64" or "linux/arm64".')
    return arch
