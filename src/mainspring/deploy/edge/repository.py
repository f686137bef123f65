"""The repository of packages by The Update Framework (TUF 1.0.34): a folder that any HTTPS server can serve.

Four roles have a key each. `targets` says which files there are, `snapshot` and `timestamp` that they are the newest.
Metadata expires; `timestamp` soonest, so that a server that shows an old copy is noticed. Files are named by their hash
(consistent snapshots): a device that reads while a version is published sees the one before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Conflict, Corrupt, Invalid, NotFound
from mainspring.core.files import disk_errors, make_folder, sync_folder, write_atomic
from mainspring.core.locks import Locks
from mainspring.deploy.edge.package import INDEX, SIGNATURE
from mainspring.security.secrets import load_or_create

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata

METADATA, TARGETS = "metadata", "targets"
ROLES = ("root", "targets", "snapshot", "timestamp")
LIFETIMES: Mapping[str, timedelta] = {
    "root": timedelta(days=365),
    "targets": timedelta(days=90),
    "snapshot": timedelta(days=14),
    "timestamp": timedelta(days=2),
}
_TOLD = ("bundle", "endpoint")  # fields of a package's index that the repository repeats
_PUBLISH = "publish a package: `mainspring edge publish FOLDER`."


@dataclass(frozen=True, slots=True)
class Release:
    """A published version of a package.

    Attributes:
        published_at: UTC epoch microseconds.
        bundle: Digest of the bundle that it was built from.
        endpoint: The endpoint whose predictions it makes; empty of packages of older releases.
    """

    name: str
    version: int
    size_bytes: int
    published_at: int
    bundle: str = ""
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class RoleKey:
    """The key of a role: its id, its file, whether that is there, and when the role's metadata expires (µs, UTC)."""

    role: str
    id: str
    file: Path
    present: bool
    expires: int


