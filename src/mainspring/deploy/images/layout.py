"""An image as an OCI image layout (image-spec 1.1): a folder that podman, skopeo, buildah and containerd read."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.errors import Conflict
from mainspring.core.files import write_atomic
from mainspring.deploy.images.layers import Layer

RECIPE = "dev.mainspring.recipe"  # annotation: SHA-256 of what the image was built of
_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_VERSION = b'{"imageLayoutVersion":"1.0.0"}'
_NAMES = {"blobs", "index.json", "oci-layout"}


def json(value: Any) -> bytes:
    """Return canonical JSON: sorted keys, no blanks."""
    return msgspec.json.encode(value, order="sorted")


def config(layers: Sequence[tuple[str, Layer]], settings: Mapping[str, Any], arch: str, created: str) -> bytes:
    """Return the configuration of an image.

    Args:
        layers: Each with what it has.
        settings: `User`, `Env`, `Entrypoint` and so on.
        created: Time of all, RFC 3339.
    """
    return json(
        {
            "architecture": arch,
            "os": "linux",
            "created": created,
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{each.diff_id}" for _, each in layers]},
            "history": [{"created": created, "created_by": what} for what, _ in layers],
        }
    )


def manifest(configuration: bytes, layers: Sequence[Layer], annotations: Mapping[str, str]) -> bytes:
    """Return the manifest of an image: its digest is the image's."""
    return json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _described(_CONFIG, configuration),
            "layers": [
                {"mediaType": _LAYER, "digest": f"sha256:{each.digest}", "size": len(each.content)} for each in layers
            ],
            "annotations": annotations,
        }
    )


def _described(kind: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{_sha256(content)}", "size": len(content)}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write(folder: Path, name: str, configuration: bytes, layers: Sequence[Layer], content: bytes) -> None:
    """Write a layout with one image; `index.json`, which makes it one, comes last. Blobs of an image that was there
    before are removed after it.

    Args:
        name: Under which it is loaded, such as `registry.example.org/shop:1`.
        content: The manifest.

    Raises:
        Conflict: The folder has something else.
    """
    check_ours(folder)
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "oci-layout", _VERSION, mode=0o644)
    wanted = {_sha256(configuration): configuration, _sha256(content): content}
    wanted |= {each.digest: each.content for each in layers}
    for digest, blob in wanted.items():
        if not (blobs / digest).exists() or _sha256((blobs / digest).read_bytes()) != digest:
            write_atomic(blobs / digest, blob, mode=0o644)
    described = {**_described(_MANIFEST, content), "annotations": {"org.opencontainers.image.ref.name": name}}
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [described]}
    write_atomic(folder / "index.json", json(index), mode=0o644)
    for each in blobs.iterdir():
        if each.name not in wanted:
            each.unlink()


def check_ours(folder: Path) -> None:
    """Raise if an image cannot be written into a folder.

    Raises:
        Conflict: It has something else.
    """
    if is_other(folder):
        raise Conflict(f"{folder} has something else than an image.", fix="move it away, or name another folder.")


def is_other(folder: Path) -> bool:
    """Return whether a folder has something else than an image of ours, whole or unfinished."""
    if not folder.exists():
        return False
    names = {each.name for each in folder.iterdir() if not each.name.endswith(".partial")} if folder.is_dir() else {""}
    return bool(names - _NAMES) or ("index.json" in names and recipe(folder) is None)


def recipe(folder: Path) -> str | None:
    """Return what the image in a layout was built of; empty if a byte of it was changed since, `None` if none of ours
    is there."""
    try:
        index = msgspec.json.decode((folder / "index.json").read_bytes())
        digest = index["manifests"][0]["digest"].removeprefix("sha256:")
        content = (folder / "blobs" / "sha256" / digest).read_bytes()
        found = msgspec.json.decode(content)
        made_of = str(found["annotations"][RECIPE])
        blobs = [digest, *(each["digest"].removeprefix("sha256:") for each in (found["config"], *found["layers"]))]
    except (OSError, msgspec.DecodeError, LookupError, TypeError, AttributeError):
        return None
    place = folder / "blobs" / "sha256"
    try:
        whole = all(_sha256((place / each).read_bytes()) == each for each in blobs)
    except OSError:
        whole = False
    return made_of if whole else ""


def image_digest(folder: Path) -> str:
    """Return the digest of the image in a layout, `sha256:...`."""
    index = msgspec.json.decode((folder / "index.json").read_bytes())
    return str(index["manifests"][0]["digest"])


def summary(folder: Path) -> str:
    """Return the digest of the image in a layout, and the compressed sizes of its layers."""
    digest = image_digest(folder)
    place = folder / "blobs" / "sha256"
    found = msgspec.json.decode((place / digest.removeprefix("sha256:")).read_bytes())
    configuration = msgspec.json.decode((place / found["config"]["digest"].removeprefix("sha256:")).read_bytes())
    names = [each["created_by"] for each in configuration["history"]]
    sizes = [each["size"] / 1e6 for each in found["layers"]]
    told = ", ".join(f"{name} {size:.1f}" for name, size in zip(names, sizes, strict=True))
    return f"{digest}, {sum(sizes):.1f} MB: {told}"


def remove(folder: Path) -> None:
    """Remove an image of ours, its index first: a half removed one is none."""
    if folder.exists():
        (folder / "index.json").unlink(missing_ok=True)
        shutil.rmtree(folder)
