"""Python packages of an image: wheels by the lock `wheels.toml`, and the installed Mainspring itself."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection, Iterator
from importlib import metadata
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

import msgspec

from mainspring.core.errors import Corrupt, Invalid
from mainspring.core.version import __version__
from mainspring.deploy.images.layers import Entry
from mainspring.deploy.images.locks import read_lock

SITE = "usr/local/lib/python3.13/dist-packages"
USUAL = "gateway"  # the extra that each image has
_LEFT_OUT = (".pyi", ".pyx", ".pxd", ".c", ".h", ".hpp", ".a", ".lib")
_NOT_SERVED = ("tests", "__pycache__")
_TOOLS = ("onnxruntime/quantization/", "onnxruntime/tools/", "onnxruntime/transformers/", "numpy/f2py/")


class Wheel(msgspec.Struct, frozen=True, kw_only=True):
    """A wheel of the lock.

    Attributes:
        extras: Extras of Mainspring that need it.
    """

    name: str
    version: str
    file: str
    sha256: str
    extras: tuple[str, ...]


class Wheels(msgspec.Struct, frozen=True, kw_only=True):
    """Wheels by architecture."""

    amd64: tuple[Wheel, ...]
    arm64: tuple[Wheel, ...]


def locked(arch: str) -> tuple[Wheel, ...]:
    """Return all wheels of an architecture that the lock has, by name."""
    lock = read_lock("wheels.toml", Wheels)
    return lock.amd64 if arch == "amd64" else lock.arm64


def wheels(arch: str, extras: Collection[str]) -> tuple[Wheel, ...]:
    """Return the wheels that an image with these extras needs, by name.

    Raises:
        Invalid: The lock knows no such extra.
    """
    found = locked(arch)
    known = sorted({extra for each in found for extra in each.extras})
    if unknown := sorted(set(extras) - set(known)):
        raise Invalid(f"An image cannot have the extra {unknown[0]!r}.", fix=f"it can have {', '.join(known)}.")
    wanted = {USUAL, *extras}
    return tuple(each for each in found if wanted & set(each.extras))


def wheel_entries(wheel: bytes, *, serves_only: bool = True) -> Iterator[Entry]:
    """Yield the files of a wheel, without tests, stubs and headers.

    Args:
        serves_only: Leave out tools that serving does not import, too.

    Raises:
        Corrupt: It is no wheel.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            for info in archive.infolist():
                path = _installed(info.filename)
                if path and not info.is_dir() and _kept(path, serves_only=serves_only):
                    executable = (info.external_attr >> 16) & 0o111
                    yield Entry(path=f"{SITE}/{path}", mode=0o755 if executable else 0o644, content=archive.read(info))
    except (zipfile.BadZipFile, EOFError) as error:
        raise Corrupt(f"A wheel cannot be read: {error}.", fix="remove the cache of images and build again.") from None


def _installed(name: str) -> str:
    """Return where a wheel's file goes below the folder of packages; empty where it goes nowhere."""
    first, _, rest = name.partition("/")
    if not first.endswith(".data"):
        return name
    kind, _, rest = rest.partition("/")
    return rest if kind in ("purelib", "platlib") else ""


def _kept(path: str, *, serves_only: bool) -> bool:
    parts = PurePosixPath(path).parts
    if parts[0].endswith(".dist-info"):
        return True
    if serves_only and path.startswith(_TOOLS):
        return False
    return not (path.endswith(_LEFT_OUT) or set(_NOT_SERVED) & set(parts[:-1]))


def own_entries() -> list[Entry]:
    """Return the files of the Mainspring that runs here, as a wheel of it would have them."""
    place = files("mainspring")
    found = [Entry(path=f"{SITE}/{path}", content=content) for path, content in _files(place, "mainspring")]
    info = f"{SITE}/mainspring-{__version__}.dist-info"
    own = metadata.distribution("mainspring")
    text = f"Metadata-Version: 2.1\nName: mainspring\nVersion: {__version__}\n"
    found.append(Entry(path=f"{info}/METADATA", content=text.encode()))
    found.append(Entry(path=f"{info}/entry_points.txt", content=(own.read_text("entry_points.txt") or "").encode()))
    return found


def _files(folder: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    for each in sorted(folder.iterdir(), key=lambda each: each.name):
        name = f"{path}/{each.name}"
        if each.is_dir():
            if each.name not in _NOT_SERVED and name not in ("mainspring/docs", "mainspring/examples"):
                yield from _files(each, name)
        elif not each.name.endswith((".pyc", *_LEFT_OUT)):
            yield name, each.read_bytes()
