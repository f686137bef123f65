"""The project's own files in an image from which every part of it runs: code, and what the profile names beside it."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mainspring.core.errors import Invalid
from mainspring.core.settings import PROJECT_FILE, Settings
from mainspring.security.policy_files import POLICIES

USUAL = ("**/*.py", "**/*.sql")
_LARGEST = 4 << 20  # bytes of a file
_MOST = 5_000  # files


@dataclass(frozen=True, slots=True)
class Whole:
    """The whole project in an image, beside the gateway.

    Attributes:
        files: Patterns of files of the project, relative to its folder.
        extras: Extras of Mainspring that its code needs beside `local`.
    """

    files: tuple[str, ...] = USUAL
    extras: tuple[str, ...] = ()


def code_files(settings: Settings, patterns: Sequence[str]) -> dict[str, str]:
    """Return the texts of a project's files by path, below its folder.

    Left out are links, names that begin with a dot, virtual environments, and the project's file and policies, which an
    image has in any case.

    Raises:
        Invalid: One is no text, or too large, or there are none or too many.
    """
    found: dict[str, str] = {}
    for path in sorted(_below(settings.root, settings.state)):
        name = path.relative_to(settings.root).as_posix()
        had = name == PROJECT_FILE or name.startswith(f"{POLICIES}/")
        if not had and any(_fits(name.split("/"), each.split("/")) for each in patterns):
            found[name] = _text(path, name)
            if len(found) > _MOST:
                raise Invalid(
                    f"The image would have over {_MOST:,} files of the project.", fix="name fewer in `files`."
                )
    if not found:
        raise Invalid(
            f"The project has no file for {', '.join(patterns)}.", fix='name its code in `files`: ["**/*.py"].'
        )
    return found


def signer_file(settings: Settings) -> dict[str, str]:
    """Return the file of `models_signed_by` by path.

    Raises:
        Invalid: It is not in the project's folder, or other profiles of the catalog name further ones.
    """
    signers = settings.models_signed_by
    if not signers:
        return {}
    [first, *others] = signers
    if others or not first.is_relative_to(settings.root):
        raise Invalid(
            f"Profile {settings.profile!r} demands signatures by {', '.join(map(str, signers))}.",
            fix="name one file in the project's folder as models_signed_by in every profile of this catalog.",
        )
    name = first.relative_to(settings.root).as_posix()
    return {name: _text(first, name)}


def _below(folder: Path, state: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for each in entries:
            path = Path(each.path)
            if each.name.startswith(".") or each.name == "__pycache__" or each.is_symlink() or path == state:
                continue
            if each.is_file():
                yield path
            elif each.is_dir() and not (path / "pyvenv.cfg").exists():
                yield from _below(path, state)


def _fits(name: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether the parts of a path are of a pattern's, in which `**` is any folders or none."""
    if not pattern:
        return not name
    if pattern[0] == "**":
        return _fits(name, pattern[1:]) or (bool(name) and _fits(name[1:], pattern))
    return bool(name) and fnmatch.fnmatchcase(name[0], pattern[0]) and _fits(name[1:], pattern[1:])


def _text(path: Path, name: str) -> str:
    if path.stat().st_size > _LARGEST:
        raise Invalid(f"{name} has more than {_LARGEST >> 20} MiB.", fix="leave it out of `files`: data is no code.")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise Invalid(f"{name} is no text.", fix="leave it out of `files`.") from None
