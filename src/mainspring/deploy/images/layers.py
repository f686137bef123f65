"""Layers: files in an archive whose bytes follow from the files alone.

Files are sorted, owned by root, and of one time; a folder is there before what is in it. Compressed by zlib's level 6
without a time, so that the same zlib gives the same digest; the digest of the archive itself is the same with each.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

_LEVEL = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file of an image, a link, or, with neither content nor link, a folder.

    Attributes:
        path: From the root, without a slash at the beginning.
        link: Where a symbolic link points.
        owner: Number of the user and group.
    """

    path: str
    mode: int = 0o644
    content: bytes | None = None
    link: str = ""
    owner: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's compressed bytes, and the digests by which an image names it.

    Attributes:
        digest: SHA-256 of the compressed bytes, hexadecimal.
        diff_id: The same of the archive, without compression.
        size: Bytes of the archive.
    """

    content: bytes
    digest: str
    diff_id: str
    size: int


def layer(entries: Iterable[Entry], time_s: int) -> Layer:
    """Return the layer of files, all of the time `time_s`, UTC epoch seconds.

    Raises:
        ValueError: Two entries have one path, or a path leads out of the root.
    """
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in _whole(entries):
            tar.addfile(_header(entry, time_s), None if entry.content is None else io.BytesIO(entry.content))
    plain = archive.getvalue()
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=packed, mtime=0) as file:
        file.write(plain)
    content = packed.getvalue()
    return Layer(content, hashlib.sha256(content).hexdigest(), hashlib.sha256(plain).hexdigest(), len(plain))


def _whole(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield entries by path, with the folders that they need."""
    found: dict[str, Entry] = {}
    for entry in entries:
        path = PurePosixPath(entry.path)
        if path.is_absolute() or ".." in path.parts or str(path) != entry.path or entry.path == ".":
            raise ValueError(f"{entry.path!r} is no path in an image")
        known = found.get(entry.path)
        if known is not None and (known.content is not None or known.link or known != entry):
            raise ValueError(f"two files are at {entry.path}")
        found[entry.path] = entry
    for name in list(found):
        for parent in PurePosixPath(name).parents[:-1]:
            found.setdefault(str(parent), Entry(path=str(parent), mode=0o755))
    yield from (found[name] for name in sorted(found, key=lambda name: name.split("/")))


def _header(entry: Entry, time_s: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(entry.path)
    header.mtime, header.mode, header.uid, header.gid = time_s, entry.mode & 0o777, entry.owner, entry.owner
    if entry.link:
        header.type, header.linkname, header.mode = tarfile.SYMTYPE, entry.link, 0o777
    elif entry.content is None:
        header.type = tarfile.DIRTYPE
    else:
        header.size = len(entry.content)
    return header
