"""Folders of a version's files with a signature that other tools verify, and the verification of theirs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from mainspring.core.errors import Conflict
from mainspring.core.files import disk_errors, make_folder, sync_folder, write_atomic
from mainspring.core.time import SystemClock
from mainspring.operations.auditing import begun
from mainspring.operations.models.curating import find
from mainspring.operations.models.transferring import with_members
from mainspring.project import Project
from mainspring.registry import oms
from mainspring.registry.bundles import blob_of, sha256


@dataclass(frozen=True, slots=True)
class SignedModel:
    """A model with its signature. `signer`: subject of the certificate, or `key` and the SHA-256 of its PEM."""

    path: str
    signature: str
    signer: str
    files: int
    ignored: tuple[str, ...] = ()  # paths that the signature leaves out


def sign_version(project: Project, reference: str, folder: Path, signer: oms.Signer) -> SignedModel:
    """Write the files of a version to a new folder, those of a graph's nodes below `nodes`, and sign them.

    Raises:
        Conflict: The folder exists.
        Corrupt: A bundle is damaged.
        StorageFull: No space.
    """
    version = find(project, reference)
    files: dict[str, bytes] = {}
    for digest, bundle in with_members(project, version.digest).items():
        below = "" if digest == version.digest else f"nodes/{digest}/"
        files.update((below + name, content) for name, content in blob_of(bundle).items())
    if folder.exists():
        raise Conflict(f"The folder {folder} exists.", fix="name another, or remove it.")
    signature = oms.sign(folder.name, {name: sha256(content) for name, content in files.items()}, signer)
    with begun(project, "export", f"model/{version.model}") as done:
        with disk_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            part = Path(mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
            try:
                for name, content in {**files, oms.SIGNATURE: signature}.items():
                    make_folder((part / name).parent)
                    write_atomic(part / name, content)
                part.rename(folder)
            except BaseException:
                rmtree(part, ignore_errors=True)
                raise
            sync_folder(folder.parent)
        done(f"version {version.version}, bundle {version.digest[:12]}, to {folder.name}, signed by {signer.name}")
    return SignedModel(str(folder), str(folder / oms.SIGNATURE), signer.name, len(files))


def verify_model(path: Path, trusted: Path, signature: Path | None = None) -> SignedModel:
    """Return who signed a folder or a file, which is as it was signed but for the paths that the signature leaves out.

    Args:
        trusted: PEM of public keys and of authorities.
        signature: By default `model.sig` in the folder, or `FILE.sig`.

    Raises:
        Denied: Nobody who is trusted signed it.
        Corrupt: It was changed, has a file more or less, or a link.
    """
    signature = oms.signature_of(path) if signature is None else signature
    signed = oms.open_signature(signature, oms.read_trusted(trusted), SystemClock().now())
    oms.check(path, signed, signature)
    return SignedModel(str(path), str(signature), signed.signer, len(signed.files), signed.ignored)
