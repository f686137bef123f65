"""Bill of materials of an image, as CycloneDX 1.6: without a time or a random number, so that it can be compared."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from mainspring.core.version import __version__
from mainspring.deploy.images import layout
from mainspring.deploy.images.building import Recipe

_DISTRO = "debian-13"  # by which scanners choose advisories


def bill(made: Recipe, digest: str) -> bytes:
    """Return the bill of an image.

    Args:
        digest: Of the image, `sha256:...`.
    """
    parts = [
        *(_part(f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={made.arch}&distro={_DISTRO}", name, version,
                sha256)
          for name, version, sha256 in made.base),
        *(_part(f"pkg:pypi/{name}@{version}", name, version, sha256) for name, version, sha256 in made.wheels),
        _part(f"pkg:pypi/mainspring@{__version__}", "mainspring", __version__, made.code),
        *(_part(f"bundle:{each}", f"bundle {each[:12]}", each, each, kind="machine-learning-model")
          for each in made.bundles),
    ]  # fmt: skip
    name, _, version = made.name.rpartition(":")
    whole = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name, "version": version, "bom-ref": digest}},
        "components": parts,
        "dependencies": [{"ref": digest, "dependsOn": [each["bom-ref"] for each in parts]}],
    }
    return layout.json(whole) + b"\n"


def _part(ref: str, name: str, version: str, sha256: str, kind: str = "library") -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": kind,
        "bom-ref": ref,
        "name": name,
        "version": version,
        "hashes": [{"alg": "SHA-256", "content": sha256}],
    }
    return {**found, "purl": ref} if ref.startswith("pkg:") else found
