"""An image of a project: what it is built of, and its layers.

A recipe names every byte by a digest or has it as text, so that it can be shown, compared and searched for secrets
before anything is fetched. Layers go from what changes least to what changes most: base, packages, Mainspring, project.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from mainspring.deploy.images import bytecode, debian, layout
from mainspring.deploy.images.layers import Entry, Layer, layer
from mainspring.deploy.images.store import Store
from mainspring.deploy.images.wheels import Wheel, locked, own_entries, wheel_entries, wheels

PROJECT = "srv/mainspring"
BUNDLES = f"{PROJECT}/bundles"
_FORMAT = 3  # of layers: another one makes other bytes of the same parts


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """Parts of an image.

    Attributes:
        name: Under which the image is loaded and pushed.
        date: Of all files, YYYY-MM-DD.
        base, wheels: Name, version and SHA-256 of each package.
        code: SHA-256 of Mainspring's own files.
        compiled: Whether Python files are compiled.
        serves_only: Whether packages are without what serving does not import.
        files: Path -> text of the project's files, below `PROJECT`.
        bundles: Digests of the bundles.
        settings: Of the configuration: `User`, `Env`, `Entrypoint` and so on.
    """

    name: str
    arch: str
    date: str
    base: tuple[tuple[str, str, str], ...]
    wheels: tuple[tuple[str, str, str], ...]
    code: str
    compiled: bool
    serves_only: bool
    files: Mapping[str, str]
    bundles: tuple[str, ...]
    settings: Mapping[str, Any]
    format: int = _FORMAT

    def encoded(self) -> bytes:
        """Return the recipe as text, the same for the same parts."""
        return msgspec.json.format(layout.json(self), indent=1) + b"\n"

    @property
    def time_s(self) -> int:
        """Time of all files, UTC epoch seconds."""
        return int(datetime.fromisoformat(self.date).replace(tzinfo=UTC).timestamp())


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an image that is the project's own.

    Attributes:
        bundles: Digest -> its files.
        env: Variables of the processes.
        extras: Extras of Mainspring that they need.
    """

    files: Mapping[str, str]
    bundles: tuple[str, ...]
    env: Mapping[str, str]
    extras: tuple[str, ...]


def code_digest(entries: Sequence[Entry]) -> str:
    """Return the SHA-256 of files with their paths."""
    total = hashlib.sha256()
    for entry in sorted(entries, key=lambda each: each.path):
        total.update(f"{entry.path}\0{entry.mode:o}\0".encode())
        total.update(hashlib.sha256(entry.content or b"").digest())
    return total.hexdigest()


def recipe(name: str, arch: str, content: Content, settings: Mapping[str, Any]) -> Recipe:
    """Return the recipe of an image by the locks of this version.

    Raises:
        Invalid: The locks have no such architecture or extra.
    """
    lock = debian.base()
    packages = lock.packages(debian.check_architecture(arch))
    return Recipe(
        name=name,
        arch=arch,
        date=lock.date,
        base=tuple((each.name, each.version, each.sha256) for each in packages),
        wheels=tuple((each.name, each.version, each.sha256) for each in wheels(arch, content.extras)),
        code=code_digest(own_entries()),
        compiled=bytecode.can_compile(arch),
        serves_only="local" not in content.extras,
        files=dict(content.files),
        bundles=content.bundles,
        settings=settings,
    )


def build(made: Recipe, bundles: Mapping[str, Mapping[str, bytes]], store: Store) -> list[tuple[str, Layer]]:
    """Return the layers of an image, each with what it has. Parts that are not in the store are fetched.

    Args:
        bundles: Digest -> files of each.

    Raises:
        Unavailable: A part cannot be fetched.
        Corrupt: A part is not what the lock names.
    """
    return [*_fixed(made, store), ("project", layer(_project(made, bundles), made.time_s))]


def _fixed(made: Recipe, store: Store) -> list[tuple[str, Layer]]:
    """Return the layers that do not depend on the project, from the store if it has them."""
    keys = {
        "base": [made.base],
        "packages": [made.base, made.wheels, made.serves_only],
        "mainspring": [made.base, made.code],
    }
    common = [made.format, made.arch, made.date, made.compiled]
    digests = {name: hashlib.sha256(layout.json([name, *common, parts])).hexdigest() for name, parts in keys.items()}
    known = {name: store.layer(digest) for name, digest in digests.items()}
    missing = [name for name, found in known.items() if found is None]
    if missing:
        for name, found in _made(made, store, missing).items():
            store.keep_layer(digests[name], found)
            known[name] = found
    return [(name, found) for name, found in known.items() if found is not None]


def _made(made: Recipe, store: Store, missing: Sequence[str]) -> dict[str, Layer]:
    lock = {each.sha256: each for each in debian.base().packages(made.arch)}
    base = debian.base_entries(store.packages([lock[digest] for _, _, digest in made.base]))
    groups: dict[str, list[Entry]] = {}
    if "base" in missing:
        groups["base"] = base
    if "packages" in missing:
        found = _wheels(made)
        for wheel, content in zip(found, store.wheels(found, made.arch), strict=True):
            groups[f"packages {wheel.name}"] = list(wheel_entries(content, serves_only=made.serves_only))
    if "mainspring" in missing:
        groups["mainspring"] = own_entries()
    extra = bytecode.compiled(groups, base, made.arch) if made.compiled else {}
    return {
        name: layer(
            [
                entry
                for group, entries in groups.items()
                if group.split()[0] == name
                for entry in (*entries, *extra.get(group, ()))
            ],
            made.time_s,
        )
        for name in missing
    }


def _wheels(made: Recipe) -> list[Wheel]:
    wanted = {digest for _, _, digest in made.wheels}
    return [each for each in locked(made.arch) if each.sha256 in wanted]


def _project(made: Recipe, bundles: Mapping[str, Mapping[str, bytes]]) -> list[Entry]:
    files = [Entry(path=f"{PROJECT}/{name}", content=text.encode()) for name, text in made.files.items()]
    stored = [
        Entry(path=f"{BUNDLES}/{digest}/{name}", content=content)
        for digest in made.bundles
        for name, content in bundles[digest].items()
    ]
    return [*files, *stored]


def image(made: Recipe, layers: Sequence[tuple[str, Layer]], version: str) -> tuple[bytes, bytes]:
    """Return the configuration and the manifest of an image.

    Args:
        version: Of Mainspring.
    """
    created = f"{made.date}T00:00:00Z"
    configuration = layout.config(layers, made.settings, made.arch, created)
    annotations = {
        "org.opencontainers.image.created": created,
        "org.opencontainers.image.base.name": f"debian packages of {made.date}",
        layout.RECIPE: hashlib.sha256(made.encoded()).hexdigest(),
        "dev.mainspring.version": version,
    }
    return configuration, layout.manifest(configuration, [each for _, each in layers], annotations)