class Repository:
    """A repository in `folder`, signed by keys in `keys`, one file a role.

    Args:
        locks: One writer at a time.
        now: Clock, UTC epoch microseconds.
        root_key: File of the root's key, by default beside the others. It is needed to begin, and to rotate a key; a
            root that expires soon is signed again only while the file is there.
    """

    def __init__(
        self, folder: Path, keys: Path, locks: Locks, now: Callable[[], int], *, root_key: Path | None = None
    ) -> None:
        self.folder, self._locks, self._now = folder, locks, now
        self._files = {role: keys / f"edge-{role}" for role in ROLES}
        self._files["root"] = root_key or self._files["root"]

    def publish(self, package: Path) -> Release:
        """Add a verified package and sign the metadata anew.

        Args:
            package: Folder of a package that `mainspring_edge.open_package` or the writer has verified.

        Raises:
            Conflict: The version is there with another content; versions never change.
            Invalid: The folder is no package.
            StorageFull: No space; devices see the state before.
        """
        index = _index(package)
        name, version = str(index["name"]), int(index["version"])
        files = [INDEX, SIGNATURE, *index["files"]]
        with self._writing():
            targets = self._load("targets") or self._begin()
            known = targets.signed.targets
            sources = {f"{name}/{version}/{each}": package / each for each in files}
            for path, source in sources.items():
                self._add(targets, path, source)
            if f"{name}/{version}/{INDEX}" not in known:
                about = {"published_at": self._now(), **{each: str(index.get(each, "")) for each in _TOLD}}
                for path, source in sources.items():
                    known[path] = self._info(path, source)
                    known[path].unrecognized_fields["custom"] = about
                self._sign_all(targets)
            elif not self._named(targets):
                self._sign_all(targets)
            return self._release(targets, name, version)

    def withdraw(self, name: str, version: int) -> None:
        """Remove a version: no device can install it from now on.

        Raises:
            NotFound: It is not published.
        """
        with self._writing():
            targets = self._load("targets")
            paths = [] if targets is None else [p for p in targets.signed.targets if p.startswith(f"{name}/{version}/")]
            if targets is None or not paths:
                raise self._unknown(name, version)
            for path in paths:
                del targets.signed.targets[path]
            self._sign_all(targets)

    def releases(self, name: str | None = None) -> list[Release]:
        """Return what is published, by name and version."""
        targets = self._load("targets")
        if targets is None:
            return []
        found = {tuple(path.split("/")[:2]) for path in targets.signed.targets}
        every = [self._release(targets, each, int(version)) for each, version in found]
        return sorted((r for r in every if name in (None, r.name)), key=lambda each: (each.name, each.version))

    def release(self, name: str, version: int) -> Release:
        """Return a published version. Raises `NotFound`."""
        for each in self.releases(name):
            if each.version == version:
                return each
        raise self._unknown(name, version)

    def refresh(self, *, force: bool = False) -> bool:
        """Sign anew what has less than half of its lifetime left, and return whether anything had."""
        with self._writing():
            targets = self._load("targets")
            if targets is None:
                return False
            old = self._old("targets", targets) or self._old("snapshot", self._load("snapshot"))
            if force or old or not self._named(targets):
                self._sign_all(targets)
                return True
            if self._old("timestamp", self._load("timestamp")):
                self._stamp()
                return True
            return False

    def expires(self) -> Mapping[str, int]:
        """Return when the metadata of each role expires, UTC epoch microseconds."""
        loaded = {role: self._load(role) for role in ROLES}
        return {role: _us(each.signed.expires) for role, each in loaded.items() if each is not None}

    def first_root(self) -> bytes:
        """Return the first root metadata, which every device is given when it is set up.

        Raises:
            NotFound: Nothing was published yet.
        """
        path = self.folder / METADATA / "1.root.json"
        if not path.exists():
            raise NotFound("The repository of packages is empty.", fix=_PUBLISH)
        return path.read_bytes()

    def _unknown(self, name: str, version: int) -> NotFound:
        known = ", ".join(f"{each.name} {each.version}" for each in self.releases()[-8:]) or "nothing"
        return NotFound(f"Version {version} of {name!r} is not published; there is {known}.", fix=_PUBLISH)

    def _begin(self) -> Metadata[Any]:
        """Write the first root, and return empty targets."""
        from tuf.api.metadata import Metadata, Root, Targets

        root = Root(version=1, expires=self._expiry("root"), consistent_snapshot=True)
        for role in ROLES:
            root.add_key(_signer_of(load_or_create(self._files[role])).public_key, role)
        self._write("root", Metadata(root), version=1, signers=[_signer_of(load_or_create(self._files["root"]))])
        return Metadata(Targets(version=1, expires=self._expiry("targets")))

    def rotate(self, role: str) -> str:
        """Replace a role's key by a new one, in a root that the old and the new root key sign; return its id.

        The new key is beside the old one, with the ending `.next`, until the root that names it is there: killed at any
        moment, the repository is signed by the keys that its newest root names.

        Raises:
            Invalid: There is no such role.
            NotFound: Nothing was published yet, or the root's key is not there.
        """
        if role not in ROLES:
            raise Invalid(f"{role!r} is no role.", fix=f"choose one of {', '.join(ROLES)}.")
        with self._writing():
            root, targets = self._load("root"), self._load("targets")
            if root is None or targets is None:
                raise NotFound("The repository of packages is empty.", fix=_PUBLISH)
            signers, old = [self._signer("root")], self._signer(role)
            path = self._files[role]
            _next(path).unlink(missing_ok=True)  # of a rotation that was killed before its root
            new = _signer_of(load_or_create(_next(path)))
            root.signed.revoke_key(old.public_key.keyid, role)
            root.signed.add_key(new.public_key, role)
            root.signed.version += 1
            root.signed.expires = self._expiry("root")
            if role == "root":
                signers.append(new)
            self._write("root", root, version=root.signed.version, signers=signers)
            self._sign_all(targets)
            return str(self._signer(role).public_key.keyid)

    def role_keys(self) -> list[RoleKey]:
        """Return the key that each role is signed with, and where it is."""
        root, expires = self._load("root"), self.expires()
        if root is None:
            return []
        return [
            RoleKey(role, root.signed.roles[role].keyids[0], path, path.exists(), expires.get(role, 0))
            for role, path in self._files.items()
        ]

    def _add(self, targets: Metadata[Any], path: str, source: Path) -> None:
        """Copy a file under the name that its hash gives it."""
        info = self._info(path, source)
        before = targets.signed.targets.get(path)
        if before is not None and before.hashes != info.hashes:
            name, version, _ = path.split("/")
            raise Conflict(
                f"Version {version} of {name!r} is published with another {path.rpartition('/')[2]}.",
                fix="build the package again with a higher version: `mainspring edge build`.",
            )
        folder, _, last = path.rpartition("/")
        to = self.folder / TARGETS / folder / f"{info.hashes['sha256']}.{last}"
        if not to.exists():
            make_folder(to.parent, mode=0o755)
            write_atomic(to, source.read_bytes(), mode=0o644)

    @staticmethod
    def _info(path: str, source: Path) -> Any:
        from tuf.api.metadata import TargetFile

        return TargetFile.from_file(path, str(source), ["sha256"])

    def _release(self, targets: Metadata[Any], name: str, version: int) -> Release:
        files = {p: each for p, each in targets.signed.targets.items() if p.startswith(f"{name}/{version}/")}
        custom = files[f"{name}/{version}/{INDEX}"].custom or {}
        size, published_at = sum(each.length for each in files.values()), int(custom.get("published_at", 0))
        return Release(name, version, size, published_at, *(str(custom.get(each, "")) for each in _TOLD))

    def _sign_all(self, targets: Metadata[Any]) -> None:
        """Write new targets, then the snapshot that names them, then the timestamp, which makes them seen."""
        from tuf.api.metadata import Metadata, MetaFile, Snapshot

        root = self._load("root")
        if root is not None and self._old("root", root) and self._files["root"].exists():
            root.signed.version += 1
            root.signed.expires = self._expiry("root")
            self._write("root", root, version=root.signed.version)
        targets.signed.version += 1
        targets.signed.expires = self._expiry("targets")
        self._write("targets", targets, version=targets.signed.version)
        found = self._load("snapshot")
        snapshot = found or Metadata(Snapshot(version=1, expires=self._expiry("snapshot")))
        snapshot.signed.version += 1
        snapshot.signed.expires = self._expiry("snapshot")
        snapshot.signed.meta["targets.json"] = MetaFile(version=targets.signed.version)
        self._write("snapshot", snapshot, version=snapshot.signed.version)
        self._stamp()

    def _stamp(self) -> None:
        from tuf.api.metadata import Metadata, MetaFile, Timestamp

        timestamp = self._load("timestamp") or Metadata(Timestamp(version=1, expires=self._expiry("timestamp")))
        snapshot = self._load("snapshot")
        assert snapshot is not None
        timestamp.signed.version += 1
        timestamp.signed.expires = self._expiry("timestamp")
        timestamp.signed.snapshot_meta = MetaFile(version=snapshot.signed.version)
        self._write("timestamp", timestamp)

    def _write(
        self, role: str, metadata: Metadata[Any], *, version: int | None = None, signers: list[Any] | None = None
    ) -> None:
        from tuf.api.serialization.json import JSONSerializer

        metadata.signatures.clear()
        for signer in signers or [self._signer(role)]:
            metadata.sign(signer, append=True)
        name = f"{role}.json" if version is None else f"{version}.{role}.json"
        make_folder(self.folder / METADATA, mode=0o755)
        write_atomic(self.folder / METADATA / name, metadata.to_bytes(JSONSerializer(compact=False)), mode=0o644)

    def _load(self, role: str) -> Metadata[Any] | None:
        """Return the newest metadata of a role, `None` before the first.

        An interrupted publication leaves a version that the timestamp does not lead to; the next one completes it.
        """
        from tuf.api.metadata import Metadata
        from tuf.api.serialization import DeserializationError

        path = self._path(role)
        if path is None or not path.exists():
            return None
        try:
            return Metadata.from_bytes(path.read_bytes())
        except DeserializationError as error:
            raise Corrupt(f"{path} is damaged: {error}.", fix=f"restore {self.folder} from a backup.") from None

    def _named(self, targets: Metadata[Any]) -> bool:
        """Return whether the timestamp leads to these targets."""
        snapshot, timestamp = self._load("snapshot"), self._load("timestamp")
        return (
            snapshot is not None
            and timestamp is not None
            and timestamp.signed.snapshot_meta.version == snapshot.signed.version
            and snapshot.signed.meta["targets.json"].version == targets.signed.version
        )

    def _path(self, role: str) -> Path | None:
        folder = self.folder / METADATA
        if role == "timestamp":
            return folder / "timestamp.json"
        versions = [int(path.name.partition(".")[0]) for path in folder.glob(f"*.{role}.json")]
        return folder / f"{max(versions)}.{role}.json" if versions else None

    def _old(self, role: str, metadata: Metadata[Any] | None) -> bool:
        if metadata is None:
            return True
        left_us = _us(metadata.signed.expires) - self._now()
        return left_us < LIFETIMES[role] / timedelta(microseconds=1) / 2

    def _expiry(self, role: str) -> datetime:
        at = datetime.fromtimestamp(self._now() // 1_000_000, UTC)
        return (at + LIFETIMES[role]).replace(microsecond=0)

    def _signer(self, role: str) -> Any:
        """Return the signer of a role, by the key that the newest root names.

        Raises:
            NotFound: That key is not there.
        """
        root, path = self._load("root"), self._files[role]
        trusted = () if root is None else root.signed.roles[role].keyids
        for file in (path, _next(path)):
            if root is None or not file.exists():
                continue
            signer = _signer_of(load_or_create(file))
            if signer.public_key.keyid in trusted:
                if file != path:  # the root names it now
                    path.replace(path.with_name(f"{path.name}.before-{root.signed.version}"))
                    file.replace(path)
                    sync_folder(path.parent)
                return signer
        raise NotFound(
            f"{path} is not the key of the role {role!r} of the repository of packages.",
            fix="set MAINSPRING_FLEET_ROOT_KEY to the file with it." if role == "root" else "restore it from a backup.",
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._locks.hold("edge-repository"), disk_errors(self.folder):
            make_folder(self.folder, mode=0o755)
            yield
            sync_folder(self.folder)


def _next(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")


def _signer_of(secret: bytes) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.signer import CryptoSigner

    return CryptoSigner(Ed25519PrivateKey.from_private_bytes(secret))


def _index(package: Path) -> dict[str, Any]:
    try:
        index = json.loads((package / INDEX).read_bytes())
        _ = str(index["name"]), int(index["version"]), [*index["files"]]
        return dict(index)
    except (OSError, ValueError, KeyError, TypeError):
        raise Invalid(
            f"{package} is no package: it has no {INDEX} that can be read.", fix="build one: `mainspring edge build`."
        ) from None


def _us(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000
