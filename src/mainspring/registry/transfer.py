"""Export file of a version, for import by another installation: its bundle, those of its graph's nodes, its lineage.

A plain tar archive: `export.json` is the index, `export.signature` the exporting installation's signature of the index,
and `bundles/<digest>/<file>` are the stored bundles. Nothing is extracted to disk: each name is checked, each file is
read into memory, and everything is verified against one trusted key before any of it is used.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from mainspring.core.errors import Corrupt, Denied, Invalid
from mainspring.core.ids import ID_PATTERN
from mainspring.core.json_content import decoded
from mainspring.registry.bundles import MANIFEST, SIGNATURE, encode_manifest, open_blob
from mainspring.registry.model import Bundle
from mainspring.registry.model_file import open_plain
from mainspring.security import signing

FORMAT = 1
INDEX, INDEX_SIGNATURE = "export.json", "export.signature"
MOST_BYTES = 8 << 30
_MOST_INDEX = 64 << 20
_MOST_MEMBERS = 10_000
_MOST_HEAD = 64 << 10  # bytes of a member's header, long names included
_FILE = re.compile(rf"bundles/([0-9a-f]{{64}})/({ID_PATTERN})")


class ExportedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run, as recorded by the exporting installation."""

    id: str
    status: str
    started_at: int
    ended_at: int | None
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


class Export(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Index of an export file."""

    format: int = FORMAT
    key: str  # the exporting installation's public key, hex: a hint, not a proof
    model: str
    version: str
    digest: str
    bundles: tuple[str, ...]  # digests: the version's, and those of its nodes
    created_at: int
    authors: tuple[str, ...]
    tags: dict[str, str]
    run: ExportedRun | None


def write_export(file: BinaryIO, export: Export, bundles: Iterable[Bundle], key: signing.SigningKey) -> None:
    """Write an export file; the same content gives the same bytes."""
    index = msgspec.json.encode(export, order="sorted")
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, INDEX, index)
        _add(tar, INDEX_SIGNATURE, key.sign(index))
        for bundle in bundles:
            blob = {**bundle.files, MANIFEST: encode_manifest(bundle.manifest), SIGNATURE: bundle.signature}
            for name in sorted(blob):
                _add(tar, f"bundles/{bundle.digest}/{name}", blob[name])


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o600
    tar.addfile(member, io.BytesIO(content))


def read_export(path: Path, trusted: Mapping[str, bytes]) -> tuple[Export, dict[str, Bundle], str]:
    """Return the index and the verified bundles of an export file, and the name of the key that signed it.

    Args:
        trusted: Name -> public key.

    Raises:
        NotFound: The file does not exist.
        Invalid: The path is a link, a folder, a pipe or a device, or the file is too large.
        Denied: None of the trusted keys signed the file.
        Corrupt: The file is not an export, or was changed or truncated.
    """
    what = f"The export {path.name}"
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MOST_BYTES:
                raise Invalid(f"{path.name} has {size:,} bytes; the maximum for an export is {MOST_BYTES:,}.")
            members = _members(file, size, what)
            name, index = next(members, ("", b""))
            other, signature = next(members, ("", b""))
            if (name, other) != (INDEX, INDEX_SIGNATURE):
                raise _damaged(f"{what} does not start with {INDEX} and its signature.")
            signer = _signer(index, signature, trusted, what)
            export = _decode(index, what)
            blobs: dict[str, dict[str, bytes]] = {digest: {} for digest in export.bundles}
            for name, content in members:
                place = _FILE.fullmatch(name)
                if place is None or place[1] not in blobs:
                    raise _damaged(f"{what} contains {name[:100]!r}, which its index does not list.")
                blobs[place[1]][place[2]] = content
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise _damaged(f"{what} cannot be read: {error}.") from error
    bundles = {digest: open_blob(digest, blob, trusted[signer]) for digest, blob in blobs.items()}
    _check_whole(export, bundles, what)
    return export, bundles, signer


class _Heads:
    """File wrapper for `tarfile` that limits the bytes of a member's header, whatever size the header claims."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell
        self.left = _MOST_HEAD

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.left:
            raise tarfile.ReadError(f"a member's header is larger than {_MOST_HEAD:,} bytes")
        self.left -= size
        return self._file.read(size)


def _members(file: BinaryIO, size: int, what: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each member of a tar archive: regular files only, each name once.

    Args:
        size: Size of the file in bytes; a member that claims more is refused before it is read.
    """
    heads = _Heads(file)
    tar = tarfile.open(fileobj=cast("BinaryIO", heads), mode="r:")  # noqa: SIM115  (it opens nothing)
    seen: set[str] = set()
    for member in tar:
        heads.left = _MOST_HEAD
        name = member.name
        if name not in (INDEX, INDEX_SIGNATURE) and not _FILE.fullmatch(name):
            raise _damaged(f"{what} contains {name[:100]!r}, which is not allowed in an export.")
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
            raise _damaged(f"{what} contains {name!r}, which is not a regular file.")
        if name in seen or len(seen) >= _MOST_MEMBERS:
            raise _damaged(f"{what} contains {name!r} twice, or too many files.")
        if name in (INDEX, INDEX_SIGNATURE) and member.size > _MOST_INDEX:
            raise _damaged(f"{what} has an index of {member.size:,} bytes.")
        if not 0 <= member.size <= size - member.offset_data:
            raise _damaged(f"{what} ends within {name!r}.")
        seen.add(name)
        file.seek(member.offset_data)
        yield name, file.read(member.size)


def _signer(index: bytes, signature: bytes, trusted: Mapping[str, bytes], what: str) -> str:
    for name, public in trusted.items():
        try:
            signing.verify(public, signature, index)
        except Corrupt:
            continue
        return name
    try:
        key = f"The export names the key {decoded(index, Export).key[:64]}."
    except msgspec.DecodeError:
        key = "The export does not name its key."
    raise Denied(
        f"{what} is not signed by a key that is trusted here. {key}",
        authenticated=True,
        fix="ask the exporter for the output of `mainspring models key`, compare the keys, and if they match run "
        "`mainspring models trust NAME KEY`.",
    )


def _decode(index: bytes, what: str) -> Export:
    try:
        export = decoded(index, Export)
    except msgspec.DecodeError as error:
        raise _damaged(f"{what} has an index that cannot be read: {error}.") from error
    if export.format != FORMAT:
        raise Corrupt(f"{what} has the format {export.format}; this version reads {FORMAT}.", fix="upgrade mainspring.")
    return export


def _check_whole(export: Export, bundles: Mapping[str, Bundle], what: str) -> None:
    main = bundles.get(export.digest)
    if main is None:
        raise _damaged(f"{what} lacks its main bundle {export.digest[:12]}.")
    if main.manifest.model != export.model:
        raise _damaged(f"{what} claims to contain {export.model!r}, but its bundle is of {main.manifest.model!r}.")
    for bundle in bundles.values():
        for member in members_of(bundle):
            if member not in bundles:
                raise _damaged(f"{what} lacks the bundle {member[:12]}, a node of {bundle.digest[:12]}.")


def members_of(bundle: Bundle) -> Sequence[str]:
    """Return the digests of a bundle's graph nodes."""
    graph = bundle.manifest.graph
    return () if graph is None else [node.bundle for node in graph.nodes if node.bundle]


def _damaged(what: str) -> Corrupt:
    return Corrupt(what, fix="export it again; nothing was imported.")
